//! Links of the chain out of SQLite, many at a time.
//!
//! Each row of an answer, and each value of it, is handed from SQLite's thread to the one that asks, which costs
//! more than to look at a link. So SQLite puts those of a part together in one row: what
//! stands beside the bodies as a JSON text, and the bodies one behind the other.

use crate::audit::chain::{self, Hash, Header};
use crate::audit::row::{damaged, invalid};
use crate::audit::verify::{AddressColumn, Columns, Content, Entry};
use serde::Deserialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

/// Places of a part.
const PLACES: i64 = 512;

/// A part, whether records are erased or not. A place may be there twice, if somebody altered the file.
const PART: &str = "SELECT count(*) AS links, json_group_array(json_array(sequence, time, class, \
    hex(chain), octet_length(body), iif(digest IS NULL, NULL, hex(digest)), kind, sandbox, task, project, outcome, \
    reason, iif(address_key IS NULL, NULL, hex(address_key)), name_key)) AS beside, \
    group_concat(body, '') AS bodies FROM (\
    SELECT records.sequence, time, class, chain, body, NULL AS digest, kind, sandbox, task, project, outcome, reason, \
    address_key, name_key FROM records LEFT JOIN subjects ON subjects.id = records.subject \
    WHERE records.sequence BETWEEN ?1 AND ?2 \
    UNION ALL SELECT sequence, time, class, chain, NULL, digest, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
    FROM erased WHERE sequence BETWEEN ?1 AND ?2 ORDER BY sequence)";

/// The first place from one on.
const NEXT: &str = "SELECT min(sequence) FROM (\
    SELECT min(sequence) AS sequence FROM records WHERE sequence >= ?1 \
    UNION ALL SELECT min(sequence) FROM erased WHERE sequence >= ?1)";

/// What stands beside a body, in the order of [`PART`].
#[derive(Deserialize)]
struct Beside<'a> {
    sequence: i64,
    time: i64,
    class: i64,
    chain: &'a str,
    /// Bytes of the body; none where retention took it.
    length: Option<usize>,
    digest: Option<&'a str>,
    kind: Option<String>,
    sandbox: Option<String>,
    task: Option<String>,
    project: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    address_key: Option<&'a str>,
    name_key: Option<String>,
}

/// Reads the links of a span in their order.
#[derive(Debug)]
pub(super) struct Entries {
    /// The first place that was not read; `None` at the end.
    at: Option<i64>,
    last: i64,
}

/// Links as SQLite put them together.
#[derive(Debug)]
pub(super) struct Part(SqliteRow);

impl Entries {
    /// From one place to another, both included.
    pub const fn between(first: i64, last: i64) -> Self {
        Self {
            at: Some(first),
            last,
        }
    }

    /// The next part that has links; `None` at the end.
    pub async fn next(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Part>, sqlx::Error> {
        while let Some(at) = self.at.filter(|at| *at <= self.last) {
            let end = at.saturating_add(PLACES - 1).min(self.last);
            let row = sqlx::query(PART)
                .bind(at)
                .bind(end)
                .fetch_one(&mut *connection)
                .await?;
            self.at = end.checked_add(1);
            if row.try_get::<i64, _>("links")? > 0 {
                return Ok(Some(Part(row)));
            }
            // Whoever alters the file can leave a gap of any length.
            self.at = match self.at {
                Some(at) => {
                    sqlx::query_scalar(NEXT)
                        .bind(at)
                        .fetch_one(&mut *connection)
                        .await?
                }
                None => None,
            };
        }
        Ok(None)
    }
}

impl Part {
    /// The links, in the order of their places.
    pub fn entries(&self) -> Result<Vec<Entry>, sqlx::Error> {
        // Text that is none is an alteration, and found as one: what takes its
        // place is not what was written.
        let beside: &[u8] = self.0.try_get_unchecked("beside")?;
        let beside = String::from_utf8_lossy(beside);
        let beside: Vec<Beside<'_>> =
            serde_json::from_str(&beside).map_err(|error| invalid("columns of records", error))?;
        let bodies: Option<&[u8]> = self.0.try_get_unchecked("bodies")?;
        let mut bodies = bodies.unwrap_or_default();
        let mut entries = Vec::with_capacity(beside.len());
        for link in beside {
            let body = match link.length {
                Some(length) => {
                    let (body, rest) = bodies
                        .split_at_checked(length)
                        .ok_or_else(|| damaged("body"))?;
                    bodies = rest;
                    Some(String::from_utf8_lossy(body).into_owned())
                }
                None => None,
            };
            entries.push(entry(link, body)?);
        }
        Ok(entries)
    }
}

fn entry(beside: Beside<'_>, body: Option<String>) -> Result<Entry, sqlx::Error> {
    let (content, columns) = match body {
        Some(body) => {
            let columns = Columns {
                kind: beside.kind,
                sandbox: beside.sandbox,
                task: beside.task,
                project: beside.project,
                outcome: beside.outcome,
                reason: beside.reason,
                address: AddressColumn::Key(beside.address_key.and_then(chain::bytes)),
                name_key: beside.name_key,
            };
            (Content::Body(body), Some(columns))
        }
        None => {
            let digest = beside.digest.and_then(Hash::parse);
            let digest = digest.ok_or_else(|| damaged("digest"))?;
            (Content::Erased(digest), None)
        }
    };
    let class = u8::try_from(beside.class)
        .map_err(|error| invalid(&format!("class of record {}", beside.sequence), error))?;
    Ok(Entry {
        header: Header {
            sequence: beside.sequence,
            time: beside.time,
            class,
        },
        // A hash of another length is none that the walk can come to.
        chain: Hash::parse(beside.chain).unwrap_or(Hash([0; 32])),
        content,
        columns,
    })
}
