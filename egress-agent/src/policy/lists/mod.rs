//! Lists of names by the million: built once by a command, mapped by the agent.
//!
//! ```text
//! hosts, domains, adblock ─ text ─▶ Builder ─▶ file ─ verified, copied, mapped ─▶ NameList::find
//! ```
//!
//! A file is a header with a digest, and a finite-state transducer (crate `fst`)
//! over the names from their last letter to their first. One walk over a name
//! meets every name above it; nothing is decoded, and only the pages that are
//! walked on are in memory.

#![deny(unsafe_code)]

mod builder;
mod error;
mod file;
mod mapped;
mod text;

#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use error::{ListError, WriteError};
pub use file::{Found, NameList};
pub use text::{Format, Read, read};

/// The entry means the name itself.
const ITSELF: u64 = 1;
/// The entry means every name below it.
const BELOW: u64 = 2;
