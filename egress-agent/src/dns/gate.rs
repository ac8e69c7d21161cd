//! What the resolver asks of the rest of the agent.

use super::budget::Below;
use crate::model::{DomainName, NameLimits, Record, RuleOrigin};
use egress_common::{Mode, Protocol, Reason, SandboxId};
use jiff::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Through which the resolver is served. Every call is made from an async task
/// and must return within microseconds: map look-ups and map writes are fine,
/// files and waiting are not.
pub trait Gate: Send + Sync + 'static {
    /// Proof that addresses were written into the kernel map. Only the writer
    /// can make one; its type should have no public constructor.
    type Receipt: Standing;
    /// What the policy allows about one name.
    type Permit: Send + Sync + Clone;

    /// What a sandbox's policy refuses in any case.
    type Sieve: Sieve;

    /// Boot-time nanoseconds, the clock of the grants.
    fn now(&self) -> u64;

    /// A number that moves before anything changes that is asked below, or any
    /// grant is taken back. What was found out under an earlier number is asked
    /// again.
    fn generation(&self) -> u64;

    /// Tells that all datagrams were read that waited. Until then a sandbox that
    /// has sent what it may send at once sends no more.
    fn drained(&self);

    /// As [`Gate::asker`], also for a sandbox that has just ended.
    fn sender(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId>;

    /// Whose socket sent a packet from here, as the kernel recorded it.
    fn asker(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId>;

    /// The process that sent a packet from here, where the kernel knows it. For the
    /// record only.
    fn process(&self, from: SocketAddr, protocol: Protocol) -> Option<u32>;

    /// What the sandbox's policy refuses in any case, good until the generation
    /// moves. `None` if nothing can be said without [`Gate::judge`].
    fn sieve(&self, sandbox: SandboxId) -> Option<Self::Sieve>;

    /// Whether everything is stopped, whoever stopped it: the generation does not move
    /// with that.
    fn in_emergency(&self) -> bool;

    /// Whether the sandbox may resolve the name; not while everything is stopped. Asked
    /// before anything is forwarded, and again after an upstream answered if the generation
    /// has moved, a rule has expired, or everything was stopped meanwhile.
    fn judge(&self, sandbox: SandboxId, name: &DomainName) -> Judgement<Self::Permit>;

    /// Whether the permit covers an address that an answer holds.
    fn screen(
        &self,
        sandbox: SandboxId,
        permit: &Self::Permit,
        address: IpAddr,
    ) -> Result<(), Reason>;

    /// Whether the sandbox gets answers of this record type (IANA number).
    fn query_type_allowed(&self, sandbox: SandboxId, query_type: u16) -> bool;

    /// The sandbox's bounds.
    fn limits(&self, sandbox: SandboxId) -> Limits;

    /// Where the sandbox's policy says that the answer for a name comes from.
    fn sources(&self, sandbox: SandboxId, name: &DomainName) -> Sources;

    /// Opens the addresses for the sandbox. Called before every answer that
    /// names something, also from the cache, where it renews; with no address
    /// for records that hold none, which opens nothing. A reload between
    /// [`Gate::judge`] and this call must make it fail.
    fn open(
        &self,
        sandbox: SandboxId,
        permit: &Self::Permit,
        opening: Opening<'_>,
    ) -> Result<Self::Receipt, OpenError>;

    /// Takes one audit record. The resolver knows the sandbox's id, not its name.
    fn record(&self, record: Record) {
        self.note(record.count.max(1));
        self.record_noted(record);
    }

    /// Whether a sandbox is there and has a policy: what is kept for another is of no use.
    fn has_policy(&self, sandbox: SandboxId) -> bool;

    /// Counts decisions whose record comes later, so that they are not forgotten if the
    /// agent is killed in between.
    fn note(&self, decisions: u64);

    /// Takes the record of decisions that were noted.
    fn record_noted(&self, record: Record);
}

/// How long a receipt's grants stand.
pub trait Standing: Send + 'static {
    /// Whether, at the boot-time nanosecond `now`, an answer may be repeated that
    /// says its addresses are good for `answer_ttl`: the grants outlive it, and
    /// opening them again would not make them last noticeably longer.
    fn covers(&self, now: u64, answer_ttl: Duration) -> bool;
}

/// What a policy refuses at any time, kept where it can be asked without a lock:
/// names that are refused are asked by the thousand.
pub trait Sieve: Send + Sync + Clone + 'static {
    /// Why the name, in canonical text, is refused. `None` says nothing.
    fn refuses(&self, name: &str) -> Option<Reason>;

    /// Why a name that is refused is, in words.
    fn refusal(&self, name: &DomainName) -> Option<Refusal>;

    /// How long a refusal may be kept.
    fn negative_ttl(&self) -> Duration;
}

/// What policy says about a name.
#[derive(Clone, Debug)]
pub enum Judgement<P> {
    /// It may be resolved.
    Allow {
        /// What is allowed about it.
        permit: P,
        /// The rule that allows it.
        rule: Option<RuleOrigin>,
        /// What of the name only a wildcard allows; `None` if a rule names it.
        below: Option<Below>,
    },
    /// Policy refuses it, and the sandbox is in shadow mode: it is resolved, and
    /// recorded as what would have been refused.
    Shadow {
        /// What is opened for it, possibly nothing.
        permit: P,
        /// What enforcement would have said.
        refusal: Refusal,
    },
    /// It is not resolved, and not forwarded in any type.
    Refuse(Refusal),
}

/// Why not.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The rule that refuses, where one does.
    pub rule: Option<RuleOrigin>,
    /// The line that would allow it, or whatever else helps a person.
    pub help: Option<String>,
}

/// Where a policy says that the answer for a name comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// Of which view an upstream must be.
    pub view: Option<Arc<str>>,
    /// The addresses that the policy itself gives the name.
    pub addresses: Option<Vec<IpAddr>>,
}

/// A sandbox's bounds on answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Whether refusals are only recorded.
    pub mode: Mode,
    /// The longest TTL that an answer carries, and the longest time that an
    /// upstream's answer is used.
    pub cache_ttl: Duration,
    /// The same for refusals and for names that do not exist.
    pub negative_cache_ttl: Duration,
    /// Addresses per answer; further ones are neither opened nor handed out.
    pub max_addresses: usize,
    /// How much may be said in names.
    pub names: NameLimits,
    /// When the next rule of the policy expires.
    pub rules_until: Option<Timestamp>,
}

/// What is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The name that was asked for.
    pub name: &'a DomainName,
    /// The addresses that the answer will name.
    pub addresses: &'a [IpAddr],
    /// How long the upstream says that they are good.
    pub ttl: Duration,
    /// How long the answer will say so; never longer than `ttl`. The grant must
    /// outlive it.
    pub answer_ttl: Duration,
}

/// Why nothing was opened; the client gets SERVFAIL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct OpenError {
    /// [`Reason::GrantFailed`], or the bound that was reached.
    pub reason: Reason,
    /// What a person needs to know.
    pub detail: String,
}
