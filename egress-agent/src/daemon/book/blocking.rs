//! Sandboxes that are refused everything, whatever their policy says.

use super::{Book, BookError};
use crate::image::Change;
use egress_common::SandboxId;
use std::collections::BTreeSet;

impl Book {
    /// Who is refused everything.
    pub const fn blocked(&self) -> &BTreeSet<SandboxId> {
        &self.blocked
    }

    /// Notes whether a sandbox is refused everything; says whether that is new.
    pub fn set_blocked(&mut self, id: SandboxId, blocked: bool) -> bool {
        // What the resolver remembers of its policy counts no more.
        self.generation.advance();
        if blocked {
            self.blocked.insert(id)
        } else {
            self.blocked.remove(&id)
        }
    }

    /// What ends the block, for a record of what it refused.
    pub fn unblocking(&self, id: SandboxId) -> Option<String> {
        let member = self.member(id).filter(|_| self.blocked.contains(&id))?;
        Some(format!(
            "`egressctl sandbox unblock {}` ends it",
            member.name
        ))
    }

    /// The changes that bring the kernel in step with who is blocked.
    pub fn changes_of_blocking(&mut self) -> Result<Vec<Change>, BookError> {
        self.replan()
    }
}
