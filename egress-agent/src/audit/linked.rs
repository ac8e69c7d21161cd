//! Records with their place in the chain: an export that proves itself.

use crate::audit::chain::{self, Hash};
use crate::audit::exported::ChainFields;
use crate::audit::row::{damaged, invalid};
use crate::audit::stream::Part;
use crate::audit::{API_VERSION, AuditError, Query, Reader, StoredRecord, inert, open};
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::sync::Arc;

/// A record, and what links it to the one before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linked {
    /// The record.
    pub record: StoredRecord,
    place: Place,
    /// Absent for the first of a chain.
    previous: Option<Hash>,
    hash: Hash,
}

/// What a leaf says beside its digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    sequence: i64,
    time: i64,
    class: u8,
}

/// What is the same in all lines of one export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainOrigin {
    id: Arc<str>,
    genesis: Hash,
}

/// The hash before a record is that of the one before, be it kept or erased.
const PREVIOUS: &str = "coalesce(\
    (SELECT earlier.chain FROM records AS earlier WHERE earlier.sequence = records.sequence - 1), \
    (SELECT earlier.chain FROM erased AS earlier WHERE earlier.sequence = records.sequence - 1)) \
    AS previous";

impl Part for Linked {
    fn select() -> String {
        format!("SELECT sequence, time, class, chain, body, {PREVIOUS} FROM records")
    }

    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let class: i64 = row.try_get("class")?;
        let hash: &[u8] = row.try_get("chain")?;
        let previous: Option<&[u8]> = row.try_get("previous")?;
        Ok(Self {
            record: crate::audit::row::read(row)?,
            place: Place {
                sequence: row.try_get("sequence")?,
                time: row.try_get("time")?,
                class: u8::try_from(class).map_err(|error| invalid("class", error))?,
            },
            previous: previous
                .map(|bytes| Hash::from_slice(bytes).ok_or_else(|| damaged("chain")))
                .transpose()?,
            hash: Hash::from_slice(hash).ok_or_else(|| damaged("chain"))?,
        })
    }

    fn place(&self) -> (i64, i64) {
        (self.place.time, self.place.sequence)
    }
}

impl Place {
    fn fields(self, origin: &ChainOrigin, previous: Option<Hash>, hash: Hash) -> ChainFields {
        ChainFields {
            id: origin.id.to_string(),
            sequence: self.sequence,
            time: self.time,
            class: self.class,
            previous: previous.unwrap_or(origin.genesis).to_string(),
            hash: hash.to_string(),
            digest: None,
            path: None,
            checkpoint: None,
        }
    }
}

impl Linked {
    /// Adds the record as a line of JSON, with a member `chain` beside its own.
    pub fn write_line(
        &self,
        origin: &ChainOrigin,
        to: &mut String,
    ) -> Result<(), serde_json::Error> {
        let fields = self.place.fields(origin, self.previous, self.hash);
        write(&fields.line(&serde_json::to_string(&self.record)?)?, to);
        Ok(())
    }
}

/// Most lines are plain, and an export has millions of them.
fn write(line: &str, to: &mut String) {
    if line.is_ascii() && !line.contains('\u{7f}') {
        to.push_str(line);
    } else {
        to.push_str(&inert(line));
    }
    to.push('\n');
}

/// A record whose body retention took.
#[derive(Serialize)]
struct ErasedLine {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    chain: ChainFields,
    kind: &'static str,
}

#[derive(Serialize)]
struct CheckpointLine<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    checkpoint: &'a str,
    kind: &'static str,
}

impl Reader {
    /// The chain that this file holds.
    pub async fn chain_origin(&self) -> Result<ChainOrigin, AuditError> {
        let (node, id): (String, String) = sqlx::query_as("SELECT node, chain_id FROM head")
            .fetch_one(self.pool())
            .await
            .map_err(|source| open::database(self.path(), source))?;
        Ok(ChainOrigin {
            genesis: chain::genesis(&node, &id),
            id: id.into(),
        })
    }

    /// What proves an export beside its records, as lines: records that retention
    /// took, if the query asks for nothing but a time, and the signed checkpoints
    /// over places from `first` to `last`.
    pub async fn proof_lines(
        &self,
        query: &Query,
        origin: &ChainOrigin,
        first: i64,
        last: i64,
    ) -> Result<String, AuditError> {
        let mut lines = String::new();
        let found = self.write_proof(query, origin, first, last, &mut lines);
        found
            .await
            .map_err(|source| open::database(self.path(), source))?;
        Ok(lines)
    }

    async fn write_proof(
        &self,
        query: &Query,
        origin: &ChainOrigin,
        first: i64,
        last: i64,
        to: &mut String,
    ) -> Result<(), sqlx::Error> {
        if query.is_of_time_only() {
            let statement = "SELECT sequence, time, class, chain, digest, coalesce(\
                (SELECT earlier.chain FROM records AS earlier WHERE earlier.sequence = erased.sequence - 1), \
                (SELECT earlier.chain FROM erased AS earlier WHERE earlier.sequence = erased.sequence - 1)) \
                AS previous FROM erased WHERE sequence BETWEEN ? AND ? ORDER BY sequence";
            let rows = sqlx::query(statement)
                .bind(first)
                .bind(last)
                .fetch_all(self.pool())
                .await?;
            for row in &rows {
                write(&erased_line(row, origin)?, to);
            }
        }
        let notes: Vec<String> = sqlx::query_scalar(
            "SELECT note FROM checkpoints WHERE size BETWEEN ? AND ? ORDER BY size",
        )
        .bind(first)
        .bind(last)
        .fetch_all(self.pool())
        .await?;
        for note in &notes {
            let line = CheckpointLine {
                api_version: API_VERSION,
                checkpoint: note,
                kind: "checkpoint",
            };
            write(&json(&line)?, to);
        }
        Ok(())
    }
}

fn erased_line(row: &SqliteRow, origin: &ChainOrigin) -> Result<String, sqlx::Error> {
    let hash = |column: &'static str| {
        row.try_get::<Option<&[u8]>, _>(column)?
            .map(|bytes| Hash::from_slice(bytes).ok_or_else(|| damaged(column)))
            .transpose()
    };
    let class: i64 = row.try_get("class")?;
    let place = Place {
        sequence: row.try_get("sequence")?,
        time: row.try_get("time")?,
        class: u8::try_from(class).map_err(|error| invalid("class", error))?,
    };
    let own = hash("chain")?.ok_or_else(|| damaged("chain"))?;
    let mut chain = place.fields(origin, hash("previous")?, own);
    chain.digest = hash("digest")?.map(|digest| digest.to_string());
    json(&ErasedLine {
        api_version: API_VERSION,
        chain,
        kind: "erased",
    })
}

fn json(line: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(line).map_err(|error| sqlx::Error::Decode(error.into()))
}
