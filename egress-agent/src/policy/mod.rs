//! Policies: from text to meaning to answer.
//!
//! ```text
//! text ─ yaml ─▶ tree with places ─ wire ─▶ document ─ compile ─▶ Policy ─▶ judge_name, screen, networks, explain
//!                       └──────────── diagnostics: all problems at once ────────────┘
//! ```
//!
//! Pure: no clock (`now` is an argument) and no I/O, except that [`load`] reads
//! the files and [`lists`] maps lists of names. What is not enforced is not accepted, and empty never means
//! everything. The language is described in `docs/policy.md`.

#![deny(unsafe_code)]

mod adopt;
mod compile;
mod judge;
mod limits;
mod listed;
mod meaning;
mod names;
mod networks;
mod ranges;
mod rule;
mod schema;
mod special;
#[cfg(test)]
mod strategies;
mod wire;
mod yaml;

pub mod diagnostic;
pub mod diff;
pub mod explain;
pub mod glob;
pub mod lists;
pub mod load;
pub mod render;
pub mod set;
pub mod target;

pub use adopt::{Adoption, CgroupKind, UnmetContract};
pub use diagnostic::{Diagnostic, Severity};
pub use explain::{Explanation, explain};
pub use glob::Glob;
pub use judge::{NamePermit, NameVerdict, Refusal, rule_line};
pub use limits::{Bytes, IoLimit, LEAST_SEND_BUFFER, Limits, SeccompProfile};
pub use meaning::{DnsSettings, Policy, UserSetting};
pub use networks::FlatNetwork;
pub use rule::{BlockEntry, BlockList, ListUse, PermittedService, Rule, Subject};
pub use schema::json_schema;
pub use set::{PolicySet, SelectError};
pub use special::is_special;
pub use target::{Query, Target, TargetError};
