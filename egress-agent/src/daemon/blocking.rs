//! Refusing one sandbox everything, and taking that back.

use super::agent::Agent;
use super::book::{BookError, Member};
use crate::api::wire::{Failure, FailureKind};
use crate::image::Change;
use crate::telemetry::ids;

impl Agent {
    /// Refuses a sandbox everything from now on, live connections included,
    /// until it ends or is unblocked. Survives a restart of the agent.
    pub fn block_sandbox(&self, name: &str, why: &str) -> Result<(), Failure> {
        self.change_blocking(name, true, format!("blocked: {why}"))
    }

    /// Brings a blocked sandbox back under its policy. What it had resolved has
    /// to be resolved again.
    pub fn unblock_sandbox(&self, name: &str, why: &str) -> Result<(), Failure> {
        self.change_blocking(name, false, format!("unblocked: {why}"))
    }

    fn change_blocking(&self, name: &str, blocked: bool, detail: String) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Failed, error);
        let member: Member = {
            let mut book = self.book();
            let member = book
                .by_name(name)
                .cloned()
                .ok_or_else(|| Failure::from(BookError::NoSuchSandbox(name.to_owned())))?;
            if !book.set_blocked(member.id, blocked) {
                return Ok(());
            }
            // Written down first: an agent that dies here comes back strict.
            self.runtime()
                .remember_blocked(book.blocked())
                .map_err(|error| failed(&error))?;
            let mut changes = book.changes_of_blocking()?;
            if blocked {
                let lapsed = book.ledger_mut().drop_sandbox(member.id);
                changes.extend(lapsed.into_iter().map(Change::RemoveGrant));
            }
            self.carry_out(&mut book, &changes)
                .map_err(|error| failed(&error))?;
            member
        };
        if blocked && let Err(error) = self.end_revoked() {
            // They are cut all the same, packet by packet.
            tracing::warn!(%error, "connections of a blocked sandbox were not ended at once");
        }
        self.tell_of_sandbox(ids::SANDBOX_BLOCKING, &member, detail);
        Ok(())
    }
}
