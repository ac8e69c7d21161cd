//! What the kernel maps should contain; pure.
//!
//! An [`Image`] is the full content of every map that opens something. Two
//! images give a [`plan`]: the ordered changes that lead from one to the other
//! without a moment that is looser than both.

#![forbid(unsafe_code)]

mod budget;
mod networks;
mod plan;
mod view;

pub use budget::{BudgetError, MAX_GRANTS, MAX_NETWORKS, MAX_SANDBOXES, check};
pub use networks::{FlatService, flatten_into};
pub use plan::{Change, plan};
pub use view::View;

use egress_common::{CgroupId, Grant, GrantKey, Network, NetworkKey, Sandbox, Settings};
use std::collections::BTreeMap;

/// A prefix of the network trie: how many bits of the key count (the policy's
/// 32 and up to 128 of the address), and the key.
pub type Prefix = (u32, NetworkKey);

/// The content of every map that opens something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    /// What all programs must know.
    pub settings: Settings,
    /// The sandboxes by their cgroup.
    pub sandboxes: BTreeMap<CgroupId, Sandbox>,
    /// The static networks of all policies.
    pub networks: BTreeMap<Prefix, Network>,
    /// What the resolver handed out.
    pub grants: BTreeMap<GrantKey, Grant>,
}
