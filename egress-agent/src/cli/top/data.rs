//! What the picture shows.

use crate::api::Client;
use crate::audit::{GroupField, Query, Reader, StoredRecord, to_terminal};
use crate::cli::audit::cannot_be_read;
use crate::cli::exit::Problem;
use egress_common::{Outcome, Reason};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Denials that are shown.
const DENIALS: u32 = 20;

/// Where it comes from.
pub struct Source {
    client: Client,
    reader: Option<(PathBuf, Reader)>,
    /// CPU time in microseconds by sandbox, at the last look.
    used: BTreeMap<String, (u64, Instant)>,
}

/// One look.
#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    /// When, UTC.
    pub time: Timestamp,
    /// As `status` has it.
    pub state: String,
    /// Decisions of the last minute that allowed.
    pub allowed: u64,
    /// Decisions of the last minute that refused, or would have.
    pub denied: u64,
    /// Records that wait to be written.
    pub audit_queued: u64,
    /// Records that were lost since the agent began.
    pub audit_lost: u64,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// The sandboxes, those with the most denials first.
    pub sandboxes: Vec<Row>,
    /// The newest denials.
    pub denials: Vec<Denial>,
}

/// One sandbox.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// `enforce`, `shadow` or `denied`.
    pub mode: String,
    /// Decisions of the last minute that allowed.
    pub allowed: u64,
    /// Decisions of the last minute that refused, or would have.
    pub denied: u64,
    /// Processes in it.
    pub processes: usize,
    /// Bytes of memory, where the kernel counts them.
    pub memory: Option<u64>,
    /// Hundredths of one CPU since the last look, where the kernel counts them.
    pub cpu: Option<u64>,
}

/// One refusal.
#[derive(Clone, Debug, Serialize)]
pub struct Denial {
    /// When.
    pub time: Timestamp,
    /// Whom.
    pub sandbox: String,
    /// Where to.
    pub destination: String,
    /// How many alike.
    pub count: u64,
    /// `deny` or `would_deny`.
    pub verdict: String,
    /// Why, in words.
    pub why: String,
    /// The policy line that would allow it, where one would.
    pub line: Option<String>,
}

impl Source {
    pub fn new(socket: &Path) -> Self {
        Self {
            client: Client::new(socket),
            reader: None,
            used: BTreeMap::new(),
        }
    }

    pub async fn look(&mut self) -> Result<Picture, Problem> {
        let status = self.client.status().await?;
        let sandboxes = self.client.sandboxes().await?;
        let now = Timestamp::now();
        let reader = self.reader(&status.audit_file).await?;
        let minute = Query {
            since: now.checked_sub(SignedDuration::from_mins(1)).ok(),
            ..Query::default()
        };
        let groups = reader
            .groups(&minute, &[GroupField::Sandbox, GroupField::Verdict])
            .await
            .map_err(cannot_be_read)?;
        let mut rates: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let (mut allowed, mut denied) = (0, 0);
        for group in groups {
            let [sandbox, verdict] = group.values.as_slice() else {
                continue;
            };
            let rate = rates
                .entry(sandbox.clone().unwrap_or_default())
                .or_default();
            match verdict.as_deref() {
                Some("allow") => {
                    rate.0 += group.count;
                    allowed += group.count;
                }
                Some(_) => {
                    rate.1 += group.count;
                    denied += group.count;
                }
                None => {}
            }
        }
        let mut denials = Vec::new();
        for verdict in [Outcome::Denied, Outcome::WouldDeny] {
            let newest = Query {
                verdict: Some(verdict),
                limit: Some(DENIALS),
                ..Query::default()
            };
            let records = reader.query(&newest).await.map_err(cannot_be_read)?;
            denials.extend(records.iter().map(denial));
        }
        denials.sort_by_key(|denial: &Denial| std::cmp::Reverse(denial.time));
        denials.truncate(DENIALS as usize);
        let mut rows: Vec<Row> = sandboxes
            .into_iter()
            .map(|sandbox| {
                let (allowed, denied) = rates.get(&sandbox.name).copied().unwrap_or_default();
                let directory = status.root.join(&sandbox.name);
                Row {
                    memory: number(&directory.join("memory.current")),
                    cpu: self.cpu(&sandbox.name, &directory),
                    name: sandbox.name,
                    mode: sandbox.mode,
                    allowed,
                    denied,
                    processes: sandbox.processes,
                }
            })
            .collect();
        rows.sort_by(|a, b| {
            b.denied
                .cmp(&a.denied)
                .then(b.allowed.cmp(&a.allowed))
                .then_with(|| a.name.cmp(&b.name))
        });
        self.used
            .retain(|name, _| rows.iter().any(|row| row.name == *name));
        Ok(Picture {
            time: now,
            state: status.state,
            allowed,
            denied,
            audit_queued: status.audit_queued,
            audit_lost: status.audit_lost,
            warnings: status.warnings,
            sandboxes: rows,
            denials,
        })
    }

    async fn reader(&mut self, file: &Path) -> Result<Reader, Problem> {
        match &self.reader {
            Some((known, reader)) if known == file => Ok(reader.clone()),
            _ => {
                let reader = Reader::open(file).await.map_err(cannot_be_read)?;
                self.reader = Some((file.to_owned(), reader.clone()));
                Ok(reader)
            }
        }
    }

    fn cpu(&mut self, name: &str, directory: &Path) -> Option<u64> {
        let text = std::fs::read_to_string(directory.join("cpu.stat")).ok()?;
        let used: u64 = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))?
            .parse()
            .ok()?;
        let now = Instant::now();
        let (before, then) = self.used.insert(name.to_owned(), (used, now))?;
        let passed = u64::try_from(now.duration_since(then).as_micros())
            .ok()?
            .max(1);
        Some(used.saturating_sub(before) * 100 / passed)
    }
}

impl Picture {
    /// Says that nobody answers, and keeps the rest as it was.
    pub fn set_unreachable(&mut self) {
        "no agent answers; enforcement stays as it is".clone_into(&mut self.state);
    }
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn denial(record: &StoredRecord) -> Denial {
    let place = match (record.address, record.port) {
        (Some(address), Some(port)) if port != 0 => {
            Some(SocketAddr::new(address, port).to_string())
        }
        (Some(address), _) => Some(address.to_string()),
        (None, _) => None,
    };
    let destination = match (&record.name, place, &record.hook) {
        (Some(name), Some(_), _) => match record.port {
            Some(port) => format!("{name}:{port}"),
            None => name.clone(),
        },
        (Some(name), None, _) => name.clone(),
        (None, Some(place), _) => place,
        (None, None, hook) => hook.clone().unwrap_or_else(|| record.kind.clone()),
    };
    let reason = record.reason.as_deref();
    let known = Reason::ALL
        .iter()
        .find(|known| Some(known.name()) == reason);
    Denial {
        time: record.time,
        sandbox: record
            .sandbox
            .as_deref()
            .map_or("-".to_owned(), to_terminal),
        destination: to_terminal(&destination),
        count: record.count,
        verdict: record.verdict.clone().unwrap_or_default(),
        why: known
            .map_or(reason.unwrap_or("-"), |known| known.sentence())
            .to_owned(),
        line: record.detail.as_deref().and_then(line),
    }
}

/// The rule in a hint: `- { ... }`.
fn line(detail: &str) -> Option<String> {
    let begin = detail.find("- { ")?;
    let length = detail[begin..].find('}')?;
    Some(to_terminal(&detail[begin..=begin + length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_would_allow_it_is_found_in_the_hint() {
        assert_eq!(
            line("to allow it, add to the allowlist in /p.yaml: - { domain: \"a.b\", ports: [443], protocols: [https] } (and so on)").as_deref(),
            Some("- { domain: \"a.b\", ports: [443], protocols: [https] }")
        );
        assert_eq!(line("socket family 17, type 3, protocol 3"), None);
        assert_eq!(line("- { never closed"), None);
    }
}
