//! What happened in a period, and what the evidence for it is worth.
//!
//! [`Collection`] is shown every link of the chain once, while it is verified;
//! [`Report`] is what came of it, and [`render_html`] shows it to people. Memory is
//! bounded whatever the store holds: tables keep the largest lines, lists the
//! latest entries, and both say how much they leave out.

#![forbid(unsafe_code)]

mod collect;
mod html;
mod told;

pub use collect::Collection;
pub use html::render_html;

use crate::audit::Verification;
use crate::model::ResourceUse;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

/// A report: the shape of its JSON. Field names are stable, as those of records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// [`crate::audit::API_VERSION`].
    #[serde(rename = "apiVersion")]
    pub api_version: &'static str,
    /// `EvidenceReport`.
    pub kind: &'static str,
    /// What made it.
    pub made_by: String,
    /// When.
    pub made: Timestamp,
    /// The node that decided.
    pub node: String,
    /// Its chain, a UUID.
    pub chain: String,
    /// What it is about.
    pub period: Period,
    /// What the evidence is worth.
    pub verification: Verified,
    /// Everything counted together.
    pub totals: Totals,
    /// Decisions by day, or by month where the period is longer than a quarter.
    pub activity: Vec<Step>,
    /// Sandboxes by their decisions.
    pub sandboxes: Table<Sandbox>,
    /// Where to, of what was allowed.
    pub allowed: Table<Line>,
    /// Where to, of what was refused.
    pub denied: Table<Line>,
    /// Why it was refused.
    pub reasons: Table<Line>,
    /// The rules that allowed something.
    pub rules: Table<Line>,
    /// Policies that came into force or were refused.
    pub policy_changes: List,
    /// Approvals, emergency blocks and their ends.
    pub acts: List,
    /// Alerts.
    pub alerts: List,
    /// What could not be recorded.
    pub gaps: List,
    /// What the evidence says of itself: keys, retention, files set aside.
    pub evidence: List,
    /// What the agent said of itself: starts, stops, disturbances.
    pub agent: List,
}

/// From and to; the latter is not included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Period {
    /// The first moment of it.
    pub since: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

/// What came of verifying the whole chain, not only the period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verified {
    /// Whether nothing was found.
    pub good: bool,
    /// What is wrong first.
    pub finding: Option<String>,
    /// Records that were followed.
    pub records: u64,
    /// Those of them whose body retention took.
    pub erased: u64,
    /// Signed checkpoints that agree.
    pub checkpoints: u64,
    /// The last place that a signature covers.
    pub signed: i64,
    /// The last place.
    pub last: i64,
    /// Whether the public keys came from elsewhere, and not from beside the file.
    pub keys_given: bool,
}

/// Decisions, by how they ended; each record counts for as many as it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Allowed.
    pub allowed: u64,
    /// Refused.
    pub denied: u64,
    /// Refused, had the policy been enforced.
    pub would_deny: u64,
}

/// Everything in the period.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Of them, those whose body retention took: they are counted nowhere else.
    pub erased: u64,
    /// Decisions about flows and names.
    #[serde(flatten)]
    pub decisions: Counts,
    /// Names that were asked for, among these.
    pub queries: u64,
    /// Sandboxes that ended.
    pub sandboxes_ended: u64,
    /// Alerts.
    pub alerts: u64,
    /// Limits that sandboxes met.
    pub limits_met: u64,
    /// Decisions that no record tells of.
    pub lost: u64,
    /// Records that could not be understood.
    pub unreadable: u64,
}

/// One step of [`Report::activity`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// The day, or the first of the month, UTC.
    pub day: Date,
    /// What was decided.
    #[serde(flatten)]
    pub decisions: Counts,
}

/// The largest lines of a count.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Table<T> {
    /// The largest first.
    pub lines: Vec<T>,
    /// Decisions of the lines that are left out.
    pub left_out: u64,
}

/// The latest entries of one kind, in the order of time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct List {
    /// Entries.
    pub entries: Vec<Entry>,
    /// Earlier ones, that are left out.
    pub left_out: u64,
}

/// What was counted, and how often.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// What.
    pub what: String,
    /// Decisions.
    pub count: u64,
    /// The first and the last of them.
    pub first: Timestamp,
    /// See `first`.
    pub last: Timestamp,
}

/// One sandbox name over the period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Sandbox {
    /// Its name.
    pub name: String,
    /// Its policy, the last one if there were several.
    pub policy: Option<String>,
    /// What was decided.
    #[serde(flatten)]
    pub decisions: Counts,
    /// How many sandboxes of this name ended.
    pub ended: u64,
    /// What those used: processor time and bytes summed up, peaks the highest.
    pub usage: ResourceUse,
    /// Limits that they met.
    pub limits_met: u64,
    /// The first and the last record.
    pub first: Timestamp,
    /// See `first`.
    pub last: Timestamp,
}

/// One record of a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// Its place in the chain.
    pub sequence: i64,
    /// What it is about.
    pub kind: String,
    /// Who did it: an actor, else a user id.
    pub who: Option<String>,
    /// The sandbox.
    pub sandbox: Option<String>,
    /// How it ended.
    pub verdict: Option<String>,
    /// How many it stands for.
    pub count: u64,
    /// What happened.
    pub detail: Option<String>,
    /// SHA-256 of what it is about.
    pub digest: Option<String>,
    /// What changed, as a unified diff, cut where it is long.
    pub diff: Option<String>,
}

impl Verified {
    /// From the result of a walk.
    pub fn of(verification: &Verification, keys_given: bool) -> Self {
        let nothing = Self {
            good: false,
            finding: None,
            records: 0,
            erased: 0,
            checkpoints: 0,
            signed: 0,
            last: 0,
            keys_given,
        };
        match &verification.result {
            Ok(summary) => Self {
                good: true,
                records: summary.records,
                erased: summary.erased,
                checkpoints: summary.checkpoints,
                signed: summary.signed,
                last: summary.last,
                ..nothing
            },
            Err(finding) => Self {
                finding: Some(finding.to_string()),
                ..nothing
            },
        }
    }
}
