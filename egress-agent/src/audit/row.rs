//! Sealed records to rows of SQLite, and rows back to records.

use crate::audit::StoredRecord;
use crate::audit::chain::Hash;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::seal::{Head, Links, Sealed};
use crate::audit::subject;
use crate::audit::tree::Frontier;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row, SqliteConnection};
use std::sync::{Arc, LazyLock};

/// The columns in the order in which they are bound.
const COLUMNS: [&str; 11] = [
    "sequence",
    "time",
    "class",
    "chain",
    "body",
    "kind",
    "subject",
    "outcome",
    "reason",
    "address_key",
    "name_key",
];

/// How many rows a statement brings, and its text; most rows come by the first. More than
/// its rows cost no less per row, and each statement wakes SQLite's thread and is waited for: few records
/// come by few statements. SQLite compiles each text once per connection.
///
/// `OR FAIL`, because whoever writes rolls the whole transaction back after an error: to be able to take
/// back one statement of it, SQLite would copy every page that the statement touches to a file first.
static INSERTIONS: LazyLock<[(usize, Arc<str>); 3]> =
    LazyLock::new(|| [64, 8, 1].map(|rows| (rows, insertion(rows))));

fn insertion(rows: usize) -> Arc<str> {
    let row = format!("({})", vec!["?"; COLUMNS.len()].join(","));
    let rows = vec![row.as_str(); rows].join(",");
    format!(
        "INSERT OR FAIL INTO records ({}) VALUES {rows}",
        COLUMNS.join(",")
    )
    .into()
}

/// What a query selects, for [`read`].
pub(super) const SELECT: &str = "SELECT sequence, body FROM records";

/// Writes records in their order, inside the caller's transaction.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    links: &Links,
) -> Result<(), sqlx::Error> {
    let subjects = subject::numbers(connection, &links.subjects).await?;
    let mut rest = links.records.as_slice();
    for (rows, statement) in &*INSERTIONS {
        while let Some((records, others)) = rest.split_at_checked(*rows) {
            insert_rows(connection, statement, records, &subjects).await?;
            rest = others;
        }
    }
    Ok(())
}

async fn insert_rows(
    connection: &mut SqliteConnection,
    statement: &Arc<str>,
    records: &[Sealed],
    subjects: &[i64],
) -> Result<(), sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(records.len() * COLUMNS.len(), 0);
    for record in records {
        bind(&mut arguments, record, subjects).map_err(sqlx::Error::Encode)?;
    }
    sqlx::query_with(AssertSqlSafe(Arc::clone(statement)), arguments)
        .execute(connection)
        .await?;
    Ok(())
}

fn bind(
    arguments: &mut SqliteArguments,
    record: &Sealed,
    subjects: &[i64],
) -> Result<(), sqlx::error::BoxDynError> {
    arguments.add(record.header.sequence)?;
    arguments.add(record.header.time)?;
    arguments.add(i64::from(record.header.class))?;
    arguments.add(record.chain.0.to_vec())?;
    arguments.add(record.body.clone())?;
    arguments.add(record.kind)?;
    arguments.add(record.subject.map(|place| subjects[place]))?;
    arguments.add(record.outcome)?;
    arguments.add(record.reason)?;
    arguments.add(record.address_key.clone())?;
    arguments.add(record.name_key.clone())
}

/// Notes where the chain ends, in the transaction that wrote it.
pub(super) async fn advance(
    connection: &mut SqliteConnection,
    head: &Head,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO head (only, node, chain_id, sequence, chain, frontier, settled) \
         VALUES (1, ?, ?, ?, ?, ?, ?) ON CONFLICT (only) DO UPDATE SET sequence = excluded.sequence, \
         chain = excluded.chain, frontier = excluded.frontier, settled = excluded.settled",
    )
    .bind(&head.node)
    .bind(&head.chain_id)
    .bind(head.sequence)
    .bind(head.chain.0.to_vec())
    .bind(head.frontier.to_bytes())
    .bind(i64::try_from(head.settled).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// Where the chain ends; `None` before its beginning.
pub(super) async fn head(connection: &mut SqliteConnection) -> Result<Option<Head>, sqlx::Error> {
    let row = sqlx::query("SELECT node, chain_id, sequence, chain, frontier, settled FROM head")
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let sequence: i64 = row.try_get("sequence")?;
    let settled: i64 = row.try_get("settled")?;
    let size = u64::try_from(sequence).map_err(|error| invalid("sequence", error))?;
    let frontier: Vec<u8> = row.try_get("frontier")?;
    let chain: Vec<u8> = row.try_get("chain")?;
    Ok(Some(Head {
        node: row.try_get("node")?,
        chain_id: row.try_get("chain_id")?,
        sequence,
        chain: Hash::from_slice(&chain).ok_or_else(|| damaged("chain"))?,
        frontier: Frontier::from_bytes(size, &frontier).ok_or_else(|| damaged("frontier"))?,
        settled: u64::try_from(settled).map_err(|error| invalid("settled", error))?,
    }))
}

/// Keeps a signed checkpoint with what lets the tree grow from there.
pub(super) async fn keep_checkpoint(
    connection: &mut SqliteConnection,
    checkpoint: &Checkpoint,
    note: &str,
    frontier: &Frontier,
) -> Result<(), sqlx::Error> {
    // A key that takes over signs the same place again.
    sqlx::query(
        "INSERT OR REPLACE INTO checkpoints (size, time, note, frontier) VALUES (?, ?, ?, ?)",
    )
    .bind(i64::try_from(checkpoint.size).unwrap_or(i64::MAX))
    .bind(checkpoint.time.as_microsecond())
    .bind(note)
    .bind(frontier.to_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

/// How many records the last checkpoint speaks for.
pub(super) async fn signed(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let size: Option<i64> = sqlx::query_scalar("SELECT max(size) FROM checkpoints")
        .fetch_one(connection)
        .await?;
    Ok(size.unwrap_or(0).unsigned_abs())
}

/// Reads a row of [`SELECT`].
pub(super) fn read(row: &SqliteRow) -> Result<StoredRecord, sqlx::Error> {
    let body: &str = row.try_get("body")?;
    serde_json::from_str(body).map_err(|error| {
        let sequence: i64 = row.try_get("sequence").unwrap_or_default();
        invalid(&format!("body of record {sequence}"), error)
    })
}

pub(super) fn invalid(
    column: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(source),
    }
}

/// A column that only an alteration from outside can have made so.
pub(super) fn damaged(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: "it has another length than the writer gives it".into(),
    }
}
