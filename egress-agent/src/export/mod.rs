//! Records in the forms that other systems read.
//!
//! [`Format`] turns one record into one line; it keeps nothing, so an export of
//! any length needs the memory of one record. [`syslog`] frames records for a
//! collector. What each field becomes is in `docs/audit.md`.

#![forbid(unsafe_code)]

mod cef;
pub mod checkpoints;
mod csv;
mod ecs;
mod facts;
mod ocsf;
pub mod syslog;
mod time;

use crate::audit::{StoredRecord, write_json_line};
use std::fmt;

/// The form of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The product's own JSON, a record a line.
    Jsonl,
    /// RFC 4180, with a heading.
    Csv,
    /// Open Cybersecurity Schema Framework 1.3, an event a line.
    Ocsf,
    /// Elastic Common Schema 8, an event a line.
    Ecs,
    /// ArcSight Common Event Format.
    Cef,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Jsonl, Self::Csv, Self::Ocsf, Self::Ecs, Self::Cef];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Ocsf => "ocsf",
            Self::Ecs => "ecs",
            Self::Cef => "cef",
        }
    }

    /// What comes before the first record, its line end included.
    pub fn heading(self) -> String {
        match self {
            Self::Csv => csv::heading(),
            Self::Jsonl | Self::Ocsf | Self::Ecs | Self::Cef => String::new(),
        }
    }

    /// Adds one record as one line, its line end included.
    pub fn write(self, record: &StoredRecord, to: &mut String) -> Result<(), ExportError> {
        match self {
            Self::Jsonl => write_json_line(record, to).map_err(ExportError),
            Self::Csv => {
                csv::write(record, to);
                Ok(())
            }
            Self::Ocsf => json_line(&ocsf::event(record), to),
            Self::Ecs => json_line(&ecs::event(record), to),
            Self::Cef => {
                cef::write(record, to);
                to.push('\n');
                Ok(())
            }
        }
    }
}

/// The vendor and the product, in every format that asks.
const VENDOR: &str = "egress";
const PRODUCT: &str = "egress-agent";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A record that cannot be written down.
#[derive(Debug)]
pub struct ExportError(serde_json::Error);

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record cannot be written as JSON: {}", self.0)
    }
}

impl std::error::Error for ExportError {}

fn json_line(event: &impl serde::Serialize, to: &mut String) -> Result<(), ExportError> {
    let line = serde_json::to_string(event).map_err(ExportError)?;
    if line.is_ascii() && !line.contains('\u{7f}') {
        to.push_str(&line);
    } else {
        to.push_str(&crate::audit::inert(&line));
    }
    to.push('\n');
    Ok(())
}

/// The sentence of a reason, for people; the name where this version does not know it.
fn sentence(reason: &str) -> &str {
    egress_common::Reason::ALL
        .iter()
        .find(|known| known.name() == reason)
        .map_or(reason, |known| known.sentence())
}

/// What happened, in a line: what a collector shows first.
pub fn summary(record: &StoredRecord) -> String {
    let mut parts: Vec<&str> = Vec::new();
    parts.push(record.verdict.as_deref().unwrap_or(&record.kind));
    let target = destination(record);
    if !target.is_empty() {
        parts.push(&target);
    }
    if let Some(reason) = &record.reason {
        parts.push(sentence(reason));
    }
    if let Some(detail) = &record.detail {
        parts.push(detail);
    }
    parts.join(": ")
}

/// `api.example.com:443/tcp`, or what there is of it.
fn destination(record: &StoredRecord) -> String {
    let mut text = match (&record.name, record.address) {
        (Some(name), _) => name.clone(),
        (None, Some(address)) => address.to_string(),
        (None, None) => return String::new(),
    };
    if let Some(port) = record.port.filter(|port| *port != 0) {
        text.push(':');
        text.push_str(&port.to_string());
    }
    if let Some(protocol) = &record.protocol {
        text.push('/');
        text.push_str(protocol);
    }
    text
}

#[cfg(test)]
mod tests;
