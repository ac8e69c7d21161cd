//! One sandbox, as the book knows it.

use crate::api::wire::Progress;
use crate::model::{Attribution, LinkSpec, Relaxation, SandboxName};
use crate::policy::Limits;
use egress_common::{CgroupId, SandboxId};
use jiff::Timestamp;
use std::sync::Arc;

/// A sandbox.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: SandboxId,
    /// Its name.
    pub name: SandboxName,
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// The policy that it is under, by name: what the name means can change.
    pub policy: String,
    /// When it began.
    pub began: Timestamp,
    /// When it began, in boot-time nanoseconds: its time is counted on a clock that
    /// nobody sets.
    pub began_boot: u64,
    /// The process that asked for it, which ends it.
    pub owner: u32,
    /// What it has beyond the usual, in plain words.
    pub relaxations: Vec<String>,
    /// The points of its fence that are open since it began.
    pub relaxed: Vec<Relaxation>,
    /// On whose behalf it runs, if anybody said.
    pub attribution: Option<Arc<Attribution>>,
    /// The limits in force.
    pub limits: Limits,
    /// How its command fares, if a supervisor sees to it.
    pub progress: Option<Progress>,
    /// The cgroup of somebody else that it is, if it is one.
    pub foreign: Option<Foreign>,
    /// The interface that it is behind, if it is no cgroup.
    pub link: Option<Arc<LinkSpec>>,
    /// Whether it has a network namespace of its own, or is about to get it.
    pub own_network: bool,
    /// What leads there, once it does.
    pub network: Option<OwnNetwork>,
}

/// The way into a sandbox's own network namespace.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct OwnNetwork {
    /// The index of the host's end.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// A process of the sandbox that stays in the namespace to its end: the first
    /// one of its pid namespace.
    pub process: u32,
}

/// A cgroup that somebody else made, and ends.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Foreign {
    /// Its name below the governed root.
    pub directory: String,
    /// Whether a container's hook told what its processes will have.
    pub vouched: bool,
}

impl Member {
    /// The name of its cgroup below the governed root; `None` if it is behind an
    /// interface, and so no cgroup of this host.
    pub fn directory(&self) -> Option<&str> {
        match (&self.link, &self.foreign) {
            (Some(_), _) => None,
            (None, Some(foreign)) => Some(&foreign.directory),
            (None, None) => Some(self.name.as_str()),
        }
    }

    /// The index of the interface at which it is met, if there is one.
    pub fn interface(&self) -> Option<u32> {
        match &self.network {
            Some(network) => Some(network.interface),
            None => self.cgroup.interface(),
        }
    }

    /// When its time is up, in boot-time nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        let timeout = u64::try_from(self.limits.timeout?.as_nanos()).ok()?;
        Some(self.began_boot.saturating_add(timeout))
    }
}

/// A sandbox that is about to begin.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Its name.
    pub name: SandboxName,
    /// Its cgroup, with nothing in it yet.
    pub cgroup: CgroupId,
    /// See [`Member::owner`].
    pub owner: u32,
    /// See [`Member::attribution`].
    pub attribution: Option<Arc<Attribution>>,
    /// See [`Member::limits`].
    pub limits: Limits,
    /// Limits that this host does not enforce, in words.
    pub left_out: Vec<String>,
    /// See [`Member::foreign`].
    pub foreign: Option<Foreign>,
    /// See [`Member::link`].
    pub link: Option<Arc<LinkSpec>>,
    /// See [`Member::own_network`].
    pub own_network: bool,
}

impl Newcomer {
    /// A sandbox of which nothing more is known.
    pub fn new(name: SandboxName, cgroup: CgroupId, owner: u32) -> Self {
        Self {
            name,
            cgroup,
            owner,
            attribution: None,
            limits: Limits::default(),
            left_out: Vec::new(),
            foreign: None,
            link: None,
            own_network: false,
        }
    }
}
