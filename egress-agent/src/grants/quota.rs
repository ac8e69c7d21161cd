//! How much may be remembered, and what happens at the bound.

use crate::model::DomainName;
use egress_common::SandboxId;

/// The bounds of a [`crate::grants::Ledger`].
///
/// At each bound lapsed entries make room, the oldest first and the asking
/// sandbox's own before any other's. What is still open is never given up for
/// something new: then the offer is refused ([`Full`]) and nothing changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Entries of all sandboxes. The size of the kernel's allow map; the two must agree.
    pub entries: usize,
    /// Entries of one sandbox. An eighth of the map by default, so that one
    /// sandbox cannot fill it.
    pub entries_per_sandbox: usize,
    /// Distinct addresses remembered for one name in one sandbox. Names with
    /// ever-changing addresses would otherwise use the sandbox's entries up.
    pub addresses_per_name: usize,
    /// Names remembered on one entry. Beyond it the name whose grant ends first
    /// is forgotten on that entry; the entry stays open as long as promised.
    pub names_per_entry: usize,
    /// Names that are kept for explanations after their last entry went.
    pub retired_names: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: 65_536,
            entries_per_sandbox: 8_192,
            addresses_per_name: 256,
            names_per_entry: 32,
            retired_names: 4_096,
        }
    }
}

/// Why an offer was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// The sandbox has used its share up.
    #[error(
        "sandbox {} holds {held} open grants and needs {wanted} more; {bound} are allowed: \
         name fewer ports in the rule, or wait for grants to lapse", .sandbox.0
    )]
    Sandbox {
        /// The sandbox.
        sandbox: SandboxId,
        /// Entries it holds.
        held: usize,
        /// Entries that the offer would add.
        wanted: usize,
        /// The bound.
        bound: usize,
    },
    /// The map as a whole is used up.
    #[error("{held} of {bound} grants are in use by all sandboxes, and {wanted} more are needed")]
    Total {
        /// Entries in use.
        held: usize,
        /// Entries that the offer would add.
        wanted: usize,
        /// The bound.
        bound: usize,
    },
    /// One name has too many open addresses.
    #[error("`{name}` has more than {bound} open addresses in one sandbox")]
    Name {
        /// The name.
        name: DomainName,
        /// The bound.
        bound: usize,
    },
    /// All 32-bit name ids were used.
    #[error("all name ids are used up; restart the agent")]
    Ids,
}
