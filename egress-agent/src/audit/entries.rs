//! Links of the chain out of SQLite, many at a time.
//!
//! Each row of an answer, and each value of it, is handed from SQLite's thread to the one that asks, which costs
//! more than to look at a link. So SQLite puts those of a part together in one row: what
//! stands beside the bodies as a JSON text, and the bodies one behind the other.

use crate::audit::chain::{self, Hash, Header};
use crate::audit::open;
use crate::audit::row::invalid;
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
    /// Places of a part.
    places: i64,
}

/// Links as SQLite put them together.
#[derive(Debug)]
pub(super) struct Part {
    row: SqliteRow,
    first: i64,
    last: i64,
}

impl Entries {
    /// From one place to another, both included.
    pub const fn between(first: i64, last: i64) -> Self {
        Self {
            at: Some(first),
            last,
            places: PLACES,
        }
    }

    /// The next part that has links; `None` at the end.
    pub async fn next(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Part>, sqlx::Error> {
        while let Some(at) = self.at.filter(|at| *at <= self.last) {
            let end = at.saturating_add(self.places - 1).min(self.last);
            let found = sqlx::query(PART)
                .bind(at)
                .bind(end)
                .fetch_one(&mut *connection)
                .await;
            let row = match found {
                // Somebody put bodies there that SQLite cannot hold together.
                Err(error) if self.places > 1 && open::is_too_big(&error) => {
                    self.places /= 2;
                    continue;
                }
                found => found?,
            };
            self.at = end.checked_add(1);
            if row.try_get::<i64, _>("links")? > 0 {
                let (first, last) = (at, end);
                return Ok(Some(Part { row, first, last }));
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

    /// The links of a part that cannot be read together, one by one.
    pub async fn one_by_one(
        part: &Part,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<Entry>, sqlx::Error> {
        let mut entries = Vec::new();
        let mut places = Self {
            places: 1,
            ..Self::between(part.first, part.last)
        };
        while let Some(place) = places.next(connection).await? {
            let found = place.entries();
            entries.extend(found.unwrap_or_else(|_| vec![Entry::unreadable(place.first)]));
        }
        Ok(entries)
    }
}

impl Part {
    /// The links, in the order of their places.
    ///
    /// # Errors
    ///
    /// What stands beside the bodies is nothing that can be read: somebody altered it, in one of
    /// them ([`Entries::one_by_one`]).
    pub fn entries(&self) -> Result<Vec<Entry>, sqlx::Error> {
        let beside: &[u8] = self.row.try_get_unchecked("beside")?;
        let beside: Vec<Beside<'_>> = serde_json::from_slice(beside)
            .map_err(|error| invalid(&format!("columns from record {}", self.first), error))?;
        let bodies: Option<&[u8]> = self.row.try_get_unchecked("bodies")?;
        let mut bodies = bodies.unwrap_or_default();
        let entry = |link: Beside<'_>| {
            let body = link.length.map(|length| {
                let (body, rest) = bodies.split_at_checked(length).unwrap_or_default();
                bodies = rest;
                body
            });
            let sequence = link.sequence;
            entry(link, body).unwrap_or_else(|| Entry::unreadable(sequence))
        };
        Ok(beside.into_iter().map(entry).collect())
    }
}

/// A link; `None` if it has something that no link has.
fn entry(beside: Beside<'_>, body: Option<&[u8]>) -> Option<Entry> {
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
            let body = str::from_utf8(body).ok()?;
            (Content::Body(body.to_owned()), Some(columns))
        }
        None => (Content::Erased(Hash::parse(beside.digest?)?), None),
    };
    Some(Entry {
        header: Header {
            sequence: beside.sequence,
            time: beside.time,
            class: u8::try_from(beside.class).ok()?,
        },
        // A hash of another length is none that the walk can come to.
        chain: Hash::parse(beside.chain).unwrap_or(Hash([0; 32])),
        content,
        columns,
    })
}
