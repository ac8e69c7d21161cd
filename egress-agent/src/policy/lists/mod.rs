//! Lists of names by the million: built once by a command, mapped by the agent.
//!
//! ```text
//! hosts, domains, adblock ─ text ─▶ Builder ─▶ file ─ verified, copied, mapped ─▶ NameList::find
//! ```
//!
//! A file is a header with a digest, and a table over the names. A name is asked for
//! once for each number of labels that entries have; nothing is decoded, and only
//! the pages that were asked are in memory.

#![deny(unsafe_code)]

mod builder;
mod error;
mod file;
mod fill;
mod letters;
mod mapped;
mod table;
mod text;

#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use error::{ListError, WriteError};
pub use file::{Found, NameList};
pub use text::{Format, Read, read};

/// The entry means the name itself.
const ITSELF: u8 = 1;
/// The entry means every name below it.
const BELOW: u8 = 2;
