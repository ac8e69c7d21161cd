//! Sandboxes with a network namespace of their own, met at an interface too.

use super::{Book, BookError, Member, OwnNetwork};
use crate::image::Change;
use egress_common::SandboxId;

impl Book {
    /// Notes the interface of a sandbox's own network: the same sandbox, met there
    /// too.
    pub fn give_network(
        &mut self,
        id: SandboxId,
        network: OwnNetwork,
    ) -> Result<(Member, Vec<Change>), BookError> {
        self.set_network(id, Some(network))
    }

    /// The interface is its no more.
    pub fn take_network(&mut self, id: SandboxId) -> Result<(Member, Vec<Change>), BookError> {
        self.set_network(id, None)
    }

    fn set_network(
        &mut self,
        id: SandboxId,
        network: Option<OwnNetwork>,
    ) -> Result<(Member, Vec<Change>), BookError> {
        let member = self
            .members
            .get_mut(&id)
            .ok_or_else(|| BookError::NoSuchSandbox(id.0.to_string()))?;
        let before = std::mem::replace(&mut member.network, network);
        let changed = member.clone();
        match self.replan() {
            Ok(changes) => Ok((changed, changes)),
            Err(error) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.network = before;
                }
                Err(error)
            }
        }
    }
}
