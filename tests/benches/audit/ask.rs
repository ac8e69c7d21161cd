//! Verification and queries over what was written.

use crate::goal::tell;
use egress_agent::audit::{KeyFiles, Query, Reader, Span};
use egress_common::{Outcome, Reason};
use jiff::{SignedDuration, Timestamp};
use std::path::Path;
use std::time::Instant;

/// The questions that have an index, each for the newest hundred.
fn questions() -> Vec<(&'static str, Query)> {
    let about = |query: Query| Query {
        limit: Some(100),
        ..query
    };
    let any = Query::default;
    let text = |text: &str| Some(text.to_owned());
    vec![
        ("the newest", about(any())),
        (
            "of ten seconds",
            about(Query {
                since: Some(Timestamp::now() - SignedDuration::from_mins(10)),
                until: Some(Timestamp::now()),
                ..any()
            }),
        ),
        (
            "of a sandbox",
            about(Query {
                sandbox: text("build-7"),
                ..any()
            }),
        ),
        (
            "of a task",
            about(Query {
                task: text("T-7"),
                ..any()
            }),
        ),
        (
            "of a project",
            about(Query {
                project: text("project-3"),
                ..any()
            }),
        ),
        (
            "to an address",
            about(Query {
                destination: "10.0.0.9".parse().ok(),
                ..any()
            }),
        ),
        (
            "to a network",
            about(Query {
                destination: "203.0.0.0/24".parse().ok(),
                ..any()
            }),
        ),
        (
            "to a name",
            about(Query {
                destination: "api9.example.com".parse().ok(),
                ..any()
            }),
        ),
        (
            "below a name",
            about(Query {
                destination: "*.example.com".parse().ok(),
                ..any()
            }),
        ),
        (
            "denied",
            about(Query {
                verdict: Some(Outcome::Denied),
                ..any()
            }),
        ),
        (
            "allowed",
            about(Query {
                verdict: Some(Outcome::Allowed),
                ..any()
            }),
        ),
        (
            "in shadow mode (none)",
            about(Query {
                verdict: Some(Outcome::WouldDeny),
                ..any()
            }),
        ),
        (
            "with a reason",
            about(Query {
                reason: Some(Reason::NoRule),
                ..any()
            }),
        ),
        (
            "with a rare reason (none)",
            about(Query {
                reason: Some(Reason::Emergency),
                ..any()
            }),
        ),
        (
            "of an unknown sandbox (none)",
            about(Query {
                sandbox: text("nobody"),
                ..any()
            }),
        ),
    ]
}

pub async fn measure(path: &Path) -> bool {
    let reader = Reader::open(path)
        .await
        .expect("`--scenario sustain` before");
    let keys = KeyFiles::beside(path).public().expect("keys");
    let begun = Instant::now();
    let verification = reader
        .verify(Span::default(), &keys, &[])
        .await
        .expect("answered");
    let took = begun.elapsed().as_secs_f64();
    let summary = verification.result.expect("nothing was altered");
    let mut met = tell(
        &format!("verification of {} records, s", summary.records),
        format!("{took:.2}"),
        "< 5",
        took < 5.0,
    );
    for (what, query) in questions() {
        let begun = Instant::now();
        let found = reader.query(&query).await.expect("answered").len();
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        met &= tell(
            &format!("query: {found} {what}, ms"),
            format!("{took:.1}"),
            "< 100",
            took < 100.0,
        );
    }
    reader.close().await;
    met
}
