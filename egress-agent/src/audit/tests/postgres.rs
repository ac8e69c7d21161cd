//! Shipping to a real PostgreSQL server: in order, each record once, over outages.

use super::*;
use crate::audit::{KeyFiles, verify_postgres};
use egress_tests::postgres::Postgres;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::str::FromStr;

/// A server that answers takes connections soon.
async fn connect(server: &Postgres) -> PgConnection {
    let options = PgConnectOptions::from_str(&server.url()).expect("a URL");
    PgConnection::connect_with(&options)
        .await
        .expect("it answers")
}

async fn shipped(store: &Store, place: i64) {
    let begun = std::time::Instant::now();
    while store.health().shipped != Some(place) {
        assert!(begun.elapsed() < 2 * LONG, "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn records_are_shipped_once_and_in_order_over_outages_of_both_sides() {
    let (_directory, path) = place();
    let mut server = Postgres::make(false);
    let options = || Options {
        postgres: Some(server.url()),
        node: "host-1".to_owned(),
        ..tight(10_000)
    };
    // The server is not there yet: records wait in the file.
    let store = Store::open_with(&path, options()).await.expect("a store");
    for n in 1..=100 {
        let record = Record {
            // A day each: every record has a partition of its own.
            time: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * i64::from(n % 5)),
            command: Some("a\tb\\c\nd\u{0}é".to_owned()),
            sandbox: Some("tab\there\\".to_owned()),
            address: "203.0.113.7".parse().ok(),
            ..numbered(n)
        };
        store.recorder().record(record);
    }
    store.recorder().flush(LONG).await.expect("written");
    let begun = std::time::Instant::now();
    while store.health().shipping_error.is_none() {
        assert!(begun.elapsed() < LONG, "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        store.health().error,
        None,
        "the file is written all the same"
    );
    let url = server.url();
    server.start();
    shipped(&store, 100).await;

    // The server dies while more comes.
    for n in 101..=200 {
        store.recorder().record(numbered(n));
        if n == 150 {
            server.kill();
        }
    }
    store.recorder().flush(LONG).await.expect("written");
    server.start();
    shipped(&store, 200).await;

    // The agent ends, and the next one goes on.
    store.close(LONG).await.expect("closed");
    let again = Options {
        postgres: Some(url.clone()),
        node: "host-1".to_owned(),
        ..tight(10_000)
    };
    let store = Store::open_with(&path, again).await.expect("a store");
    store.recorder().record(numbered(201));
    store.recorder().flush(LONG).await.expect("written");
    shipped(&store, 201).await;
    store.close(LONG).await.expect("closed");

    let mut connection = connect(&server).await;
    let (all, distinct, last): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT sequence), max(sequence) FROM audit_records WHERE node = 'host-1'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("counts");
    assert_eq!((all, distinct, last), (201, 201, 201));
    let found: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_records WHERE address = '203.0.113.7' AND sandbox = E'tab\\there\\\\' \
         AND position('tab\\there' in body) > 0",
    )
    .fetch_one(&mut connection)
    .await
    .expect("a count");
    assert_eq!(found, 100);

    let keys = KeyFiles::beside(&path).public().expect("keys");
    let verified = verify_postgres(&url, "host-1", &keys)
        .await
        .expect("answered");
    let [verification] = verified.as_slice() else {
        panic!("{verified:?}");
    };
    let summary = verification.result.as_ref().expect("good");
    assert_eq!(summary.records, 201);
    assert!(summary.checkpoints > 0, "{summary:?}");
    sqlx::query("UPDATE audit_records SET body = replace(body, '203.0.113.7', '203.0.113.8') WHERE sequence = 33")
        .execute(&mut connection)
        .await
        .expect("altered");
    let verified = verify_postgres(&url, "host-1", &keys)
        .await
        .expect("answered");
    let finding = verified[0].result.as_ref().expect_err("altered");
    assert!(finding.to_string().contains("record 33"), "{finding}");
    connection.close().await.expect("closed");
}
