//! Stores that are read in several parts: no link is left out at their edges, and no record in their
//! indices.

use super::*;
use crate::audit::{Finding, KeyFiles, Span};
use sqlx::Connection;

/// More than two parts of a verification.
const RECORDS: u32 = 1_300;

/// What a verification finds in a copy of a store after an alteration.
async fn found(path: &Path, alteration: &str) -> Option<Finding> {
    let directory = TempDir::new().expect("a directory");
    let copy = directory.path().join("audit.db");
    for extension in ["db", "key", "pub", "checkpoint"] {
        let from = path.with_extension(extension);
        std::fs::copy(from, copy.with_extension(extension)).expect("copied");
    }
    alter(&copy, &[alteration]).await;
    let keys = KeyFiles::beside(&copy).public().expect("keys");
    let reader = Reader::open(&copy).await.expect("readable");
    let verification = reader.verify(Span::default(), &keys, &[]).await;
    verification.expect("answered").result.err()
}

/// A store that takes several parts to verify.
async fn long(path: &Path) {
    let store = open(path).await.expect("a store");
    for n in 1..=RECORDS {
        store.recorder().record(Record {
            name: Some("api.example.com".to_owned()),
            // As the agent reads bytes that are no text.
            command: Some("caf\u{fffd}".to_owned()),
            ..numbered(n)
        });
    }
    store.close(LONG).await.expect("closed");
    assert_eq!(found(path, "SELECT 1").await, None);
}

#[tokio::test]
async fn what_is_altered_at_the_edges_of_parts_is_found() {
    let (_directory, path) = place();
    long(&path).await;
    let missing = |first, last| Some(Finding::Missing { first, last });
    for place in [1, 511, 512, 513, 514, 1024, 1025] {
        let removal = format!("DELETE FROM records WHERE sequence = {place}");
        assert_eq!(found(&path, &removal).await, missing(place, place));
        let twice = format!(
            "INSERT INTO erased SELECT sequence, time, class, chain, zeroblob(32) FROM records \
             WHERE sequence = {place}"
        );
        let finding = found(&path, &twice).await;
        let again = Finding::OutOfPlace {
            place: place + 1,
            found: place,
        };
        let erased = Finding::Unexplained { sequence: place };
        assert!(finding == Some(again) || finding == Some(erased), "{place}");
    }
    for (first, last) in [(1, 600), (400, 1_100), (513, 1_024)] {
        let removal = format!("DELETE FROM records WHERE sequence BETWEEN {first} AND {last}");
        assert_eq!(found(&path, &removal).await, missing(first, last));
    }
    // A place that could be come to only after aeons, step by step.
    let far = "UPDATE records SET sequence = 9223372036854775807 WHERE sequence = 1300";
    let next = i64::from(RECORDS);
    assert_eq!(found(&path, far).await, missing(next, i64::MAX - 1));
    for place in [i64::MIN, -1, 0] {
        let before = format!(
            "INSERT INTO records (sequence, time, class, chain, body, kind) \
             SELECT {place}, time, class, chain, body, kind FROM records WHERE sequence = 1"
        );
        let finding = Finding::OutOfPlace {
            place: 1,
            found: place,
        };
        assert_eq!(found(&path, &before).await, Some(finding));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_hides_nothing_before_it() {
    let (_directory, path) = place();
    long(&path).await;
    let altered = |sequence| Some(Finding::Altered { sequence });
    let cases = [
        (
            "UPDATE records SET body = CAST(x'7bff7d' AS TEXT) WHERE sequence = 700",
            700,
        ),
        (
            "UPDATE records SET name_key = CAST(x'ff' AS TEXT) WHERE sequence = 701",
            701,
        ),
        // What stands for bytes that are no text, and such bytes.
        (
            "UPDATE records SET body = CAST(unhex(replace(hex(body), 'EFBFBD', 'FF')) AS TEXT) \
             WHERE sequence = 702",
            702,
        ),
        ("UPDATE records SET class = 300 WHERE sequence = 703", 703),
    ];
    for (alteration, sequence) in cases {
        assert_eq!(
            found(&path, alteration).await,
            altered(sequence),
            "{alteration}"
        );
        let earlier =
            "UPDATE records SET body = replace(body, '1970', '1971') WHERE sequence = 600";
        let both = format!("{alteration}; {earlier}");
        assert_eq!(found(&path, &both).await, altered(600), "{both}");
    }
}

#[tokio::test]
async fn another_schema_is_found() {
    let (_directory, path) = place();
    long(&path).await;
    let schema = |name: &str| {
        Some(Finding::Schema {
            name: name.to_owned(),
        })
    };
    let cases = [
        ("CREATE INDEX own ON records (kind)", None),
        ("DROP INDEX records_by_reason", schema("records_by_reason")),
        (
            "DROP INDEX records_by_name; CREATE INDEX records_by_name ON records (sequence >> 16, name_key, time) \
             WHERE name_key IS NOT NULL AND sequence <> 7",
            schema("records_by_name"),
        ),
        (
            "CREATE TRIGGER forget AFTER INSERT ON records BEGIN DELETE FROM records WHERE sequence = 7; END",
            schema("forget"),
        ),
    ];
    for (alteration, finding) in cases {
        assert_eq!(found(&path, alteration).await, finding, "{alteration}");
    }
}

/// Records of the store of destinations, more than are looked through one by one.
const DESTINATIONS: u32 = 6_000;
/// Places between two of them, so that they lie in many parts of an index.
const STEP: u32 = 40;

/// Where the `n`th goes: a name, the same from last to first, and the last octet of an address.
fn destination(n: u32) -> (&'static str, &'static str, u32) {
    let (name, key) = match n {
        // Others than in the beginning, so that an index and a walk back in time differ.
        0..3_000 if n.is_multiple_of(3) => ("a.example.com", "com.example.a"),
        _ if n.is_multiple_of(500) => ("example.com", "com.example"),
        _ if n.is_multiple_of(2) => ("b.c.example.com", "com.example.c.b"),
        // Between the two before in the order of an index.
        _ => ("x.example-b.com", "com.example-b.x"),
    };
    (name, key, n % 5)
}

/// The clock jumped: most times are not in the order of the places.
fn time(n: u32) -> u32 {
    n * 2_503 % DESTINATIONS
}

async fn destinations(path: &Path) {
    let store = open(path).await.expect("a store");
    store.recorder().record(numbered(0));
    store.close(LONG).await.expect("closed");
    let mut connection = stranger(path).await;
    let mut transaction = connection.begin().await.expect("a transaction");
    for n in 1..=DESTINATIONS {
        let (_, key, octet) = destination(n);
        let address: std::net::Ipv4Addr = [10, 0, 0, octet as u8].into();
        sqlx::query(
            "INSERT INTO records (sequence, time, class, chain, body, kind, address_key, name_key) \
             SELECT ?, ?, class, chain, json_set(body, '$.process', ?), kind, ?, ? \
             FROM records WHERE sequence = 1",
        )
        .bind(n * STEP)
        .bind(time(n))
        .bind(n)
        .bind(address.to_ipv6_mapped().octets().to_vec())
        .bind(key)
        .execute(&mut *transaction)
        .await
        .expect("written");
    }
    transaction.commit().await.expect("committed");
    connection.close().await.expect("closed");
}

/// Whether the `n`th record is meant.
type Meant = fn(u32) -> bool;

#[tokio::test]
async fn destinations_are_found_in_all_parts_the_latest_first() {
    let (_directory, path) = place();
    destinations(&path).await;
    the_latest_are_found(&path).await;
    // Between these are more parts than anybody could go through.
    for place in [i64::MIN, i64::MAX] {
        let far = format!(
            "INSERT INTO records (sequence, time, class, chain, body, kind) \
             SELECT {place}, time, class, chain, body, kind FROM records WHERE sequence = 1"
        );
        alter(&path, &[&far]).await;
    }
    the_latest_are_found(&path).await;
}

async fn the_latest_are_found(path: &Path) {
    let reader = Reader::open(path).await.expect("readable");
    let cases: [(&str, Meant); 8] = [
        ("a.example.com", |n| destination(n).0 == "a.example.com"),
        ("example.com", |n| destination(n).0 == "example.com"),
        ("*.example.com", |n| {
            destination(n).0.ends_with(".example.com")
        }),
        ("**.example.com", |n| {
            destination(n).0.ends_with("example.com")
        }),
        ("*.example-b.com", |n| destination(n).0 == "x.example-b.com"),
        ("*.example.net", |_| false),
        ("10.0.0.3", |n| n % 5 == 3),
        ("10.0.0.2/31", |n| matches!(n % 5, 2 | 3)),
    ];
    for (text, meant) in cases {
        let mut latest: Vec<u32> = (1..=DESTINATIONS).filter(|n| meant(*n)).collect();
        latest.sort_by_key(|n| std::cmp::Reverse((time(*n), *n)));
        for limit in [None, Some(1), Some(100), Some(2_500)] {
            let query = Query {
                destination: text.parse().ok(),
                limit,
                ..Query::default()
            };
            let wanted = limit.map_or(latest.len(), |limit| latest.len().min(limit as usize));
            let records = reader.query(&query).await.expect("records");
            let found: Vec<u32> = records.iter().filter_map(|record| record.process).collect();
            assert_eq!(found, latest[..wanted], "{query:?}");
        }
        let query = Query {
            destination: text.parse().ok(),
            after: Some(i64::from(STEP) * 2_000),
            limit: Some(50),
            order: Order::Stored,
            ..Query::default()
        };
        let stored: Vec<u32> = (2_001..=DESTINATIONS)
            .filter(|n| meant(*n))
            .take(50)
            .collect();
        let records = reader.query(&query).await.expect("records");
        let found: Vec<u32> = records.iter().filter_map(|record| record.process).collect();
        assert_eq!(found, stored, "{query:?}");
    }
    reader.close().await;
}
