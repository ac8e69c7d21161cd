//! What is written is what is read: every field, every filter.

use super::*;
use crate::audit::row::SELECT;
use crate::model::{Attribution, Relaxation, ResourceUse, RuleOrigin};
use egress_common::{Outcome, Reason, SandboxId};
use std::sync::Arc;

fn attribution() -> Attribution {
    Attribution {
        task: Some("T-17".to_owned()),
        session: Some("s 1".to_owned()),
        project: Some("whale".to_owned()),
        on_behalf_of: Some("ada@example.com".to_owned()),
        labels: [("team/x".to_owned(), "\"blue\"".to_owned())].into(),
    }
}

pub(in crate::audit) fn full() -> Record {
    Record {
        sandbox_id: Some(SandboxId(u32::MAX)),
        sandbox: Some("build".to_owned()),
        policy: Some("ci".to_owned()),
        relaxations: vec![
            Relaxation::Ptrace,
            Relaxation::HostSocket("/run/a,b \"c\"".into()),
        ],
        attribution: Some(Arc::new(attribution())),
        process: Some(4242),
        command: Some("cu\0rl \u{1b}é".to_owned()),
        user: Some(u32::MAX - 1),
        hook: Some("connect"),
        address: "2001:db8::7".parse().ok(),
        port: Some(65_535),
        protocol: Some("tcp".to_owned()),
        name: Some("api.example.com".to_owned()),
        query_type: Some("AAAA".to_owned()),
        upstream: Some("tls://192.0.2.1:853 (dns.example)".to_owned()),
        cache: Some("miss"),
        latency_us: Some(1_234),
        rule: Some(RuleOrigin {
            file: Arc::new(PathBuf::from("/etc/egress/policies.d/ci.yaml")),
            line: 7,
            text: "domain api.example.com".into(),
        }),
        outcome: Some(Outcome::WouldDeny),
        reason: Some(Reason::NoRule),
        actor: Some("alice".to_owned()),
        digest: Some("00ff".to_owned()),
        diff: Some("-a\n+b\n".to_owned()),
        usage: Some(Box::new(ResourceUse {
            cpu_us: Some(1_234_567),
            memory_kills: 1,
            memory_peak_bytes: Some(1 << 40),
            processes_peak: Some(3),
            processes_refused: 2,
            read_bytes: Some(4_096),
            received_bytes: Some(8),
            sent_bytes: Some(6),
            throttled_us: Some(9),
            written_bytes: Some(0),
        })),
        count: 1 << 40,
        detail: Some("'); DROP TABLE records; --".to_owned()),
        ..Record::new(
            "2026-11-20T08:30:00.123456789Z".parse().expect("a time"),
            RecordKind::Dns,
        )
    }
}

#[tokio::test]
async fn every_field_comes_back_and_what_was_absent_is_absent() {
    let (_directory, path) = place();
    let store = open(&path).await.expect("a store");
    store.recorder().record(full());
    store.recorder().record(Record::new(
        "2026-11-20T08:30:01Z".parse().expect("a time"),
        RecordKind::Agent,
    ));
    store.close(LONG).await.expect("all written");

    let stored = all(&path).await;
    let [everything, nothing] = stored.as_slice() else {
        panic!("{stored:#?}");
    };
    let json = |record: &StoredRecord| serde_json::to_value(record).expect("JSON");
    let (mut everything, mut nothing) = (json(everything), json(nothing));
    for record in [&mut everything, &mut nothing] {
        let id = record["id"].take();
        let id: uuid::Uuid = id.as_str().expect("text").parse().expect("a UUID");
        assert_eq!(id.get_version_num(), 7);
        let node = record["node"].take();
        assert!(node.as_str().is_some_and(|node| !node.is_empty()));
        record
            .as_object_mut()
            .expect("an object")
            .retain(|_, value| !value.is_null());
    }
    let usage = serde_json::json!({
        "cpu_us": 1_234_567,
        "memory_kills": 1,
        "memory_peak_bytes": 1_u64 << 40,
        "processes_peak": 3,
        "processes_refused": 2,
        "read_bytes": 4_096,
        "received_bytes": 8,
        "sent_bytes": 6,
        "throttled_us": 9,
        "written_bytes": 0,
    });
    let expected = serde_json::json!({
        "sequence": 1,
        "time": "2026-11-20T08:30:00.123456Z",
        "kind": "dns",
        "sandbox_id": u32::MAX,
        "sandbox": "build",
        "policy": "ci",
        "relaxations": ["ptrace", "host-socket:/run/a,b \"c\""],
        "task": "T-17",
        "session": "s 1",
        "project": "whale",
        "on_behalf_of": "ada@example.com",
        "labels": { "team/x": "\"blue\"" },
        "process": 4242,
        "command": "cu\0rl \u{1b}é",
        "user": u32::MAX - 1,
        "hook": "connect",
        "address": "2001:db8::7",
        "port": 65_535,
        "protocol": "tcp",
        "name": "api.example.com",
        "query_type": "AAAA",
        "upstream": "tls://192.0.2.1:853 (dns.example)",
        "cache": "miss",
        "latency_us": 1_234,
        "rule": {
            "file": "/etc/egress/policies.d/ci.yaml",
            "line": 7,
            "text": "domain api.example.com",
        },
        "verdict": "would_deny",
        "reason": "no_rule",
        "actor": "alice",
        "digest": "00ff",
        "diff": "-a\n+b\n",
        "usage": usage,
        "count": 1_u64 << 40,
        "detail": "'); DROP TABLE records; --",
    });
    assert_eq!(everything, expected);
    let expected = serde_json::json!({
        "sequence": 2,
        "time": "2026-11-20T08:30:01Z",
        "kind": "agent",
        "relaxations": [],
        "labels": {},
        "count": 1,
    });
    assert_eq!(nothing, expected);
}

/// A store with records 1 to 6, whose numbers are their processes.
async fn varied(path: &Path) -> Reader {
    let store = open(path).await.expect("a store");
    let make = |n: u32, change: &dyn Fn(&mut Record)| {
        let mut record = numbered(n);
        change(&mut record);
        store.recorder().record(record);
    };
    make(1, &|r| {
        r.sandbox = Some("ci-1".to_owned());
        r.outcome = Some(Outcome::Denied);
        r.reason = Some(Reason::NoRule);
        r.address = "10.1.2.3".parse().ok();
    });
    make(2, &|r| {
        r.sandbox = Some("ci-2".to_owned());
        r.outcome = Some(Outcome::Allowed);
        r.address = "10.255.255.255".parse().ok();
        r.name = Some("example.com".to_owned());
    });
    make(3, &|r| {
        r.sandbox = Some("web".to_owned());
        r.outcome = Some(Outcome::Denied);
        r.reason = Some(Reason::Lapsed);
        r.address = "11.0.0.0".parse().ok();
        r.name = Some("a.b.example.com".to_owned());
    });
    make(4, &|r| {
        r.kind = RecordKind::Dns;
        r.name = Some("Example.COM.".to_owned());
    });
    make(5, &|r| {
        r.kind = RecordKind::Dns;
        r.name = Some("badexample.com".to_owned());
    });
    make(6, &|r| {
        r.address = "2001:db8::1".parse().ok();
        r.name = Some("example-com".to_owned());
    });
    store.close(LONG).await.expect("all written");
    Reader::open(path).await.expect("a reader")
}

#[tokio::test]
async fn each_condition_finds_what_it_says() {
    let (_directory, path) = place();
    let reader = varied(&path).await;
    let second = |n| Some(Timestamp::from_second(n).expect("a time"));
    let to = |text: &str| Query {
        destination: Some(text.parse().expect("a destination")),
        ..Query::default()
    };
    let of = |sandbox: &str| Query {
        sandbox: Some(sandbox.to_owned()),
        ..Query::default()
    };
    let nearly = second(3).map(|time| time + SignedDuration::from_nanos(1));
    let cases = [
        (Query::default(), vec![6, 5, 4, 3, 2, 1]),
        (
            Query {
                order: Order::OldestFirst,
                limit: Some(2),
                ..Query::default()
            },
            vec![1, 2],
        ),
        (
            Query {
                limit: Some(2),
                ..Query::default()
            },
            vec![6, 5],
        ),
        (
            Query {
                since: second(5),
                ..Query::default()
            },
            vec![6, 5],
        ),
        (
            Query {
                since: nearly,
                ..Query::default()
            },
            vec![6, 5, 4],
        ),
        (
            Query {
                until: second(3),
                ..Query::default()
            },
            vec![2, 1],
        ),
        (
            Query {
                until: nearly,
                ..Query::default()
            },
            vec![3, 2, 1],
        ),
        (
            Query {
                after: Some(4),
                ..Query::default()
            },
            vec![6, 5],
        ),
        (of("ci-1"), vec![1]),
        (of("ci-*"), vec![2, 1]),
        (of("ci"), vec![]),
        (
            Query {
                verdict: Some(Outcome::Denied),
                ..Query::default()
            },
            vec![3, 1],
        ),
        (
            Query {
                kind: Some(RecordKind::Dns),
                ..Query::default()
            },
            vec![5, 4],
        ),
        (
            Query {
                reason: Some(Reason::Lapsed),
                ..Query::default()
            },
            vec![3],
        ),
        (
            Query {
                verdict: Some(Outcome::Denied),
                sandbox: Some("ci-*".to_owned()),
                ..Query::default()
            },
            vec![1],
        ),
        (to("10.1.2.3"), vec![1]),
        (to("10.0.0.0/8"), vec![2, 1]),
        (to("::ffff:10.1.2.3"), vec![1]),
        (to("2001:db8::/32"), vec![6]),
        (to("0.0.0.0/0"), vec![3, 2, 1]),
        (to("::/0"), vec![6, 3, 2, 1]),
        (to("example.com"), vec![4, 2]),
        (to("*.example.com"), vec![3]),
        (to("**.example.com"), vec![4, 3, 2]),
    ];
    for (query, expected) in cases {
        let found = reader.query(&query).await.expect("records");
        let found: Vec<_> = found.iter().filter_map(|record| record.process).collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

#[tokio::test]
async fn questions_that_are_asked_often_use_an_index() {
    let (_directory, path) = place();
    varied(&path).await.close().await;
    let mut connection = stranger(&path).await;
    let to = |destination: &str| Query {
        destination: destination.parse().ok(),
        ..Query::default()
    };
    let text = |text: &str| Some(text.to_owned());
    let of = |set: fn(&mut Query)| {
        let mut query = Query {
            limit: Some(100),
            ..Query::default()
        };
        set(&mut query);
        query
    };
    for query in [
        to("10.0.0.0/8"),
        to("*.example.com"),
        to("example.com"),
        Query {
            sandbox: text("build"),
            ..Query::default()
        },
        of(|query| query.since = Some(Timestamp::UNIX_EPOCH)),
        of(|query| query.reason = Some(Reason::NoRule)),
        of(|query| query.verdict = Some(Outcome::Denied)),
        of(|query| query.verdict = Some(Outcome::WouldDeny)),
        of(|query| query.kind = Some(RecordKind::Policy)),
    ] {
        let plan = plan(&mut connection, &query).await;
        let uses_index = plan
            .iter()
            .any(|step| step.starts_with("SEARCH records USING INDEX"));
        assert!(uses_index, "{query:?}: {plan:?}");
    }
    // What most records are is looked for from the latest on, and not sorted.
    for query in [
        of(|query| query.verdict = Some(Outcome::Allowed)),
        of(|query| query.kind = Some(RecordKind::Flow)),
        of(|query| query.kind = Some(RecordKind::Dns)),
        of(|query| query.policy = Some("ci".to_owned())),
    ] {
        let plan = plan(&mut connection, &query).await;
        assert_eq!(
            plan[0], "SCAN records USING INDEX records_by_time",
            "{query:?}"
        );
    }
    // The latest of a range are found in its index alone.
    for query in [
        to("*.example.com"),
        to("10.0.0.0/8"),
        of(|query| query.sandbox = Some("build-*".to_owned())),
        of(|query| query.task = Some("T-1".to_owned())),
        of(|query| query.project = Some("p".to_owned())),
    ] {
        let limited = Query {
            limit: Some(100),
            ..query
        };
        let plan = plan(&mut connection, &limited).await;
        let alone = plan
            .iter()
            .any(|step| step.starts_with("SEARCH records USING COVERING INDEX"));
        assert!(alone, "{limited:?}: {plan:?}");
    }
}

/// How SQLite goes about it.
async fn plan(connection: &mut SqliteConnection, query: &Query) -> Vec<String> {
    let sql = query.statement(SELECT).into_string();
    let sql = format!("EXPLAIN QUERY PLAN {sql}");
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .expect("a plan");
    plan.into_iter().map(|step| step.3).collect()
}

#[tokio::test]
async fn a_reader_sees_whole_batches_in_order_while_the_agent_writes() {
    let (_directory, path) = place();
    let store = Store::open_with(&path, tight(100_000))
        .await
        .expect("a store");
    let recorder = store.recorder();
    let reader = store.reader().await.expect("a reader");
    let writing = tokio::spawn(async move {
        for n in 1..=2_000 {
            recorder.record(numbered(n));
            if n % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
        recorder.flush(LONG).await
    });
    let query = Query {
        order: Order::OldestFirst,
        ..Query::default()
    };
    let mut seen = 0;
    while seen < 2_000 {
        let records = reader.query(&query).await.expect("records while writing");
        assert!(records.len() >= seen, "records vanished");
        for (record, n) in records.iter().zip(1..) {
            assert_eq!((record.sequence, record.process), (i64::from(n), Some(n)));
        }
        seen = records.len();
    }
    writing.await.expect("no panic").expect("flushed");
    assert_eq!(store.health().written, 2_000);
    store.close(LONG).await.expect("closed");
}
