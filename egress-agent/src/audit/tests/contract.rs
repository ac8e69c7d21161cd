//! What both back ends promise: the same tests, run on SQLite and on PostgreSQL.
//!
//! A node always writes its own file first, and PostgreSQL has what was shipped
//! (decision 0053); so the second back end is filled through the first, and judged
//! by what stands in it.

use super::content::full;
use super::*;
use crate::audit::{CheckpointRule, Finding, KeyFiles, PublicKey, Span, Summary, verify_postgres};
use egress_common::{Outcome, Reason};
use egress_tests::postgres::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const RECORDS: u32 = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// A back end with a node that fills it.
struct Backend {
    _directory: TempDir,
    path: PathBuf,
    /// The server, where it is the back end.
    server: Option<Postgres>,
}

impl Backend {
    fn make(kind: Kind) -> Self {
        let (directory, path) = place();
        let server = (kind == Kind::Postgres).then(|| {
            let mut server = Postgres::make(false);
            server.start();
            server
        });
        Self {
            _directory: directory,
            path,
            server,
        }
    }

    fn options(&self) -> Options {
        Options {
            node: "host-1".to_owned(),
            postgres: self.server.as_ref().map(Postgres::url),
            checkpoints: CheckpointRule {
                records: 8,
                ..CheckpointRule::default()
            },
            ..tight(1_000)
        }
    }

    /// Runs a node until all of these are in the back end.
    async fn write(&self, records: impl IntoIterator<Item = Record>) {
        self.write_with(self.options(), records).await;
    }

    async fn write_with(&self, options: Options, records: impl IntoIterator<Item = Record>) {
        let store = Store::open_with(&self.path, options)
            .await
            .expect("a store");
        for record in records {
            store.recorder().record(record);
        }
        store.recorder().flush(LONG).await.expect("written");
        self.settle(&store).await;
        store.close(LONG).await.expect("closed");
        if self.server.is_some() {
            // The checkpoint that was signed at the end is shipped by the next.
            let store = Store::open_with(&self.path, self.options())
                .await
                .expect("a store");
            self.settle(&store).await;
            store.close(LONG).await.expect("closed");
        }
    }

    /// Waits until everything that is in the file is in the back end.
    async fn settle(&self, store: &Store) {
        let Some(server) = &self.server else {
            return;
        };
        let reader = store.reader().await.expect("a reader");
        let begun = std::time::Instant::now();
        loop {
            let last = reader.last_sequence().await.expect("a place");
            let signed: i64 = sqlx::query_scalar("SELECT coalesce(max(size), 0) FROM checkpoints")
                .fetch_one(reader.pool())
                .await
                .expect("a size");
            let mut there = connect(server).await;
            let shipped: Option<i64> =
                sqlx::query_scalar("SELECT max(size) FROM audit_checkpoints")
                    .fetch_one(&mut there)
                    .await
                    .unwrap_or_default();
            if store.health().shipped == Some(last) && shipped.unwrap_or(0) >= signed {
                return;
            }
            assert!(begun.elapsed() < 2 * LONG, "{:?}", store.health());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn keys(&self) -> Vec<PublicKey> {
        KeyFiles::beside(&self.path).public().expect("keys")
    }

    async fn verify(&self) -> Result<Summary, Finding> {
        if let Some(server) = &self.server {
            let found = verify_postgres(&server.url(), "host-1", &self.keys()).await;
            let mut found = found.expect("answered");
            assert_eq!(found.len(), 1, "{found:?}");
            return found.remove(0).result;
        }
        let reader = Reader::open(&self.path).await.expect("readable");
        let verification = reader.verify(Span::default(), &self.keys(), &[]).await;
        reader.close().await;
        verification.expect("answered").result
    }

    /// Does something to the back end; `TABLE` stands for the table of records.
    async fn alter(&self, statements: &[&str]) {
        let table = if self.server.is_some() {
            "audit_records"
        } else {
            "records"
        };
        for statement in statements {
            let statement = AssertSqlSafe(statement.replace("TABLE", table));
            let altered = match &self.server {
                None => {
                    let mut stranger = stranger(&self.path).await;
                    let done = sqlx::query(statement).execute(&mut stranger).await;
                    done.expect("altered").rows_affected()
                }
                Some(server) => {
                    let mut connection = connect(server).await;
                    let done = sqlx::query(statement).execute(&mut connection).await;
                    done.expect("altered").rows_affected()
                }
            };
            assert!(altered > 0, "nothing was altered");
        }
    }

    /// Every record that is there, in the order of the chain.
    async fn records(&self) -> Vec<StoredRecord> {
        let bodies: Vec<String> = match &self.server {
            None => {
                let mut stranger = stranger(&self.path).await;
                sqlx::query_scalar("SELECT body FROM records ORDER BY sequence")
                    .fetch_all(&mut stranger)
                    .await
                    .expect("bodies")
            }
            Some(server) => {
                let mut connection = connect(server).await;
                sqlx::query_scalar("SELECT body FROM audit_records ORDER BY sequence")
                    .fetch_all(&mut connection)
                    .await
                    .expect("bodies")
            }
        };
        let read = |body: &String| serde_json::from_str(body).expect("a record");
        bodies.iter().map(read).collect()
    }
}

async fn connect(server: &Postgres) -> PgConnection {
    PgConnection::connect(&server.url())
        .await
        .expect("it answers")
}

/// The `n`th record, with something in every column.
fn record(n: u32) -> Record {
    Record {
        sandbox: Some(format!("build-{}", n % 3)),
        name: Some(format!("host{n}.example.com")),
        address: "203.0.113.7".parse().ok(),
        outcome: Some(Outcome::Denied),
        reason: Some(Reason::NoRule),
        ..numbered(n)
    }
}

fn some() -> impl Iterator<Item = Record> {
    (1..=RECORDS).map(record)
}

async fn what_is_recorded_is_there_once_and_in_order(kind: Kind) {
    let backend = Backend::make(kind);
    backend.write(some()).await;
    backend.write([full(), record(RECORDS + 2)]).await;
    let records = backend.records().await;
    let sequences: Vec<i64> = records.iter().map(|record| record.sequence).collect();
    let expected: Vec<i64> = (1..=i64::from(RECORDS) + 2).collect();
    assert_eq!(sequences, expected);
    let processes: Vec<_> = records.iter().map(|record| record.process).collect();
    assert_eq!(processes[..3], [Some(1), Some(2), Some(3)]);
    let kept = &records[RECORDS as usize];
    let told = full();
    assert_eq!(kept.command, told.command);
    assert_eq!(kept.detail, told.detail);
    assert_eq!(kept.address, told.address);
    assert_eq!(kept.usage.as_ref(), told.usage.as_deref());
    assert_eq!(kept.time.as_microsecond(), told.time.as_microsecond());
}

async fn a_chain_is_verified_over_its_checkpoints(kind: Kind) {
    let backend = Backend::make(kind);
    backend.write(some()).await;
    backend.write([full()]).await;
    let summary = backend.verify().await.expect("good");
    assert_eq!(summary.records, u64::from(RECORDS) + 1);
    assert_eq!(summary.signed, i64::from(RECORDS) + 1, "{summary:?}");
    assert!(summary.checkpoints >= 5, "{summary:?}");
}

async fn every_alteration_is_found_at_its_place(kind: Kind) {
    let backend = Backend::make(kind);
    backend.write(some()).await;
    backend.verify().await.expect("good");
    let (other_sandbox, own_sandbox) = match kind {
        Kind::Sqlite => (
            "UPDATE TABLE SET subject = (SELECT subject FROM TABLE WHERE sequence = 6) WHERE sequence = 5",
            "UPDATE TABLE SET subject = (SELECT subject FROM TABLE WHERE sequence = 8) WHERE sequence = 5",
        ),
        Kind::Postgres => (
            "UPDATE TABLE SET sandbox = 'other' WHERE sequence = 5",
            "UPDATE TABLE SET sandbox = 'build-2' WHERE sequence = 5",
        ),
    };
    // Each is undone before the next.
    for (alter, undo, named) in [
        (
            vec![
                "UPDATE TABLE SET body = replace(body, 'connect', 'sendmsg') || ' ' WHERE sequence = 5",
            ],
            vec!["UPDATE TABLE SET body = rtrim(body) WHERE sequence = 5"],
            "record 5 is not what was written there",
        ),
        (
            vec![other_sandbox],
            vec![own_sandbox],
            "the column `sandbox` of record 5",
        ),
        (
            vec!["UPDATE TABLE SET name_key = 'com.example.other' WHERE sequence = 5"],
            vec!["UPDATE TABLE SET name_key = 'com.example.host5' WHERE sequence = 5"],
            "the column `name_key` of record 5",
        ),
        (
            vec!["UPDATE TABLE SET class = 1 WHERE sequence = 5"],
            vec!["UPDATE TABLE SET class = 2 WHERE sequence = 5"],
            "record 5 is not what was written there",
        ),
        (
            vec!["UPDATE TABLE SET sequence = 1000 WHERE sequence = 7"],
            vec!["UPDATE TABLE SET sequence = 7 WHERE sequence = 1000"],
            "records 7 to 7 are missing",
        ),
        (
            vec![
                "UPDATE TABLE SET sequence = 1000 WHERE sequence = 7",
                "UPDATE TABLE SET sequence = 7 WHERE sequence = 8",
                "UPDATE TABLE SET sequence = 8 WHERE sequence = 1000",
            ],
            vec![
                "UPDATE TABLE SET sequence = 1000 WHERE sequence = 7",
                "UPDATE TABLE SET sequence = 7 WHERE sequence = 8",
                "UPDATE TABLE SET sequence = 8 WHERE sequence = 1000",
            ],
            "record 8 stands where record 7 belongs",
        ),
    ] {
        backend.alter(&alter).await;
        let finding = backend.verify().await.expect_err(named).to_string();
        assert!(finding.contains(named), "{alter:?}: {finding}");
        backend.alter(&undo).await;
        backend.verify().await.expect("good again");
    }
    backend
        .alter(&["DELETE FROM TABLE WHERE sequence > 35"])
        .await;
    let finding = backend.verify().await.expect_err("cut off");
    assert!(
        matches!(
            finding,
            Finding::Truncated {
                first: 36,
                last: 40,
                ..
            }
        ),
        "{finding:?}"
    );
}

async fn what_retention_took_leaves_the_chain_whole(kind: Kind) {
    let backend = Backend::make(kind);
    backend.write(some()).await;
    let mut retention = Retention::default();
    for class in Class::ALL {
        retention.set(
            class,
            (class == Class::Denied).then_some(SignedDuration::from_hours(1)),
        );
    }
    let options = Options {
        retention,
        ..backend.options()
    };
    // The announcement of the node is a record, and holds for both.
    let store = Store::open_with(&backend.path, options)
        .await
        .expect("a store");
    let reader = store.reader().await.expect("a reader");
    let begun = std::time::Instant::now();
    loop {
        let erased: i64 = sqlx::query_scalar("SELECT count(*) FROM erased")
            .fetch_one(reader.pool())
            .await
            .expect("a count");
        if erased == i64::from(RECORDS) {
            break;
        }
        assert!(begun.elapsed() < 2 * LONG, "{erased} were taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    backend.settle(&store).await;
    store.close(LONG).await.expect("closed");
    if kind == Kind::Postgres {
        // What the server's own retention does, in its own words.
        let taken = "UPDATE TABLE SET digest = sha256(convert_to(body, 'UTF8')), body = NULL, \
                     sandbox = NULL, name_key = NULL, address = NULL WHERE outcome = 'deny'";
        backend.alter(&[taken]).await;
    }
    let summary = backend.verify().await.expect("explained");
    assert_eq!(summary.erased, u64::from(RECORDS), "{summary:?}");
    let forged = match kind {
        Kind::Sqlite => "UPDATE erased SET digest = zeroblob(32) WHERE sequence = 9",
        Kind::Postgres => {
            "UPDATE TABLE SET digest = decode(repeat('00', 32), 'hex') WHERE sequence = 9"
        }
    };
    backend.alter(&[forged]).await;
    let finding = backend.verify().await.expect_err("forged");
    assert_eq!(finding, Finding::Altered { sequence: 9 });
}

/// Runs each of these on both back ends.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            use super::Kind;
            $(#[tokio::test] async fn $test() { super::$test(Kind::Sqlite).await; })+
        }
        mod postgres {
            use super::Kind;
            $(#[tokio::test] async fn $test() { super::$test(Kind::Postgres).await; })+
        }
    };
}

on_both!(
    what_is_recorded_is_there_once_and_in_order,
    a_chain_is_verified_over_its_checkpoints,
    every_alteration_is_found_at_its_place,
    what_retention_took_leaves_the_chain_whole,
);
