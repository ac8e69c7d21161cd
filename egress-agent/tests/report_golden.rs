//! What a report says of records that are written down here, word for word.
//!
//! `UPDATE_GOLDEN=1 cargo test --test report_golden` rewrites the texts below
//! `tests/report/`.

mod golden;

use egress_agent::audit::{Content, Entry, Finding, Hash, Header, Summary, Verification};
use egress_agent::report::{Collection, Report, render_html};
use golden::same_as_checked_in;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A link with this record; what every record has is added.
fn link(sequence: i64, at: &str, record: Value) -> Entry {
    let mut record = record;
    let count = record.get("count").cloned().unwrap_or_else(|| 1.into());
    record["count"] = count;
    record["sequence"] = sequence.into();
    record["time"] = at.into();
    Entry {
        header: Header {
            sequence,
            time: time(at).as_microsecond(),
            class: 5,
        },
        chain: Hash([0; 32]),
        content: Content::Body(record.to_string()),
        columns: None,
    }
}

/// What a sandbox would choose to do harm on a page.
const HOSTILE: &str = "<script>alert('\"&')</script>\u{202e}\u{1b}[2J\u{9b}";

fn links() -> Vec<Entry> {
    let flow = |verdict: &str| {
        json!({
            "kind": "flow", "sandbox": "build", "policy": "ci", "verdict": verdict,
            "name": "api.example.com", "address": "203.0.113.7", "port": 443, "protocol": "tcp",
            "rule": {"file": "/etc/egress/ci.yaml", "line": 7, "text": "domain *.example.com"},
        })
    };
    let denied = |count: u64| {
        let mut record = flow("deny");
        record["name"] = HOSTILE.into();
        record["reason"] = "no_rule".into();
        record["count"] = count.into();
        record["rule"] = Value::Null;
        record
    };
    let mut erased = link(9, "2026-11-03T00:00:00Z", json!({"kind": "flow"}));
    erased.content = Content::Erased(Hash([1; 32]));
    let mut unreadable = link(10, "2026-11-03T00:00:00Z", json!({}));
    unreadable.content = Content::Body("{".to_owned());
    vec![
        link(1, "2026-10-31T23:59:59.999999Z", flow("allow")),
        link(2, "2026-11-01T00:00:00Z", flow("allow")),
        link(3, "2026-11-01T10:00:00Z", denied(41)),
        link(4, "2026-11-03T10:00:00.5Z", flow("would_deny")),
        link(
            5,
            "2026-11-03T11:00:00Z",
            json!({
                "kind": "dns", "sandbox": HOSTILE, "policy": "ci", "verdict": "deny", "name": "t.example",
                "reason": "name_not_allowed", "count": 5,
            }),
        ),
        link(
            6,
            "2026-11-03T12:00:00Z",
            json!({
                "kind": "policy", "verdict": "allow", "user": 0, "actor": "uid 0", "digest": "ab12",
                "diff": "--- a.yaml\n+++ a.yaml\n@@ -1 +1,2 @@\n+  - domain: <new>.example\n",
                "detail": "in force: ci",
            }),
        ),
        link(
            7,
            "2026-11-03T12:30:00Z",
            json!({"kind": "emergency", "verdict": "deny", "user": 1000, "detail": "emergency block 17"}),
        ),
        link(
            8,
            "2026-11-03T13:00:00Z",
            json!({
                "kind": "sandbox", "sandbox": "build", "policy": "ci", "detail": "ended",
                "usage": {"cpu_us": 12_340_000, "memory_peak_bytes": 41_943_040, "processes_peak": 3},
            }),
        ),
        erased,
        unreadable,
        link(
            11,
            "2026-11-03T14:00:00Z",
            json!({"kind": "loss", "count": 115, "detail": "16 records found no place"}),
        ),
        link(
            12,
            "2026-11-03T15:00:00Z",
            json!({
                "kind": "alert", "sandbox": "build", "actor": "alert:exfiltration",
                "detail": "critical: names that carry data",
            }),
        ),
        link(
            13,
            "2026-11-03T16:00:00Z",
            json!({"kind": "evidence", "actor": "retention", "detail": "retention takes allowed"}),
        ),
        link(
            14,
            "2026-11-03T17:00:00Z",
            json!({"kind": "agent", "detail": "agent stops"}),
        ),
        link(15, "2026-11-04T00:00:00Z", flow("allow")),
    ]
}

fn report(result: Result<Summary, Finding>, since: &str) -> Report {
    let mut collection = Collection::new(time(since), time("2026-11-04T00:00:00Z"));
    for link in links() {
        collection.see(&link);
    }
    let verification = Verification {
        node: "host-1".to_owned(),
        chain_id: "01937b1c-4a00-7000-8000-000000000000".to_owned(),
        result,
    };
    let mut report = collection.report(&verification, false, time("2026-11-05T00:00:00Z"));
    report.made_by = "egressctl (version)".to_owned();
    report
}

fn good() -> Report {
    let summary = Summary {
        records: 15,
        erased: 1,
        first: 1,
        last: 15,
        checkpoints: 2,
        signed: 14,
    };
    report(Ok(summary), "2026-11-01T00:00:00Z")
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/report")
        .join(name)
}

#[test]
fn the_page_and_the_document_are_what_was_agreed() {
    let report = good();
    let page = render_html(&report).expect("a page");
    let document = serde_json::to_string_pretty(&report).expect("JSON") + "\n";
    same_as_checked_in([(file("page.html"), page), (file("document.json"), document)]);
}

#[test]
fn everything_inside_of_the_period_is_counted_once_and_nothing_outside() {
    let report = good();
    assert_eq!(report.totals.records, 13);
    assert_eq!(report.totals.erased, 1);
    assert_eq!(report.totals.unreadable, 1);
    assert_eq!(report.totals.lost, 115);
    let decisions = report.totals.decisions;
    assert_eq!(
        (decisions.allowed, decisions.denied, decisions.would_deny),
        (1, 46, 1)
    );
    let by_day: u64 = report
        .activity
        .iter()
        .map(|step| step.decisions.all())
        .sum();
    assert_eq!(by_day, decisions.all());
    // The second day had nothing, and is told all the same.
    assert_eq!(report.activity.len(), 3);
    assert_eq!(report.activity[1].decisions.all(), 0);
}

#[test]
fn a_long_period_is_told_by_months() {
    let report = report(
        Err(Finding::Altered { sequence: 3 }),
        "2025-11-04T00:00:00Z",
    );
    let steps: Vec<String> = report
        .activity
        .iter()
        .map(|step| step.day.to_string())
        .collect();
    assert_eq!(steps, ["2026-10-01", "2026-11-01"]);
    assert!(!report.verification.good);
}

#[test]
fn a_page_about_altered_evidence_says_so_first() {
    let report = report(
        Err(Finding::Altered { sequence: 3 }),
        "2026-11-01T00:00:00Z",
    );
    let page = render_html(&report).expect("a page");
    let (before, _) = page.split_once("<h2>").expect("a section");
    assert!(before.contains("The evidence was altered"), "{before}");
    assert!(before.contains("record 3 is not what was written there"));
    assert!(!before.contains("Every record is as it was written"));
}

#[test]
fn what_a_sandbox_chose_is_text_on_the_page_and_nothing_else() {
    let page = render_html(&good()).expect("a page");
    assert!(!page.contains("<script"), "{page}");
    let written_out = page.contains("\\u{202e}\\u{1b}[2J\\u{9b}");
    assert!(written_out, "{page}");
    let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!page.chars().any(steers));
    // Nothing is loaded from anywhere, and nothing can be.
    for word in ["http:", "https:", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
}
