//! Exports that prove themselves and reports, from the command line, judged by
//! programs of others: Python's own JSON, SQLite and XML.

use egress_agent::audit::{CheckpointRule, Options, Store};
use egress_agent::model::{Record, RecordKind, ResourceUse};
use egress_common::{Outcome, Reason};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// Far more than any of these needs, so that only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

const RECORDS: u32 = 100;

/// The `n`th record, a minute after the one before.
fn record(n: u32) -> Record {
    let begun = Timestamp::now() - SignedDuration::from_hours(3);
    let base = Record::new(
        begun + SignedDuration::from_mins(i64::from(n)),
        RecordKind::Flow,
    );
    let denied = n.is_multiple_of(4);
    Record {
        sandbox: Some(if denied { "build" } else { "test" }.to_owned()),
        name: Some(format!("host{n}.example.com")),
        command: Some("é<b>\u{9b}\"".to_owned()),
        port: Some(443),
        protocol: Some("tcp".to_owned()),
        outcome: Some(if denied {
            Outcome::Denied
        } else {
            Outcome::Allowed
        }),
        reason: denied.then_some(Reason::NoRule),
        usage: (n == 7).then(|| {
            Box::new(ResourceUse {
                cpu_us: Some(5),
                ..ResourceUse::default()
            })
        }),
        ..base
    }
}

/// A store whose every sixteenth record is signed; its directory goes with it.
fn filled() -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("audit.db");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let options = Options {
        checkpoints: CheckpointRule {
            records: 16,
            ..CheckpointRule::default()
        },
        batch: 8,
        ..Options::default()
    };
    runtime.block_on(async {
        let store = Store::open_with(&file, options).await.expect("a store");
        for n in 1..=RECORDS {
            store.recorder().record(record(n));
        }
        store.close(LONG).await.expect("all written");
    });
    (directory, file)
}

fn egressctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_egressctl"))
        .args(arguments)
        .output()
        .expect("it starts")
}

#[track_caller]
fn text(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &errors
}

fn python(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .args(arguments)
        .output()
        .expect("python3 is installed");
    text(&output, 0)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Exports, keeps the lines and the keys, and takes the store away.
fn exported(conditions: &[&str]) -> (TempDir, PathBuf, PathBuf) {
    let (directory, file) = filled();
    let arguments = [
        &[
            "audit",
            "export",
            "--format",
            "jsonl",
            "--file",
            path(&file),
        ],
        conditions,
    ];
    let output = egressctl(&arguments.concat());
    let lines = text(&output, 0);
    let (export, keys) = (
        directory.path().join("export.jsonl"),
        directory.path().join("keys"),
    );
    fs::write(&export, &lines).expect("written");
    let key = egressctl(&["audit", "key", "--file", path(&file)]);
    fs::write(&keys, text(&key, 0)).expect("written");
    for name in ["audit.db", "audit.pub", "audit.key", "audit.checkpoint"] {
        fs::remove_file(directory.path().join(name)).expect("removed");
    }
    (directory, export, keys)
}

fn verify(export: &Path, keys: &Path, more: &[&str]) -> Output {
    let arguments = [
        &[
            "audit",
            "verify",
            "--export",
            path(export),
            "--public-key",
            path(keys),
        ],
        more,
    ];
    egressctl(&arguments.concat())
}

#[test]
fn an_export_is_verified_without_its_store_and_every_edit_is_named() {
    let (directory, export, keys) = exported(&[]);
    let said = text(&verify(&export, &keys, &[]), 0);
    assert!(said.contains("100 records verified, 0 without"), "{said}");
    assert!(said.contains("cover 100 of them"), "{said}");
    let lines: Vec<String> = fs::read_to_string(&export)
        .expect("read")
        .lines()
        .map(str::to_owned)
        .collect();
    // Every field of a record is there, and its place beside it.
    let first: Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(first["apiVersion"], "egress/v1");
    assert_eq!(first["chain"]["sequence"], 1);
    assert_eq!(first["labels"], serde_json::json!({}));
    assert!(first.as_object().expect("an object").contains_key("task"));

    let altered = directory.path().join("altered.jsonl");
    let edit = |program: &str| {
        // Python reads, changes and writes: whatever its spelling of JSON is.
        let whole = format!(
            "import json, sys\nlines = [json.loads(l) for l in open(sys.argv[1])]\n{program}\n\
             open(sys.argv[2], 'w').write(''.join(json.dumps(l) + '\\n' for l in lines))\n"
        );
        python(&whole, &[&export, &altered]);
        verify(&altered, &keys, &[])
    };
    text(&edit("pass"), 0);
    for (program, named) in [
        (
            "lines[41]['verdict'] = 'allow'; lines[41]['sandbox'] = 'x'",
            "record 42 is not what",
        ),
        ("lines[41]['count'] = 2", "record 42 is not what"),
        ("lines[41]['detail'] = 'new'", "record 42 is not what"),
        ("lines[6]['usage']['cpu_us'] = 6", "record 7 is not what"),
        ("del lines[9]", "records 10 to 10 are missing"),
        ("lines[9]['sequence'] = 500", "record 10 is not what"),
        ("lines[9]['chain']['time'] += 1", "record 10 is not what"),
        (
            "lines[9], lines[10] = dict(lines[10], chain=lines[9]['chain']), lines[9]",
            "record 10 is not what",
        ),
        (
            "lines[-1]['checkpoint'] = lines[-1]['checkpoint'].replace('egress-audit', 'other')",
            "the checkpoint is not the node's",
        ),
    ] {
        let said = text(&edit(program), 7);
        assert!(said.contains(named), "{program}: {said}");
    }
}

#[test]
fn an_export_with_conditions_proves_what_it_has() {
    let (_directory, export, keys) = exported(&["--sandbox", "build"]);
    let said = text(&verify(&export, &keys, &[]), 7);
    assert!(said.contains("are missing"), "{said}");
    let said = text(&verify(&export, &keys, &["--filtered"]), 0);
    assert!(said.contains("25 records verified"), "{said}");
    let altered = fs::read_to_string(&export)
        .expect("read")
        .replace("host40.", "host41.");
    fs::write(&export, altered).expect("written");
    let said = text(&verify(&export, &keys, &["--filtered"]), 7);
    assert!(said.contains("record 40 is not what"), "{said}");
}

/// Reads a page as XML, which forgives nothing, and prints what it found.
const JUDGE: &str = r#"
import json, sys, xml.etree.ElementTree as tree
text = open(sys.argv[1], encoding="utf-8").read()
head, body = text.split("\n", 1)
assert head == "<!DOCTYPE html>", head
root = tree.fromstring(body)
tags, attributes, cells = set(), set(), []
for element in root.iter():
    tags.add(element.tag)
    attributes.update(element.attrib)
    if element.tag in ("td", "p", "b"):
        cells.append("".join(element.itertext()))
print(json.dumps({"tags": sorted(tags), "attributes": sorted(attributes), "cells": cells}))
"#;

#[test]
fn a_report_counts_what_happened_and_its_page_is_well_formed() {
    let (directory, file) = filled();
    let output = egressctl(&[
        "report",
        "--file",
        path(&file),
        "--since",
        "1d",
        "-o",
        "json",
    ]);
    let report: Value = serde_json::from_str(&text(&output, 0)).expect("JSON");
    assert_eq!(report["apiVersion"], "egress/v1");
    assert_eq!(report["kind"], "EvidenceReport");
    assert_eq!(report["verification"]["good"], true);
    assert_eq!(report["verification"]["records"], 100);
    assert_eq!(report["totals"]["allowed"], 75);
    assert_eq!(report["totals"]["denied"], 25);
    assert_eq!(report["reasons"]["lines"][0]["what"], "no_rule");
    assert_eq!(report["sandboxes"]["lines"][0]["name"], "test");
    // 50 of 75 lines are shown, and the rest is told.
    assert_eq!(report["allowed"]["left_out"], 25);

    let page = directory.path().join("page.html");
    let output = egressctl(&["report", "--file", path(&file), "--since", "1d"]);
    fs::write(&page, text(&output, 0)).expect("written");
    let seen: Value = serde_json::from_str(&python(JUDGE, &[&page])).expect("JSON");
    let tags = seen["tags"].as_array().expect("tags");
    assert!(
        tags.contains(&"table".into()) && tags.contains(&"svg".into()),
        "{tags:?}"
    );
    for forbidden in ["script", "link", "img", "iframe", "a", "object"] {
        assert!(!tags.contains(&forbidden.into()), "{forbidden}");
    }
    let cells = seen["cells"].as_array().expect("cells");
    for text in [
        "Every record is as it was written",
        "host4.example.com:443/tcp",
        "no_rule",
        "75",
        "25",
    ] {
        assert!(cells.contains(&text.into()), "{text} in {cells:?}");
    }

    // A period without anything is told as such; one that has no time is refused.
    let output = egressctl(&[
        "report",
        "--file",
        path(&file),
        "--since",
        "2020-01-01",
        "--until",
        "2020-02-01",
        "-o",
        "json",
    ]);
    let report: Value = serde_json::from_str(&text(&output, 0)).expect("JSON");
    assert_eq!(report["totals"]["records"], 0);
    assert_eq!(report["verification"]["records"], 100);
    let output = egressctl(&[
        "report",
        "--file",
        path(&file),
        "--since",
        "now",
        "--until",
        "1d",
    ]);
    text(&output, 2);
}

#[test]
fn a_report_on_altered_records_says_which_and_fails() {
    let (_directory, file) = filled();
    python(
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\n\
         c.execute(\"UPDATE records SET body = replace(body, 'host50', 'host51') WHERE sequence = 50\")\nc.commit()",
        &[&file],
    );
    let output = egressctl(&[
        "report",
        "--file",
        path(&file),
        "--since",
        "1d",
        "-o",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(7));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["verification"]["good"], false);
    let finding = report["verification"]["finding"]
        .as_str()
        .expect("a finding");
    assert!(finding.contains("record 50"), "{finding}");
    // What is behind it is counted all the same.
    assert_eq!(report["totals"]["records"], 100);
}
