//! Records for people.

use crate::audit::StoredRecord;
use comfy_table::{Table, presets};
use egress_common::Reason;
use std::net::SocketAddr;

/// The columns.
const HEADER: [&str; 5] = ["TIME", "SANDBOX", "VERDICT", "WHAT", "PROCESS"];

/// One row per record: when, who, what came of it, where to, from which
/// process. Below it, indented, why, what would allow it, and by which rule:
/// sentences are too long for a column. Times are UTC.
pub fn render_table(records: &[StoredRecord]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADER);
    for record in records {
        table.add_row(cells(record).map(|text| inert(&text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // No cell has a line break, so rows and lines agree.
    let rows = table.trim_fmt();
    let mut rows = rows.lines();
    let mut text = String::new();
    text.push_str(rows.next().unwrap_or_default());
    for (row, record) in rows.zip(records) {
        text.push('\n');
        text.push_str(row);
        // A refused policy is told in several lines.
        for line in notes(record).iter().flat_map(|note| note.lines()) {
            text.push_str("\n    ");
            text.push_str(&inert(line));
        }
    }
    text
}

fn cells(record: &StoredRecord) -> [String; 5] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let sandbox = record.sandbox.clone();
    let sandbox = sandbox.or_else(|| record.sandbox_id.map(|id| format!("#{id}")));
    [
        format!("{:.3}", record.time),
        or_dash(sandbox),
        record
            .verdict
            .clone()
            .unwrap_or_else(|| record.kind.clone()),
        what(record),
        or_dash(process(record)),
    ]
}

/// `api.example.com 203.0.113.7:443/tcp`, `A api.example.com`, with `×41` when
/// the record stands for more than one.
fn what(record: &StoredRecord) -> String {
    let protocol = record.protocol.as_deref();
    let place = match (record.address, record.port) {
        (Some(address), Some(port)) if port != 0 => {
            Some(SocketAddr::new(address, port).to_string())
        }
        (Some(address), _) => Some(address.to_string()),
        (None, _) => None,
    };
    let place = match (place, protocol) {
        (Some(place), Some(protocol)) => Some(format!("{place}/{protocol}")),
        (place, _) => place,
    };
    let count = (record.count > 1).then(|| format!("×{}", record.count));
    let parts = [record.query_type.clone(), record.name.clone(), place, count];
    let text: Vec<_> = parts.into_iter().flatten().collect();
    if !text.is_empty() {
        return text.join(" ");
    }
    // Where the verdict does not stand for the kind, the kind is what it is about.
    let kind = record.verdict.as_ref().map(|_| record.kind.clone());
    record
        .hook
        .clone()
        .or(kind)
        .unwrap_or_else(|| "-".to_owned())
}

/// The reason's sentence, the detail, and the rule.
fn notes(record: &StoredRecord) -> Vec<String> {
    let reason = record.reason.as_deref().map(|name| {
        Reason::ALL
            .iter()
            .find(|reason| reason.name() == name)
            .map_or(name, |reason| reason.sentence())
    });
    let detail = record.detail.as_deref();
    // Some details say the sentence with more to it.
    let reason = reason.filter(|reason| !detail.is_some_and(|detail| detail.starts_with(reason)));
    let rule = record.rule.as_ref().map(|rule| match &rule.text {
        Some(text) => format!("rule {}:{} ({text})", rule.file, rule.line),
        None => format!("rule {}:{}", rule.file, rule.line),
    });
    let notes = [reason.map(str::to_owned), detail.map(str::to_owned), rule];
    notes.into_iter().flatten().collect()
}

fn process(record: &StoredRecord) -> Option<String> {
    match (&record.command, record.process) {
        (Some(command), Some(process)) => Some(format!("{command}[{process}]")),
        (None, Some(process)) => Some(format!("[{process}]")),
        (Some(command), None) => Some(command.clone()),
        (None, None) => None,
    }
}

/// Escapes control characters and marks that turn the reading direction:
/// sandboxes choose names and commands that end up on an operator's terminal.
fn inert(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::stored::tests::sample;

    #[test]
    fn a_denial_reads_from_left_to_right() {
        let refused = StoredRecord {
            detail: Some("repeats since 08:29:51".to_owned()),
            ..sample()
        };
        insta::assert_snapshot!(render_table(&[refused]), @r"
        TIME                      SANDBOX  VERDICT  WHAT                                     PROCESS
        2026-11-20T08:30:00.000Z  build    deny     api.example.com 203.0.113.7:443/tcp ×41  curl[4242]
            the resolver's grant for this address has lapsed; resolve the name again
            repeats since 08:29:51
            rule /etc/egress/policies.d/ci.yaml:7 (domain api.example.com)
        ");
    }

    #[test]
    fn a_detail_that_says_the_reason_stands_alone() {
        let detail = format!(
            "{} (192.0.2.53:53: no answer)",
            Reason::UpstreamFailed.sentence()
        );
        let silent = StoredRecord {
            reason: Some("upstream_failed".to_owned()),
            detail: Some(detail.clone()),
            rule: None,
            ..sample()
        };
        let notes: Vec<String> = render_table(&[silent])
            .lines()
            .skip(2)
            .map(str::to_owned)
            .collect();
        assert_eq!(notes, [format!("    {detail}")]);
    }

    #[test]
    fn what_is_unknown_is_a_dash_and_what_is_no_decision_shows_its_kind() {
        let loss = StoredRecord {
            kind: "loss".to_owned(),
            verdict: None,
            reason: None,
            sandbox: None,
            address: None,
            port: None,
            protocol: None,
            name: None,
            hook: None,
            rule: None,
            command: None,
            process: None,
            detail: Some("7 in all".to_owned()),
            ..sample()
        };
        let table = render_table(&[loss]);
        let line: Vec<_> = table
            .lines()
            .nth(1)
            .expect("a row")
            .split_whitespace()
            .collect();
        assert_eq!(line, ["2026-11-20T08:30:00.000Z", "#3", "loss", "×41", "-"]);
    }

    #[test]
    fn nothing_that_a_sandbox_chose_can_steer_the_terminal() {
        let hostile = StoredRecord {
            command: Some("\u{1b}]0;owned\u{7}\n\u{9b}2J\u{202e}".to_owned()),
            ..sample()
        };
        let table = render_table(&[hostile]);
        assert_eq!(
            table.lines().count(),
            4,
            "a row, why and the rule: {table:?}"
        );
        assert!(
            table.chars().all(|c| c == '\n' || !c.is_control()),
            "{table:?}"
        );
        assert!(table.contains("\\u{1b}]0;owned"), "{table:?}");
        assert!(table.contains("\\u{202e}"), "{table:?}");
    }
}
