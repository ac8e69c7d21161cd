//! From what a hook reported to what the audit store keeps.
//!
//! ```text
//! ring buffer → Report (validated) → enriched Record → folded → audit store
//! counters    → Losses                → Record of loss →
//! ```
//!
//! Everything here is pure: no clock, no I/O, no lock. The daemon owns the loop
//! and passes the time in, so every window and bound is an ordinary unit test.
//! [`Pipeline`] is the only thing that the daemon talks to.

#![forbid(unsafe_code)]

mod clock;
mod enrich;
mod fold;
mod loss;
mod pipeline;
mod report;

pub use clock::Moment;
pub use fold::Bounds;
pub use loss::Source;
pub use pipeline::Pipeline;
pub use report::{Malformed, Report};

use crate::model::{Attribution, DomainName, Relaxation, RuleOrigin};
use egress_common::{Event, NameId, RuleId, SandboxId};
use std::sync::Arc;

/// What is known about a sandbox beyond its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SandboxFacts {
    /// Its name.
    pub name: String,
    /// The name of its policy.
    pub policy: String,
    /// The points of its fence that are open.
    pub relaxations: Vec<Relaxation>,
    /// On whose behalf it runs, if anybody said.
    pub attribution: Option<Arc<Attribution>>,
}

/// Where reports get the words for their numbers from.
///
/// Absent means unknown, and is recorded as unknown: a report is never dropped
/// because nobody can name what it is about.
pub trait Context {
    /// The sandbox with this id, also for a while after it ended.
    fn sandbox(&self, id: SandboxId) -> Option<SandboxFacts>;
    /// The name that an address was granted under.
    fn name(&self, id: NameId) -> Option<DomainName>;
    /// The rule that decided.
    fn rule(&self, id: RuleId) -> Option<RuleOrigin>;
    /// The policy line that would allow what was denied.
    fn hint(&self, sandbox: SandboxId, event: &Event) -> Option<String>;
}

impl<T: Context + ?Sized> Context for Arc<T> {
    fn sandbox(&self, id: SandboxId) -> Option<SandboxFacts> {
        T::sandbox(self, id)
    }

    fn name(&self, id: NameId) -> Option<DomainName> {
        T::name(self, id)
    }

    fn rule(&self, id: RuleId) -> Option<RuleOrigin> {
        T::rule(self, id)
    }

    fn hint(&self, sandbox: SandboxId, event: &Event) -> Option<String> {
        T::hint(self, sandbox, event)
    }
}
