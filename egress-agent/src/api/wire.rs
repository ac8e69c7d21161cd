//! What travels over the control socket. These types are the API: fields are
//! added, never renamed.

use crate::model::{Attribution, Relaxation};
use crate::policy::SeccompProfile;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A sandbox to be made.
#[derive(Clone, Serialize, Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct NewSandbox {
    /// Its name; the agent makes one up if absent.
    pub name: Option<String>,
    /// The policy by name; by `applies_to` if absent.
    pub policy: Option<String>,
    /// The process whose end ends the sandbox.
    pub owner: u32,
    /// On whose behalf it runs.
    #[serde(default)]
    pub attribution: Attribution,
    /// Whether it gets a network namespace of its own; its launcher makes that, and
    /// asks for the way out.
    #[serde(default)]
    pub own_network: bool,
}

/// An interface to be attached: what is behind it becomes a sandbox.
#[derive(Clone, Serialize, Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct NewInterface {
    /// Its name on the host.
    pub interface: String,
    /// The sandbox's name; the interface's if absent.
    pub name: Option<String>,
    /// The policy by name; by `applies_to` if absent.
    pub policy: Option<String>,
    /// What the sandbox may send from, as addresses or networks; what the host
    /// reaches directly through the interface if empty.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The sandbox's Ethernet address; that of its first good frame if absent.
    #[serde(default)]
    pub mac: Option<String>,
}

/// A process whose network namespace is to be wired to the host.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewNetwork {
    /// One of the sandbox, that stays in the namespace to its end.
    pub process: u32,
}

/// The network of a sandbox with a namespace of its own.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Network {
    /// The host's end of it.
    pub interface: String,
    /// The sandbox's addresses with their networks.
    pub addresses: Vec<String>,
}

/// A sandbox that was made.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// The agent's id of it.
    pub id: u32,
    /// The governed root, relative to the cgroup2 mount.
    pub root: String,
    /// The policy it is under.
    pub policy: String,
    /// The user that the policy names, if it does.
    pub user: Option<String>,
    /// `enforce` or `shadow`.
    pub mode: String,
    /// What the policy gives away beyond the usual, in plain words.
    pub relaxations: Vec<String>,
    /// The points of the fence that the launcher leaves open.
    #[serde(default)]
    pub relaxed: Vec<Relaxation>,
    /// How long it may last, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Bytes of `/tmp`, everything else being read-only.
    pub disk: Option<u64>,
    /// Which system calls the command cannot make.
    #[serde(default)]
    pub seccomp: SeccompProfile,
    /// Where the agent keeps its keys and its evidence: empty for the command.
    #[serde(default)]
    pub hidden: Vec<PathBuf>,
    /// What the agent is configured by: read-only for the command, whoever owns it.
    #[serde(default)]
    pub read_only: Vec<PathBuf>,
}

/// A sandbox that has ended.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Ended {
    /// The limits that ended it, in words.
    pub over: Vec<String>,
    /// What it used, in words.
    pub used: String,
}

/// A sandbox that runs.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Sandbox {
    /// Its name.
    pub name: String,
    /// The agent's id of it.
    pub id: u32,
    /// The policy it is under.
    pub policy: String,
    /// `enforce`, `shadow`, or `denied` when its policy is gone.
    pub mode: String,
    /// When it began, RFC 3339.
    pub began: String,
    /// Processes in it.
    pub processes: usize,
    /// Addresses that the resolver opened for it, by port; lapsed ones included.
    pub grants: usize,
    /// Reports that were only counted because there were too many.
    pub reports_lost: u64,
    /// The interface that it is behind, if it is no cgroup.
    #[serde(default)]
    pub interface: Option<String>,
    /// What it has beyond the usual, in plain words.
    pub relaxations: Vec<String>,
    /// The points of its fence that are open.
    #[serde(default)]
    pub relaxed: Vec<Relaxation>,
    /// On whose behalf it runs.
    pub attribution: Attribution,
    /// `running`, `paused`, `stopping`, or `empty` while nothing runs in it.
    pub state: String,
    /// The process that ends it.
    pub owner: u32,
    /// How its command fares, if a supervisor sees to it.
    pub progress: Option<Progress>,
    /// When its time is up, in milliseconds from now.
    pub time_left_ms: Option<u64>,
    /// What it used until now, in words.
    pub used: String,
}

/// How the command of a detached sandbox fares, as its supervisor tells.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How often it was started.
    pub starts: u32,
    /// How it ended the last time, in words.
    pub last_ending: Option<String>,
    /// `healthy`, or what the health command said; absent without one.
    pub health: Option<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// What just happened, for the record.
    pub happened: String,
}

/// A container's cgroup to be brought under its policy.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// Its name below the governed root.
    pub directory: String,
    /// What its processes will have and no sandbox has, in words, and whether that is
    /// a way round the fence.
    pub findings: Vec<(String, bool)>,
}

/// A cgroup that is under its policy.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Adopted {
    /// The sandbox's name.
    pub name: String,
    /// The policy it is under.
    pub policy: String,
    /// What it has beyond the usual, in plain words.
    pub relaxations: Vec<String>,
}

/// A sandbox to be stopped.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// How long it may take to end by itself after SIGTERM, in milliseconds.
    pub grace_ms: u64,
}

/// A sandbox whose state was changed.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Done {
    /// What was done, in words.
    pub what: String,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// A policy in force.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct PolicyInForce {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// `enforce` or `shadow`.
    pub mode: String,
    /// What it gives away beyond the usual, in plain words.
    #[serde(default)]
    pub relaxations: Vec<String>,
}

/// The agent's state.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// `enforcing`, or what is wrong.
    pub state: String,
    /// The governed root's directory.
    pub root: PathBuf,
    /// Whether the agent began fresh or took over, in words.
    pub started: String,
    /// When the agent began, RFC 3339.
    pub since: String,
    /// Sandboxes that run.
    pub sandboxes: usize,
    /// The second wall, LSM programs: `in force: …`, or `not usable here: …` with
    /// the reason.
    #[serde(default)]
    pub lsm: String,
    /// Points of the fence that are open, by the name of the sandbox; without those
    /// for which none is.
    #[serde(default)]
    pub relaxed: std::collections::BTreeMap<String, Vec<Relaxation>>,
    /// The policies in force.
    pub policies: Vec<PolicyInForce>,
    /// Where they came from: `files`, or which bundle signed by whom.
    #[serde(default)]
    pub policies_from: Option<String>,
    /// Since when they are in force, RFC 3339.
    #[serde(default)]
    pub policies_since: Option<String>,
    /// Where the resolver listens.
    pub resolver: Vec<String>,
    /// Upstream resolvers in order.
    pub upstreams: Vec<String>,
    /// Kernel and resolver counters by name.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// The audit file.
    pub audit_file: PathBuf,
    /// Records that wait to be written.
    pub audit_queued: u64,
    /// Records written since the agent began.
    pub audit_written: u64,
    /// Records that could not be kept; the loss is itself recorded.
    pub audit_lost: u64,
    /// Why the last write failed.
    pub audit_error: Option<String>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// Why everything is stopped, if it is.
    #[serde(default)]
    pub emergency: Option<Incident>,
}

/// An emergency block.
#[derive(Clone, Serialize, Deserialize, Debug, PartialEq, Eq)]
pub struct Incident {
    /// By which it is ended.
    pub incident: String,
    /// Since when, RFC 3339; absent where the file that says so cannot be read.
    pub since: Option<String>,
    /// Why, in the words of who did it.
    pub reason: String,
    /// The user id of who did it.
    pub user: Option<u32>,
}

/// Stop everything.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct EmergencyBlock {
    /// Why; recorded and shown.
    pub reason: String,
}

/// Let policy decide again.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The incident that is over.
    pub incident: String,
}

/// A reload that took effect.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Reloaded {
    /// The policies now in force.
    pub policies: Vec<PolicyInForce>,
    /// Live connections that lost their rule and were ended.
    pub connections_ended: usize,
    /// What `policy check` would warn about, rendered.
    pub warnings: String,
}

/// Why a request failed; its exit code tells which kind.
#[derive(Clone, Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request cannot be meant.
    Usage,
    /// The thing does not exist.
    NotFound,
    /// It conflicts with what is there.
    Conflict,
    /// The peer may not.
    NotPermitted,
    /// A policy or configuration is wrong.
    BadConfiguration,
    /// It was tried and did not work.
    Failed,
}

/// Why a request failed, for a person.
#[derive(Clone, Serialize, Deserialize, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which kind.
    pub kind: FailureKind,
    /// What to tell, with what to do.
    pub message: String,
}

impl Failure {
    /// It was tried and did not work.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::Failed, error)
    }

    /// A failure of a kind, told by an error.
    pub fn new(kind: FailureKind, error: impl std::fmt::Display) -> Self {
        Self {
            kind,
            message: error.to_string(),
        }
    }
}

/// Why somebody does something to a sandbox; it stands in the record.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// In words.
    pub reason: String,
}

/// The answer to a disarm request.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Disarmed {
    /// Programs taken out of force.
    pub programs: usize,
}

/// A disarm request.
#[derive(Clone, Copy, Serialize, Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Disarm {
    /// Also while sandboxes run.
    #[serde(default)]
    pub force: bool,
}
