//! `egressctl audit` as people and programs use it, on a file without an agent.

use egress_agent::audit::{Recorder, Store};
use egress_agent::model::{Record, RecordKind};
use egress_common::{Outcome, Reason};
use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Far more than any of these needs, so that only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

/// The `n`th record, a second after the one before.
fn record(n: u32) -> Record {
    let begin: Timestamp = "2026-11-20T08:00:00Z".parse().expect("a time");
    let denied = n.is_multiple_of(2);
    Record {
        sandbox: Some(if denied { "build" } else { "test" }.to_owned()),
        name: Some(format!("host{n}.example.com")),
        address: "203.0.113.7".parse().ok(),
        port: Some(443),
        protocol: Some("tcp".to_owned()),
        command: Some("=cmd,\"x\"".to_owned()),
        hook: Some("connect"),
        outcome: Some(if denied {
            Outcome::Denied
        } else {
            Outcome::Allowed
        }),
        reason: denied.then_some(Reason::NoRule),
        ..Record::new(
            begin + SignedDuration::from_secs(i64::from(n)),
            RecordKind::Flow,
        )
    }
}

/// Does something with a store that is open.
fn with_store<T>(file: &Path, then: impl FnOnce(&Recorder, &tokio::runtime::Runtime) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = runtime.block_on(Store::open(file)).expect("a store");
    let result = then(&store.recorder(), &runtime);
    runtime.block_on(store.close(LONG)).expect("all written");
    result
}

fn fill(file: &Path, records: u32) {
    // Not more at once than the queue takes.
    with_store(file, |recorder, runtime| {
        for n in 1..=records {
            recorder.record(record(n));
            if n.is_multiple_of(10_000) {
                runtime.block_on(recorder.flush(LONG)).expect("written");
            }
        }
    });
}

fn egressctl(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egressctl"));
    command.arg("audit").args(arguments).arg("--file").arg(file);
    command
}

fn output(arguments: &[&str], file: &Path) -> Output {
    egressctl(arguments, file).output().expect("it starts")
}

fn text(arguments: &[&str], file: &Path) -> String {
    let output = output(arguments, file);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn groups_are_shown_as_a_table_and_as_json() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.db");
    fill(&file, 5);
    let table = text(&["query", "--group-by", "sandbox,verdict"], &file);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows,
        [
            ["SANDBOX", "VERDICT", "COUNT", "RECORDS", "FIRST", "LAST"],
            [
                "test",
                "allow",
                "3",
                "3",
                "2026-11-20T08:00:01Z",
                "2026-11-20T08:00:05Z"
            ],
            [
                "build",
                "deny",
                "2",
                "2",
                "2026-11-20T08:00:02Z",
                "2026-11-20T08:00:04Z"
            ],
        ]
    );
    let json = text(
        &[
            "query",
            "--group-by",
            "reason",
            "--verdict",
            "deny",
            "-o",
            "json",
        ],
        &file,
    );
    let document: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(document["kind"], "AuditGroups");
    assert_eq!(document["groups"][0]["by"]["reason"], "no_rule");
    assert_eq!(document["groups"][0]["count"], 2);
    let refused = output(&["query", "--group-by", "colour"], &file);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("sandbox, policy"),
        "the names are told: {said}"
    );
}

#[test]
fn exports_are_whole_in_every_format_and_hold_what_was_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.db");
    fill(&file, 6);
    // The checkpoint that signs all six stands behind them where lines are linked.
    for (format, heading, proof) in [
        ("jsonl", 0, 1),
        ("csv", 1, 0),
        ("ocsf", 0, 0),
        ("ecs", 0, 0),
        ("cef", 0, 0),
    ] {
        let exported = text(
            &["export", "--format", format, "--from", "2026-11-20"],
            &file,
        );
        assert_eq!(
            exported.lines().count(),
            6 + heading + proof,
            "{format}: {exported}"
        );
        assert!(exported.ends_with('\n'), "{format}");
        let first = exported.lines().nth(heading).expect("a record");
        assert!(
            first.contains("host1.example.com"),
            "the earliest first: {first}"
        );
        let part = text(
            &[
                "export",
                "--format",
                format,
                "--sandbox",
                "build",
                "--to",
                "2026-11-20T08:00:05Z",
            ],
            &file,
        );
        assert_eq!(part.lines().count(), 2 + heading, "{format}: {part}");
    }
    let refused = output(&["export", "--format", "pdf"], &file);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn an_export_that_is_interrupted_ends_with_a_whole_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.db");
    fill(&file, 20_000);
    let mut export = egressctl(&["export", "--format", "ecs"], &file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = export.stdout.take().expect("a pipe");
    // It now writes into a pipe that nobody empties.
    let mut first = [0; 1];
    out.read_exact(&mut first).expect("a record");
    let pid = Pid::from_raw(export.id().try_into().expect("a pid")).expect("a pid");
    kill_process(pid, Signal::INT).expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("read");
    let status = export.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(rest.last(), Some(&b'\n'));
    let lines = rest.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines < 20_000, "it was not interrupted: {lines}");
    let last = rest[..rest.len() - 1]
        .rsplit(|byte| *byte == b'\n')
        .next()
        .expect("a line");
    let event: Value = serde_json::from_slice(last).expect("a whole event");
    assert_eq!(event["ecs"]["version"], "8.11.0");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.db");
    fill(&file, 20_000);
    let mut export = egressctl(&["export", "--format", "jsonl"], &file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(export.stdout.take());
    let output = export.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_follower_shows_the_latest_and_then_everything_that_comes_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.db");
    with_store(&file, |recorder, runtime| {
        for n in 1..=4 {
            recorder.record(record(n));
        }
        runtime.block_on(recorder.flush(LONG)).expect("written");
        let arguments = [
            "query",
            "--follow",
            "--limit",
            "2",
            "-o",
            "jsonl",
            "--sandbox",
            "build",
        ];
        let mut follower = egressctl(&arguments, &file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
        let mut next = || -> String {
            let line = lines.next().expect("a line").expect("text");
            let record: Value = serde_json::from_str(&line).expect("JSON");
            record["name"].as_str().expect("a name").to_owned()
        };
        assert_eq!(next(), "host2.example.com");
        assert_eq!(next(), "host4.example.com");
        // One that happened before, and is stored later.
        recorder.record(record(0));
        recorder.record(record(5));
        recorder.record(record(6));
        runtime.block_on(recorder.flush(LONG)).expect("written");
        assert_eq!(next(), "host0.example.com");
        assert_eq!(next(), "host6.example.com");
        follower.kill().expect("it runs");
        follower.wait().expect("it ends");
    });
    let refused = output(&["query", "--follow", "-o", "json"], &file);
    assert_eq!(refused.status.code(), Some(2));
}
