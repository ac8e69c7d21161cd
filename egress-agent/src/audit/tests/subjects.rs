//! Whose records they are: kept once, asked for by any of the names, and forgotten
//! with the last record.

use super::*;
use crate::audit::{Finding, KeyFiles, Span, Summary};
use crate::model::Attribution;
use egress_common::Outcome;
use sqlx::Connection;
use sqlx::migrate::Migrator;
use std::sync::Arc;

const RECORDS: u32 = 60;

/// The `n`th record: of five sandboxes, ten tasks, two projects, and each sixth of nobody.
fn owned(n: u32) -> Record {
    if n.is_multiple_of(6) {
        return numbered(n);
    }
    Record {
        sandbox: Some(format!("build-{}", n % 5)),
        attribution: Some(Arc::new(Attribution {
            task: Some(format!("T-{}", n % 10)),
            project: Some(["whale", "squid"][n as usize % 2].to_owned()),
            ..Attribution::default()
        })),
        outcome: Some(if n.is_multiple_of(3) {
            Outcome::Denied
        } else {
            Outcome::Allowed
        }),
        ..numbered(n)
    }
}

/// Writes records `from` to `to`, some in each transaction.
async fn write(path: &Path, from: u32, to: u32) {
    let store = Store::open_with(path, tight(1_000)).await.expect("a store");
    for n in from..=to {
        store.recorder().record(owned(n));
    }
    store.close(LONG).await.expect("closed");
}

async fn count(path: &Path, statement: &'static str) -> i64 {
    let mut connection = stranger(path).await;
    let found = sqlx::query_scalar(statement)
        .fetch_one(&mut connection)
        .await
        .expect("a count");
    connection.close().await.expect("closed");
    found
}

async fn verified(path: &Path) -> Result<Summary, Finding> {
    let keys = KeyFiles::beside(path).public().expect("keys");
    let reader = Reader::open(path).await.expect("readable");
    let verification = reader.verify(Span::default(), &keys, &[]).await;
    reader.close().await;
    verification.expect("answered").result
}

/// The numbers of the records that are found.
async fn asked(reader: &Reader, query: &Query) -> Vec<u32> {
    let records = reader.query(query).await.expect("records");
    records.iter().filter_map(|record| record.process).collect()
}

/// Whether the `n`th record is meant, of those that are somebody's.
type Meant = fn(u32) -> bool;

/// Every question about whose records they are is answered as the records themselves say.
async fn each_name_finds_its_own(path: &Path) {
    let reader = Reader::open(path).await.expect("readable");
    let text = |text: &str| Some(text.to_owned());
    let of = |sandbox, task, project| Query {
        sandbox,
        task,
        project,
        ..Query::default()
    };
    let is_of = |n: &u32| !n.is_multiple_of(6);
    let cases: [(Query, Meant); 9] = [
        (of(text("build-2"), None, None), |n| n % 5 == 2),
        (of(text("build-*"), None, None), |_| true),
        (of(text("build"), None, None), |_| false),
        (of(None, text("T-7"), None), |n| n % 10 == 7),
        (of(None, None, text("squid")), |n| n % 2 == 1),
        (of(None, text("T-*"), text("*whale")), |n| n % 2 == 0),
        (of(text("build-2"), None, text("squid")), |n| n % 10 == 7),
        (of(text("build-2"), text("T-3"), None), |_| false),
        (
            Query {
                verdict: Some(Outcome::Denied),
                ..of(text("build-*"), None, text("squid"))
            },
            |n| n % 2 == 1 && n % 3 == 0,
        ),
    ];
    for (query, meant) in cases {
        let earliest: Vec<u32> = (1..=RECORDS).filter(|n| is_of(n) && meant(*n)).collect();
        let latest: Vec<u32> = earliest.iter().rev().copied().collect();
        assert_eq!(asked(&reader, &query).await, latest, "{query:?}");
        let few = Query {
            limit: Some(7),
            ..query.clone()
        };
        let some = &latest[..latest.len().min(7)];
        assert_eq!(asked(&reader, &few).await, some, "{few:?}");
        let stored = Query {
            order: Order::Stored,
            after: Some(20),
            ..few
        };
        let some: Vec<u32> = earliest.into_iter().filter(|n| *n > 20).take(7).collect();
        assert_eq!(asked(&reader, &stored).await, some, "{stored:?}");
    }
    reader.close().await;
}

#[tokio::test]
async fn a_subject_is_kept_once_over_transactions_and_restarts() {
    let (_directory, path) = place();
    write(&path, 1, 30).await;
    write(&path, 31, RECORDS).await;
    assert_eq!(count(&path, "SELECT count(*) FROM subjects").await, 10);
    let nobodys = "SELECT count(*) FROM records WHERE subject IS NULL";
    assert_eq!(count(&path, nobodys).await, 10);
    each_name_finds_its_own(&path).await;
    verified(&path).await.expect("good");
}

#[tokio::test]
async fn names_are_forgotten_with_the_last_of_their_records() {
    let (_directory, path) = place();
    write(&path, 1, RECORDS).await;
    let kept = Record {
        time: Timestamp::now(),
        ..owned(1)
    };
    let mut retention = Retention::default();
    for class in Class::ALL {
        retention.set(class, Some(SignedDuration::from_hours(1)));
    }
    let options = Options {
        retention,
        ..tight(1_000)
    };
    let store = Store::open_with(&path, options).await.expect("a store");
    store.recorder().record(kept);
    let begun = std::time::Instant::now();
    while count(&path, "SELECT count(*) FROM subjects").await > 1 {
        assert!(begun.elapsed() < LONG, "names are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close(LONG).await.expect("closed");
    let left = "SELECT count(*) FROM subjects WHERE sandbox = 'build-1' AND task = 'T-1'";
    assert_eq!(count(&path, left).await, 1);
    let summary = verified(&path).await.expect("explained");
    assert_eq!(summary.erased, u64::from(RECORDS), "{summary:?}");
}

/// Makes of a store what a version before subjects would have written.
async fn as_before(path: &Path, older: &Path) {
    let now = sqlx::migrate!("migrations/sqlite");
    let before = Migrator::with_migrations(now.iter().take(1).cloned().collect());
    std::fs::create_dir_all(older.parent().expect("a parent")).expect("a directory");
    std::fs::write(older, b"").expect("a file");
    let mut connection = stranger(older).await;
    before
        .run_direct(None, &mut connection, false)
        .await
        .expect("the schema of before");
    sqlx::query("ATTACH ? AS later")
        .bind(path.to_str().expect("a path"))
        .execute(&mut connection)
        .await
        .expect("attached");
    for statement in [
        "INSERT INTO records SELECT sequence, time, class, chain, body, kind, sandbox, task, project, \
         outcome, reason, address_key, name_key \
         FROM later.records LEFT JOIN later.subjects ON subjects.id = records.subject",
        "INSERT INTO erased SELECT * FROM later.erased",
        "INSERT INTO checkpoints SELECT * FROM later.checkpoints",
        "INSERT INTO head SELECT * FROM later.head",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .expect("copied");
    }
    connection.close().await.expect("closed");
    for file in ["audit.key", "audit.pub", "audit.checkpoint"] {
        std::fs::copy(path.with_file_name(file), older.with_file_name(file)).expect("copied");
    }
}

#[tokio::test]
async fn a_store_of_before_is_brought_up_to_date_and_goes_on() {
    let (directory, path) = place();
    write(&path, 1, 40).await;
    let older = directory.path().join("older").join("audit.db");
    as_before(&path, &older).await;
    let error = Reader::open(&older).await.expect_err("a refusal");
    assert!(
        matches!(error, AuditError::OlderSchema { found: 1, .. }),
        "{error}"
    );
    write(&older, 41, RECORDS).await;
    assert_eq!(count(&older, "SELECT count(*) FROM subjects").await, 10);
    each_name_finds_its_own(&older).await;
    let summary = verified(&older).await.expect("good");
    assert_eq!(summary.records, u64::from(RECORDS));
    assert_eq!(summary.signed, i64::from(RECORDS), "{summary:?}");
}
