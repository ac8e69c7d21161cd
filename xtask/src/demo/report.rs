//! The table at the end of the demo.

use super::attempts::{Attempt, Expectation};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::fmt;
use std::process::Output;

/// One attempt, as the table shows it.
pub struct Row {
    tried: String,
    happened: String,
    why: String,
    as_expected: bool,
}

/// All attempts.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
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
        let said = last_line(&output.stderr).or_else(|| last_line(&output.stdout));
        let outcome = match (attempt.expectation, as_expected) {
            (Expectation::Works, true) => "reached",
            (Expectation::Works, false) => "NOT REACHED",
            (Expectation::Fails | Expectation::Says(_), true) => "refused",
            (Expectation::Fails | Expectation::Says(_), false) => "NOT REFUSED",
        };
        let leak = escaped.filter(|&count| count > 0);
        let mut happened = outcome.to_owned();
        if let Some(said) = said.filter(|_| attempt.expectation != Expectation::Works) {
            happened.push_str(&format!(": {said}"));
        }
        if let Some(count) = leak {
            happened.push_str(&format!("; {count} PACKETS ESCAPED"));
        }
        let wanted = if attempt.expectation == Expectation::Works {
            "allow"
        } else {
            "deny"
        };
        Self {
            tried: attempt.what.clone(),
            happened,
            why: reason(records, wanted),
            as_expected: as_expected && leak.is_none(),
        }
    }
}

impl Report {
    /// Adds the next attempt, and shows that it is done.
    pub fn add(&mut self, row: Row) {
        let mark = if row.as_expected { "✓" } else { "✗" };
        println!("{mark} {}", row.tried);
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
            .set_header(["tried", "what happened", "why (from the audit store)"]);
        for row in &self.rows {
            table.add_row([&row.tried, &row.happened, &row.why]);
        }
        write!(f, "\n{table}")
    }
}

/// The explanation in the newest record whose verdict is the wanted one, or in
/// the newest that explains anything.
fn reason(records: &[Value], wanted: &str) -> String {
    let decided: Vec<&Value> = records
        .iter()
        .filter(|record| record["verdict"].is_string())
        .collect();
    let of_verdict = |record: &&&Value| {
        record["verdict"]
            .as_str()
            .is_some_and(|verdict| verdict == wanted)
    };
    let Some(record) = decided.iter().rev().find(of_verdict).or(decided.last()) else {
        return "no record".to_owned();
    };
    let text = |key: &str| record[key].as_str().map(str::to_owned);
    let rule = match &record["rule"] {
        Value::Null => None,
        Value::String(rule) => Some(rule.clone()),
        rule => Some(format!(
            "{}:{}",
            rule["file"].as_str().unwrap_or("?"),
            rule["line"]
        )),
    };
    let parts = [
        text("reason"),
        text("name"),
        text("address").map(|address| match record["port"].as_u64() {
            Some(port) => format!("{address} port {port}"),
            None => address,
        }),
        rule.map(|rule| format!("rule {rule}")),
        text("detail"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_reason_is_the_newest_record_of_the_wanted_verdict() {
        let records = [
            json!({"kind": "dns", "verdict": "deny", "reason": "name_not_allowed",
                   "name": "forbidden.example"}),
            json!({"kind": "flow", "verdict": "allow", "address": "203.0.113.10", "port": 80}),
            json!({"kind": "sandbox"}),
        ];
        assert_eq!(
            reason(&records, "deny"),
            "name_not_allowed, forbidden.example"
        );
        assert_eq!(reason(&records, "allow"), "203.0.113.10 port 80");
        assert_eq!(reason(&[], "deny"), "no record");
    }

    #[test]
    fn a_rule_shows_as_file_and_line() {
        let record = json!({"verdict": "allow", "rule": {"file": "demo.yaml", "line": 8}});
        assert_eq!(reason(&[record], "allow"), "rule demo.yaml:8");
    }
}
