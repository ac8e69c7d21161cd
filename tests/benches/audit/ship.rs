//! What was written, to a real PostgreSQL server that waits for its disk.

use crate::goal::{LONG, rate, tell};
use egress_agent::audit::{KeyFiles, Options, Reader, Store, verify_postgres};
use egress_tests::postgres::Postgres;
use std::path::Path;
use std::time::{Duration, Instant};

pub async fn measure(path: &Path) -> bool {
    let reader = Reader::open(path)
        .await
        .expect("`--scenario sustain` before");
    let head = reader.last_sequence().await.expect("answered");
    reader.close().await;
    let parent = std::env::current_dir().expect("a directory");
    let mut server = Postgres::make_in(&parent, true);
    server.start();
    let options = Options {
        postgres: Some(server.url()),
        ..Options::default()
    };
    let node = options.node.clone();
    let begun = Instant::now();
    let store = Store::open_with(path, options).await.expect("a store");
    while store.health().shipped != Some(head) {
        assert!(begun.elapsed() < LONG, "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed();
    store.close(LONG).await.expect("closed");
    let records = head.unsigned_abs();
    let met = rate(
        "records shipped to PostgreSQL per second",
        records,
        took,
        20_000,
    );
    let keys = KeyFiles::beside(path).public().expect("keys");
    let begun = Instant::now();
    let found = verify_postgres(&server.url(), &node, &keys)
        .await
        .expect("answered");
    let took = begun.elapsed().as_secs_f64();
    let verified = found.first().and_then(|chain| chain.result.as_ref().ok());
    let there = verified.map_or(0, |summary| summary.records);
    tell(
        "of them verified there",
        there.to_string(),
        &records.to_string(),
        there == records,
    ) & tell("verification there, s", format!("{took:.2}"), "-", true)
        & met
}
