//! Filters of origin, counting, and answers in parts.

use super::*;
use crate::audit::{GroupField, StoredRecord};
use crate::model::RuleOrigin;
use egress_common::{Outcome, Reason};
use std::sync::Arc;

/// The `n`th of records that differ in everything that is asked for.
fn varied(n: u32) -> Record {
    let sandbox = ["a", "b", "c"][n as usize % 3];
    let denied = n.is_multiple_of(2);
    Record {
        sandbox: Some(sandbox.to_owned()),
        policy: Some("ci".to_owned()),
        command: Some(if denied { "curl" } else { "python3.11" }.to_owned()),
        name: Some(format!("host{}.example.com", n % 5)),
        address: "203.0.113.7".parse().ok(),
        rule: Some(RuleOrigin {
            file: Arc::new(PathBuf::from("/etc/egress/policies.d/ci.yaml")),
            line: n % 4,
            text: "domain **.example.com".into(),
        }),
        outcome: Some(if denied {
            Outcome::Denied
        } else {
            Outcome::Allowed
        }),
        reason: denied.then_some(Reason::NoRule),
        count: u64::from(n),
        ..numbered(n)
    }
}

/// A store with records 1 to `last`, read.
async fn filled(last: u32) -> (TempDir, Reader) {
    let (directory, path) = place();
    let store = Store::open(&path).await.expect("a store");
    for n in 1..=last {
        store.recorder().record(varied(n));
    }
    store.close(LONG).await.expect("all written");
    let reader = Reader::open(&path).await.expect("a readable store");
    (directory, reader)
}

async fn processes(reader: &Reader, query: Query) -> Vec<u32> {
    let query = Query {
        order: Order::OldestFirst,
        ..query
    };
    let records = reader.query(&query).await.expect("records");
    records.iter().filter_map(|record| record.process).collect()
}

#[tokio::test]
async fn rules_processes_names_and_policies_narrow_the_answer() {
    let (_directory, reader) = filled(12).await;
    let rule = |text: &str| Query {
        rule: Some(text.parse().expect("a rule")),
        ..Query::default()
    };
    for text in [
        "ci.yaml:3",
        "policies.d/ci.yaml:3",
        "/etc/egress/policies.d/ci.yaml:3",
    ] {
        assert_eq!(processes(&reader, rule(text)).await, [3, 7, 11], "{text}");
    }
    assert_eq!(
        processes(&reader, rule("i.yaml:3")).await,
        [0; 0],
        "no whole part of a path"
    );
    assert_eq!(processes(&reader, rule("ci.yaml")).await.len(), 12);
    assert_eq!(processes(&reader, rule("domain *")).await.len(), 12);
    assert_eq!(processes(&reader, rule("domain")).await, [0; 0]);

    let process = |text: &str| Query {
        process: Some(text.parse().expect("a process")),
        ..Query::default()
    };
    assert_eq!(processes(&reader, process("7")).await, [7]);
    assert_eq!(
        processes(&reader, process("curl")).await,
        [2, 4, 6, 8, 10, 12]
    );
    assert_eq!(
        processes(&reader, process("python*")).await,
        [1, 3, 5, 7, 9, 11]
    );
    assert_eq!(
        processes(&reader, process("[cp]url*")).await,
        [0; 0],
        "only the star has a meaning"
    );

    let name = Query {
        name: Some("host2.*".to_owned()),
        ..Query::default()
    };
    assert_eq!(processes(&reader, name).await, [2, 7, 12]);
    let policy = Query {
        policy: Some("other".to_owned()),
        ..Query::default()
    };
    assert_eq!(processes(&reader, policy).await, [0; 0]);
}

#[tokio::test]
async fn groups_add_up_what_records_stand_for_the_largest_first() {
    let (_directory, reader) = filled(12).await;
    let by = [GroupField::Sandbox, GroupField::Verdict];
    let groups = reader.groups(&Query::default(), &by).await.expect("groups");
    let seen: Vec<_> = groups
        .iter()
        .map(|group| {
            let values: Vec<_> = group.values.iter().flatten().map(String::as_str).collect();
            (values.join(" "), group.count, group.records)
        })
        .collect();
    let expected = [
        ("a deny", 18, 2),
        ("c allow", 16, 2),
        ("b deny", 14, 2),
        ("a allow", 12, 2),
        ("c deny", 10, 2),
        ("b allow", 8, 2),
    ];
    let expected = expected.map(|(by, count, records)| (by.to_owned(), count, records));
    assert_eq!(seen, expected);

    let query = Query {
        verdict: Some(Outcome::Denied),
        limit: Some(1),
        ..Query::default()
    };
    let by = [GroupField::Reason, GroupField::Day];
    let groups = reader.groups(&query, &by).await.expect("groups");
    assert_eq!(groups.len(), 1);
    assert_eq!(
        groups[0].values,
        [Some("no_rule".to_owned()), Some("1970-01-01".to_owned())]
    );
    assert_eq!(groups[0].count, 2 + 4 + 6 + 8 + 10 + 12);
    assert_eq!(groups[0].first, numbered(2).time);
    assert_eq!(groups[0].last, numbered(12).time);
}

#[tokio::test]
async fn every_field_can_be_grouped_by_and_nothing_gives_no_group() {
    let (_directory, reader) = filled(6).await;
    for field in GroupField::ALL {
        let groups = reader
            .groups(&Query::default(), &[*field])
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", field.name()));
        let records: u64 = groups.iter().map(|group| group.records).sum();
        assert_eq!(records, 6, "{}", field.name());
    }
    let nothing = Query {
        sandbox: Some("nobody".to_owned()),
        ..Query::default()
    };
    for by in [&[GroupField::Sandbox][..], &[]] {
        assert_eq!(reader.groups(&nothing, by).await.expect("an answer"), []);
    }
}

async fn in_parts(reader: &Reader, query: Query) -> Vec<i64> {
    let mut parts = reader.parts(query);
    let mut sequences = Vec::new();
    while let Some(part) = parts.recv().await {
        sequences.extend(part.expect("a part").iter().map(|record| record.sequence));
    }
    sequences
}

#[tokio::test]
async fn a_long_answer_in_parts_is_the_answer_whatever_the_order() {
    const ALL: u32 = 10_000;
    let (directory, path) = place();
    let store = Store::open(&path).await.expect("a store");
    for n in 1..=ALL {
        // Many of one time, so that parts end inside of one.
        store.recorder().record(numbered(n / 5_000));
    }
    store.close(LONG).await.expect("all written");
    let reader = Reader::open(&path).await.expect("a readable store");
    for order in [Order::OldestFirst, Order::NewestFirst, Order::Stored] {
        let query = Query {
            order,
            ..Query::default()
        };
        let whole: Vec<i64> = reader
            .query(&query)
            .await
            .expect("records")
            .iter()
            .map(|record| record.sequence)
            .collect();
        assert_eq!(whole.len(), ALL as usize);
        assert_eq!(in_parts(&reader, query.clone()).await, whole, "{order:?}");
        let limited = Query {
            limit: Some(5_000),
            ..query
        };
        assert_eq!(
            in_parts(&reader, limited).await,
            whole[..5_000],
            "{order:?}"
        );
    }
    drop(directory);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_reading() {
    let (_directory, reader) = filled(3).await;
    let parts = reader.parts(Query::default());
    drop(parts);
    let left: Vec<StoredRecord> = reader.query(&Query::default()).await.expect("records");
    assert_eq!(left.len(), 3, "the reader still answers");
}
