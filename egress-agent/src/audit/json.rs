//! Records for programs.

use crate::audit::StoredRecord;
use serde::Serialize;

/// The version of the shape below. Fields may be added under one version;
/// nothing is renamed, removed or given another meaning.
pub const API_VERSION: &str = "egress/v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    records: &'a [StoredRecord],
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    #[serde(flatten)]
    record: &'a StoredRecord,
}

/// One JSON document with all records.
pub fn render_json(records: &[StoredRecord]) -> Result<String, serde_json::Error> {
    let document = Document {
        api_version: API_VERSION,
        kind: "AuditRecords",
        records,
    };
    serde_json::to_string_pretty(&document).map(|text| inert(&text))
}

/// One line of JSON per record, each complete in itself.
pub fn render_json_lines(records: &[StoredRecord]) -> Result<String, serde_json::Error> {
    let mut lines = String::new();
    for record in records {
        write_json_line(record, &mut lines)?;
    }
    Ok(lines)
}

/// Adds one record as a line of JSON.
pub fn write_json_line(record: &StoredRecord, to: &mut String) -> Result<(), serde_json::Error> {
    let line = serde_json::to_string(&Line {
        api_version: API_VERSION,
        record,
    })?;
    // Most lines are plain, and an export has millions of them.
    if line.is_ascii() && !line.contains('\u{7f}') {
        to.push_str(&line);
    } else {
        to.push_str(&inert(&line));
    }
    to.push('\n');
    Ok(())
}

/// Escapes the control characters that JSON lets through (DEL and U+0080 to
/// U+009F): sandboxes choose names that end up on an operator's terminal. They
/// can only stand inside strings, where the escape means the same.
pub fn inert(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::stored::tests::sample;
    use serde_json::Value;

    #[test]
    fn the_document_is_as_documented() {
        insta::assert_snapshot!(render_json(&[sample()]).expect("JSON"), @r#"
        {
          "apiVersion": "egress/v1",
          "kind": "AuditRecords",
          "records": [
            {
              "id": "01937b1c-4a00-7000-8000-000000000000",
              "node": "host-1",
              "sequence": 12,
              "time": "2026-11-20T08:30:00Z",
              "kind": "flow",
              "sandbox_id": 3,
              "sandbox": "build",
              "policy": "ci",
              "relaxations": [
                "ptrace"
              ],
              "task": "T-17",
              "session": null,
              "project": null,
              "on_behalf_of": null,
              "labels": {},
              "process": 4242,
              "command": "curl",
              "user": 1000,
              "hook": "connect",
              "address": "203.0.113.7",
              "address_hash": null,
              "port": 443,
              "protocol": "tcp",
              "name": "api.example.com",
              "name_hash": null,
              "query_type": null,
              "upstream": null,
              "cache": null,
              "latency_us": null,
              "rule": {
                "file": "/etc/egress/policies.d/ci.yaml",
                "line": 7,
                "text": "domain api.example.com"
              },
              "verdict": "deny",
              "reason": "lapsed_grant",
              "actor": null,
              "digest": null,
              "diff": null,
              "usage": null,
              "count": 41,
              "detail": null
            }
          ]
        }
        "#);
    }

    #[test]
    fn each_line_is_complete_and_reads_back_as_the_record() {
        let lines = render_json_lines(&[sample(), sample()]).expect("JSON");
        assert_eq!(lines.lines().count(), 2);
        for line in lines.lines() {
            let value: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(value["apiVersion"], API_VERSION);
            let record: StoredRecord = serde_json::from_value(value).expect("a record");
            assert_eq!(record, sample());
        }
    }

    #[test]
    fn control_characters_are_escaped_and_mean_the_same() {
        let hostile = StoredRecord {
            command: Some("\u{1b}[2J\u{9b}2J\u{7f}é".to_owned()),
            ..sample()
        };
        let json = render_json_lines(std::slice::from_ref(&hostile)).expect("JSON");
        assert!(json.trim_end().chars().all(|c| !c.is_control()), "{json:?}");
        let back: StoredRecord = serde_json::from_str(&json).expect("a record");
        assert_eq!(back, hostile);
    }
}
