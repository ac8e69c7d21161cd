//! The store on real files.

mod asking;
mod content;
mod contract;
mod damage;
mod evidence;
mod failure;
mod opening;
mod parts;
mod postgres;
mod subjects;

pub(super) use content::full;

use crate::audit::{
    AuditError, Class, Options, Order, Query, Reader, Retention, Store, StoredRecord,
};
use crate::model::{Record, RecordKind};
use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Far more than any of these needs, so that only a hang reaches it.
const LONG: Duration = Duration::from_secs(30);

/// A directory of its own, and the path of a store in it.
fn place() -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("state").join("audit.db");
    (directory, path)
}

/// The records of these tests are from 1970: they must not be taken for old.
fn lasting() -> Options {
    let mut retention = Retention::default();
    for class in Class::ALL {
        retention.set(class, None);
    }
    Options {
        retention,
        ..Options::default()
    }
}

async fn open(path: &Path) -> Result<Store, AuditError> {
    Store::open_with(path, lasting()).await
}

/// Bounds small enough to be reached.
fn tight(queue: usize) -> Options {
    Options {
        queue,
        batch: 8,
        linger: Duration::from_millis(1),
        busy_timeout: Duration::from_millis(20),
        ..lasting()
    }
}

/// The `n`th record: a second after the one before, and told apart by its process.
fn numbered(n: u32) -> Record {
    Record {
        process: Some(n),
        ..Record::new(
            Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::from(n)),
            RecordKind::Flow,
        )
    }
}

async fn all(path: &Path) -> Vec<StoredRecord> {
    let reader = Reader::open(path).await.expect("a readable store");
    let query = Query {
        order: Order::OldestFirst,
        ..Query::default()
    };
    let records = reader.query(&query).await.expect("records");
    reader.close().await;
    records
}

/// What was recorded, and what was told to be lost.
fn kept_and_lost(records: &[StoredRecord]) -> (u64, u64) {
    let sum = |lost: bool| {
        records
            .iter()
            .filter(|record| (record.kind == "loss") == lost)
            .map(|record| record.count)
            .sum()
    };
    (sum(false), sum(true))
}

/// A connection of somebody else's to the same file.
async fn stranger(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .connect()
        .await
        .expect("a connection")
}

async fn refusal(path: &Path) -> AuditError {
    open(path).await.expect_err("a refusal")
}

/// What somebody does to the file while no agent has it.
async fn alter(path: &Path, statements: &[&str]) {
    let mut stranger = stranger(path).await;
    for statement in statements {
        sqlx::query(AssertSqlSafe((*statement).to_owned()))
            .execute(&mut stranger)
            .await
            .expect("altered");
    }
    stranger.close().await.expect("closed");
}
