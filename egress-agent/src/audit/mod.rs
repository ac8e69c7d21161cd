//! The audit store: every decision as evidence, in one SQLite file.
//!
//! [`Store`] owns the file and its single writer; [`Recorder`] is how the rest of
//! the agent hands records over without ever waiting; [`Reader`] answers
//! [`Query`]s on the file, with or without an agent. What cannot be kept is
//! counted, and the count is a record: nothing is lost silently.
//!
//! This is the only user of sqlx.

#![forbid(unsafe_code)]

mod body;
mod chain;
mod class;
mod columns;
mod destination;
mod error;
mod group;
mod health;
mod hide;
mod json;
mod open;
mod origin;
mod query;
mod reader;
mod recorder;
mod row;
mod seal;
mod store;
mod stored;
mod stream;
mod table;
mod time;
mod tree;
mod writer;

pub use chain::Hash;
pub use class::Class;
pub use destination::{DestinationError, DestinationFilter};
pub use error::AuditError;
pub use group::{Group, GroupField};
pub use health::Health;
pub use hide::Hider;
pub use json::{API_VERSION, inert, render_json, render_json_lines, write_json_line};
pub use origin::{ProcessFilter, ProcessFilterError, RuleFilter, RuleFilterError};
pub use query::{Order, Query};
pub use reader::Reader;
pub use recorder::Recorder;
pub use store::{Options, Store};
#[cfg(test)]
pub(crate) use stored::tests::sample as sample_for_tests;
pub use stored::{StoredRecord, StoredRule};
pub use table::{render_table, to_terminal};
pub use time::{TimeError, parse_time};

#[cfg(test)]
mod tests;
