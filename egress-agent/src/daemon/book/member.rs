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
    /// The name of its cgroup below the governed root.
    pub fn directory(&self) -> &str {
        match &self.foreign {
            Some(foreign) => &foreign.directory,
            None => self.name.as_str(),
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
        }
    }
}
