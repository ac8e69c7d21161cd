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
mod destination;
mod error;
mod health;
mod hide;
mod json;
mod open;
mod query;
mod reader;
mod recorder;
mod row;
mod seal;
mod store;
mod stored;
mod table;
mod time;
mod tree;
mod writer;

pub use chain::Hash;
pub use class::Class;
pub use destination::{DestinationError, DestinationFilter};
pub use error::AuditError;
pub use health::Health;
pub use hide::Hider;
pub use json::{API_VERSION, render_json, render_json_lines};
pub use query::{Order, Query};
pub use reader::Reader;
pub use recorder::Recorder;
pub use store::{Options, Store};
pub use stored::{StoredRecord, StoredRule};
pub use table::render_table;
pub use time::{TimeError, parse_time};

#[cfg(test)]
mod tests;
