//! What the audit store keeps: one decision, with everything that explains it.

use crate::model::attribution::Attribution;
use crate::model::relaxation::Relaxation;
use crate::model::resource_use::ResourceUse;
use crate::model::rule::RuleOrigin;
use egress_common::{Outcome, Reason, SandboxId};
use std::net::IpAddr;
use std::sync::Arc;

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RecordKind {
    /// The kernel judged a connection, a datagram, a socket or an option.
    Flow,
    /// The resolver judged a query.
    Dns,
    /// A sandbox began or ended.
    Sandbox,
    /// Policies were loaded or refused.
    Policy,
    /// The agent started, stopped, took over, was disarmed.
    Agent,
    /// Something could not be recorded; `count` says how much.
    Loss,
    /// A limit was reached: connections, bytes, queries, resources.
    Limit,
    /// An alert rule fired.
    Alert,
    /// A permission was asked for, given or refused by a person.
    Approval,
    /// Emergency block and release.
    Emergency,
    /// The evidence itself: keys, retention, the end of an earlier file.
    Evidence,
}

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Flow,
        Self::Dns,
        Self::Sandbox,
        Self::Policy,
        Self::Agent,
        Self::Loss,
        Self::Limit,
        Self::Alert,
        Self::Approval,
        Self::Emergency,
        Self::Evidence,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Dns => "dns",
            Self::Sandbox => "sandbox",
            Self::Policy => "policy",
            Self::Agent => "agent",
            Self::Loss => "loss",
            Self::Limit => "limit",
            Self::Alert => "alert",
            Self::Approval => "approval",
            Self::Emergency => "emergency",
            Self::Evidence => "evidence",
        }
    }
}

/// One audit record. Absent means unknown or not applicable, never guessed.
///
/// A new field goes here, into `audit::body` (what is hashed and kept), into
/// `audit::StoredRecord` (what is read) and into the table of `docs/audit.md`;
/// the tests of the latter two fail until all agree.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// When it happened, UTC.
    pub time: jiff::Timestamp,
    /// What it is about.
    pub kind: RecordKind,
    /// The sandbox's id.
    pub sandbox_id: Option<SandboxId>,
    /// The sandbox's name.
    pub sandbox: Option<String>,
    /// The policy's name.
    pub policy: Option<String>,
    /// The points of the fence that are open for the sandbox; none is the usual.
    pub relaxations: Vec<Relaxation>,
    /// On whose behalf the sandbox runs, if anybody said.
    pub attribution: Option<Arc<Attribution>>,
    /// Process (thread group) id.
    pub process: Option<u32>,
    /// The process's command name, at most 15 bytes.
    pub command: Option<String>,
    /// User id.
    pub user: Option<u32>,
    /// Which hook judged (`egress_common::Hook::name`).
    pub hook: Option<&'static str>,
    /// The address: where to, or for inbound where from.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: Option<u16>,
    /// `tcp`, `udp`, or an IANA number as text.
    pub protocol: Option<String>,
    /// The domain name that was asked for, or that the address was granted under.
    pub name: Option<String>,
    /// DNS query type as text (`A`, `HTTPS`).
    pub query_type: Option<String>,
    /// The upstream resolver that had answered; `hosts` for a static entry.
    pub upstream: Option<String>,
    /// What the resolver's cache had: `hit`, `miss` or `stale`.
    pub cache: Option<&'static str>,
    /// Microseconds from the query to its answer; absent where nobody looked.
    pub latency_us: Option<u64>,
    /// The rule that decided.
    pub rule: Option<RuleOrigin>,
    /// How it ended; absent where nothing was decided.
    pub outcome: Option<Outcome>,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// Who did it, where a person or a program acted on the agent: a user name,
    /// a key, a rule.
    pub actor: Option<String>,
    /// SHA-256 of what the record is about, in hexadecimal: the policies in force.
    pub digest: Option<String>,
    /// What changed, as a unified diff.
    pub diff: Option<String>,
    /// What a sandbox that ended had used.
    pub usage: Option<Box<ResourceUse>>,
    /// How many alike this record stands for, itself included; at least 1.
    pub count: u64,
    /// Anything else worth telling a person: the line that would allow it, what
    /// was granted, what was lost.
    pub detail: Option<String>,
}

impl Record {
    /// A record of `kind` at `time` that says nothing more yet.
    pub fn new(time: jiff::Timestamp, kind: RecordKind) -> Self {
        Self {
            time,
            kind,
            sandbox_id: None,
            sandbox: None,
            policy: None,
            relaxations: Vec::new(),
            attribution: None,
            process: None,
            command: None,
            user: None,
            hook: None,
            address: None,
            port: None,
            protocol: None,
            name: None,
            query_type: None,
            upstream: None,
            cache: None,
            latency_us: None,
            rule: None,
            outcome: None,
            reason: None,
            actor: None,
            digest: None,
            diff: None,
            usage: None,
            count: 1,
            detail: None,
        }
    }
}
