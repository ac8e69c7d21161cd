//! Changes of the kernel maps, and what has to be true before and after each.

use super::agent::Agent;
use super::book::{Book, Member};
use super::control::failed;
use crate::api::wire::Failure;
use crate::dns::OpenError;
use crate::enforcer::{EnforcerError, Receipt};
use crate::grants::Changes;
use crate::image::Change;
use egress_common::Reason;
use std::sync::MutexGuard;

impl Agent {
    /// Puts a sandbox that has begun into force, or ends it again: the kernel may
    /// know it already, and it must not outlive the failure.
    pub(super) fn put_in_force(
        &self,
        book: &mut MutexGuard<'_, Book>,
        member: &Member,
        changes: &[Change],
    ) -> Result<(), Failure> {
        let written = self.remember_and_carry_out(book, member, changes);
        if written.is_err() {
            if let Ok(changes) = book.end(member.id) {
                let _ = self.carry_out(book, &changes);
            }
            let _ = self.runtime().forget(&member.name);
        }
        written
    }

    /// Writes down what is known of a sandbox, for the next agent, and then changes
    /// the kernel. Where that fails the caller undoes both.
    pub(super) fn remember_and_carry_out(
        &self,
        book: &mut MutexGuard<'_, Book>,
        member: &Member,
        changes: &[Change],
    ) -> Result<(), Failure> {
        self.runtime().remember(member).map_err(failed)?;
        self.carry_out(book, changes).map_err(failed)
    }

    /// Changes the kernel. Where that fails half way the kernel is as strict as
    /// both ends, and the book is set to what the kernel holds.
    pub(super) fn carry_out(
        &self,
        book: &mut MutexGuard<'_, Book>,
        changes: &[Change],
    ) -> Result<(), EnforcerError> {
        let result = self.enforcer().apply(changes);
        if result.is_ok() {
            book.note_carried_out();
            return result;
        }
        match self.enforcer().image() {
            Ok(image) => book.resynchronise(&image),
            Err(error) => tracing::error!(%error, "the kernel maps cannot be read back"),
        }
        result
    }

    /// Brings grants into the kernel map: names first into the runtime
    /// directory, so that the next agent knows what it finds.
    pub(super) fn grant(
        &self,
        book: &mut MutexGuard<'_, Book>,
        changes: Vec<Changes>,
    ) -> Result<Receipt, OpenError> {
        let failed = |detail: String| OpenError {
            reason: Reason::GrantFailed,
            detail,
        };
        let mut writes = Vec::new();
        let mut removals = Vec::new();
        {
            let mut runtime = self.runtime();
            if runtime.names_overflow(book.ledger().names()) {
                runtime
                    .rewrite_names(book.ledger().known_names())
                    .map_err(|error| failed(error.to_string()))?;
            }
            for change in changes {
                for (_, grant) in &change.write {
                    if let Some(name) = book.ledger().name(grant.name) {
                        runtime
                            .remember_name(grant.name, name)
                            .map_err(|error| failed(error.to_string()))?;
                    }
                }
                removals.extend(change.remove.into_iter().map(Change::RemoveGrant));
                writes.extend(change.write);
            }
        }
        self.enforcer()
            .apply(&removals)
            .map_err(|error| failed(error.to_string()))?;
        self.enforcer()
            .grant(&writes)
            .map_err(|error| failed(error.to_string()))
    }
}
