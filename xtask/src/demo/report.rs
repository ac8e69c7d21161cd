//! The table at the end of the demo.

use super::attempts::{Attempt, Expectation};
use comfy_table::{ContentArrangement, Table, presets};
use egress_common::Reason;
use serde_json::Value;
use std::fmt;
use std::path::Path;
use std::process::Output;

/// How wide the table is where no terminal says how wide it may be.
const WIDTH: u16 = 100;

/// One attempt, as the table shows it.
pub struct Row {
    tried: String,
    happened: String,
    why: String,
    as_expected: bool,
}

/// All attempts.
pub struct Report {
    rows: Vec<Row>,
    /// Whether a sniffer judged.
    judged: bool,
}

impl Row {
    /// Tells what became of an attempt: what its client said last, what the
    /// audit store says about it, and what the sniffer saw where it should not.
    pub fn new(
        attempt: &Attempt,
        output: &Output,
        as_expected: bool,
        escaped: Option<usize>,
        records: &[Value],
    ) -> Self {
        let wanted = if attempt.expectation == Expectation::Works {
            "allow"
        } else {
            "deny"
        };
        // What failed without a record of it failed for another reason.
        let why = why(records, wanted);
        let outcome = match (attempt.expectation, as_expected, &why) {
            (Expectation::Works, true, _) => "reached",
            (Expectation::Works, false, _) => "NOT REACHED",
            (Expectation::Fails | Expectation::Says(_), false, _) => "NOT REFUSED",
            (Expectation::Fails | Expectation::Says(_), true, Some(_)) => "refused",
            (Expectation::Fails | Expectation::Says(_), true, None) => "NOT JUDGED",
        };
        let leak = escaped.filter(|&count| count > 0);
        let mut happened = format!("{outcome}: {}", said(attempt, output));
        if let Some(count) = leak {
            happened.push_str(&format!("; {count} PACKETS ESCAPED"));
        }
        Self {
            tried: attempt.what.clone(),
            happened,
            as_expected: as_expected && leak.is_none() && why.is_some(),
            why: why.unwrap_or_else(|| "no record".to_owned()),
        }
    }
}

impl Report {
    /// A report in which a sniffer judges, or not.
    pub fn new(judged: bool) -> Self {
        Self {
            rows: Vec::new(),
            judged,
        }
    }

    /// Adds the next attempt, and shows that it is done.
    pub fn add(&mut self, row: Row) {
        let mark = if row.as_expected { "✓" } else { "✗" };
        eprintln!("{mark} {}", row.tried);
        self.rows.push(row);
    }

    /// How many did not end as they should.
    pub fn surprises(&self) -> usize {
        self.rows.iter().filter(|row| !row.as_expected).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(terminal_width().unwrap_or(WIDTH))
            .set_header(["tried", "what happened", "why (from the audit store)"]);
        for row in &self.rows {
            table.add_row([&row.tried, &row.happened, &row.why]);
        }
        writeln!(f, "\n{table}\n")?;
        if self.judged && self.surprises() == 0 {
            writeln!(
                f,
                "A sniffer on the far side saw no packet to anything but the allowed server\n\
                 and the agent's own upstream resolver."
            )?;
        }
        Ok(())
    }
}

/// The width of the terminal behind standard output.
fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|&columns| columns > 0)
}

/// What the client said: the words that were waited for, else its last line,
/// else its exit status.
fn said(attempt: &Attempt, output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = match attempt.expectation {
        Expectation::Says(text) => stdout
            .split([',', '\n'])
            .find(|part| part.to_lowercase().contains(text)),
        Expectation::Works | Expectation::Fails => None,
    };
    let line = expected
        .or_else(|| last_line(&stderr))
        .or_else(|| last_line(&stdout));
    line.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned())
}

fn last_line(text: &str) -> Option<&str> {
    text.lines()
        .map(str::trim)
        .rev()
        .find(|line| !line.is_empty())
}

/// The reason in the newest record whose verdict is the wanted one. What a
/// packet met tells more than what a name did.
fn why(records: &[Value], wanted: &str) -> Option<String> {
    let decided = |kind: &str| {
        let of_kind = |record: &&Value| record["kind"] == kind && record["verdict"] == wanted;
        records.iter().rfind(of_kind)
    };
    let record = decided("flow").or_else(|| decided("dns"))?;
    let text = |key: &str| record[key].as_str();
    if let Some(reason) = text("reason") {
        let known = Reason::ALL.iter().find(|known| known.name() == reason);
        return Some(match known {
            Some(known) => format!("{} ({reason})", known.sentence()),
            None => reason.to_owned(),
        });
    }
    let rule = &record["rule"];
    let file = rule["file"].as_str().unwrap_or("?");
    let file = Path::new(file).file_name().unwrap_or_default();
    Some(format!(
        "{}:{} allows {}",
        file.to_string_lossy(),
        rule["line"],
        text("name").or(text("address")).unwrap_or("it")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_packet_met_is_told_before_what_a_name_did() {
        let records = [
            json!({"kind": "flow", "verdict": "deny", "reason": "lapsed_grant"}),
            json!({"kind": "flow", "verdict": "deny", "reason": "no_rule"}),
            json!({"kind": "dns", "verdict": "deny", "reason": "name_not_allowed"}),
            json!({"kind": "sandbox", "verdict": null}),
        ];
        assert_eq!(
            why(&records, "deny"),
            Some(format!("{} (no_rule)", Reason::NoRule.sentence()))
        );
        assert_eq!(
            why(&records[2..], "deny"),
            Some(format!(
                "{} (name_not_allowed)",
                Reason::NameNotAllowed.sentence()
            ))
        );
        assert_eq!(why(&records, "allow"), None);
    }

    #[test]
    fn a_rule_shows_as_file_and_line() {
        let record = json!({"kind": "flow", "verdict": "allow", "name": "a.example",
                            "rule": {"file": "/tmp/x/demo.yaml", "line": 8}});
        let told = why(&[record], "allow");
        assert_eq!(told.as_deref(), Some("demo.yaml:8 allows a.example"));
    }
}
