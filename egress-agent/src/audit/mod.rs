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
mod checkpoint;
mod class;
mod columns;
mod destination;
mod entries;
mod error;
mod exported;
mod fold;
mod group;
mod health;
mod hide;
mod inspect;
mod intake;
mod json;
mod kept;
mod key;
mod linked;
mod note;
mod open;
mod origin;
mod postgres;
mod prove;
mod query;
mod reader;
mod recorder;
mod retention;
mod row;
mod schema;
mod seal;
mod store;
mod stored;
mod stream;
mod subject;
mod table;
mod tally;
mod text;
mod time;
mod tree;
mod upkeep;
mod verify;
mod writer;

pub use chain::{Hash, Header};
pub use checkpoint::Checkpoint;
pub use class::Class;
pub use destination::{DestinationError, DestinationFilter};
pub use error::AuditError;
pub use exported::{ChainFields, ExportError, Exported, verify_export};
pub use group::{Group, GroupField};
pub use health::Health;
pub use hide::Hider;
pub use inspect::{Span, Verification};
pub use json::{API_VERSION, inert, render_json, render_json_lines, write_json_line};
pub use kept::read_notes;
pub use key::{KeyFiles, read_public};
pub use linked::{ChainOrigin, Linked};
pub use note::{NoteError, PublicKey, PublicKeyError};
pub use origin::{ProcessFilter, ProcessFilterError, RuleFilter, RuleFilterError};
pub use postgres::{ShipError, verify_postgres};
pub use prove::ProofError;
pub use query::{Order, Query};
pub use reader::Reader;
pub use recorder::Recorder;
pub use retention::Retention;
pub use store::{Options, Store};
#[cfg(test)]
pub(crate) use stored::tests::sample as sample_for_tests;
pub use stored::{StoredRecord, StoredRule};
pub use stream::Parts;
pub use table::{render_table, to_terminal};
pub use text::Text;
pub use time::{TimeError, parse_time};
pub use upkeep::CheckpointRule;
pub use verify::{AddressColumn, Columns, Content, Entry, Finding, Summary, Walk};

#[cfg(test)]
mod tests;
