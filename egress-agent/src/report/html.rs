//! The report as one page that needs nothing else.
//!
//! Names, commands and details are chosen by what ran in sandboxes: the template
//! escapes every one of them, and control characters and marks that turn the
//! reading direction are written out.

use super::{Entry, Line, List, Report, Step, Table};
use crate::audit::to_terminal;
use crate::model::ResourceUse;
use askama::Template;
use jiff::Timestamp;

/// Of the chart, in its own units.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 160.0;

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    about: Vec<String>,
    good: bool,
    verdict: String,
    worth: Vec<String>,
    numbers: Vec<Number>,
    bars: Vec<Bar>,
    first_step: String,
    last_step: String,
    sections: Vec<Section>,
}

struct Number {
    what: &'static str,
    value: String,
}

/// One step of the chart: what was allowed stands on the line, the rest on it.
struct Bar {
    title: String,
    x: String,
    width: String,
    allowed: String,
    allowed_y: String,
    denied: String,
    denied_y: String,
}

struct Section {
    title: &'static str,
    columns: Vec<Column>,
    rows: Vec<Row>,
    note: Option<String>,
}

struct Column {
    name: &'static str,
    number: bool,
}

struct Row {
    cells: Vec<Cell>,
    pre: Option<String>,
}

struct Cell {
    text: String,
    number: bool,
}

/// Writes the page.
pub fn render_html(report: &Report) -> Result<String, askama::Error> {
    let verification = &report.verification;
    let (verdict, worth) = worth(report);
    let name = |step: Option<&Step>| step.map_or_else(String::new, |step| step.day.to_string());
    Page {
        title: format!("Egress report of {}", to_terminal(&report.node)),
        about: vec![
            format!(
                "From {} to {} (not included), times in UTC.",
                second(report.period.since),
                second(report.period.until)
            ),
            format!(
                "Chain {}; made by {} on {}.",
                report.chain,
                report.made_by,
                second(report.made)
            ),
        ],
        good: verification.good,
        verdict,
        worth,
        numbers: numbers(report),
        bars: bars(&report.activity),
        first_step: name(report.activity.first()),
        last_step: name(report.activity.last()),
        sections: sections(report),
    }
    .render()
}

fn worth(report: &Report) -> (String, Vec<String>) {
    let verified = &report.verification;
    let mut worth = Vec::new();
    let verdict = match &verified.finding {
        Some(finding) => {
            worth.push(to_terminal(finding));
            worth.push("What this page tells was read all the same; it is no evidence.".to_owned());
            "The evidence was altered".to_owned()
        }
        None => {
            worth.push(format!(
                "{} records followed from the first to the last, {} of them erased by retention; {} signed checkpoints agree.",
                grouped(verified.records),
                grouped(verified.erased),
                grouped(verified.checkpoints)
            ));
            if verified.signed < verified.last {
                worth.push(format!(
                    "Records {} to {} are not signed yet.",
                    verified.signed + 1,
                    verified.last
                ));
            }
            "Every record is as it was written".to_owned()
        }
    };
    if !verified.keys_given {
        worth.push(
            "The public keys are those that lie beside the audit file: whoever could replace the file could replace them."
                .to_owned(),
        );
    }
    (verdict, worth)
}

fn numbers(report: &Report) -> Vec<Number> {
    let totals = &report.totals;
    [
        ("allowed", totals.decisions.allowed),
        ("refused", totals.decisions.denied),
        ("would be refused", totals.decisions.would_deny),
        ("names asked for", totals.queries),
        ("sandboxes ended", totals.sandboxes_ended),
        ("limits met", totals.limits_met),
        ("alerts", totals.alerts),
        ("not recorded", totals.lost),
        ("records", totals.records),
        ("of them erased by retention", totals.erased),
        ("unreadable", totals.unreadable),
    ]
    .into_iter()
    .map(|(what, value)| Number {
        what,
        value: grouped(value),
    })
    .collect()
}

fn bars(steps: &[Step]) -> Vec<Bar> {
    let refused = |step: &Step| {
        step.decisions
            .denied
            .saturating_add(step.decisions.would_deny)
    };
    let most = steps.iter().map(|step| step.decisions.all()).max();
    let Some(most) = most.filter(|most| *most > 0) else {
        return Vec::new();
    };
    let slot = WIDTH / steps.len() as f64;
    let height = |count: u64| count as f64 / most as f64 * (HEIGHT - 10.0);
    let bar = |(at, step): (usize, &Step)| {
        let (allowed, denied) = (height(step.decisions.allowed), height(refused(step)));
        Bar {
            title: format!(
                "{}: {} allowed, {} refused",
                step.day,
                grouped(step.decisions.allowed),
                grouped(refused(step))
            ),
            x: format!("{:.1}", at as f64 * slot),
            width: format!("{:.1}", (slot * 0.85).max(0.5)),
            allowed: format!("{allowed:.1}"),
            allowed_y: format!("{:.1}", HEIGHT - allowed),
            denied: format!("{denied:.1}"),
            denied_y: format!("{:.1}", HEIGHT - allowed - denied),
        }
    };
    steps.iter().enumerate().map(bar).collect()
}

fn sections(report: &Report) -> Vec<Section> {
    vec![
        activity(&report.activity),
        sandboxes(report),
        lines("Refused destinations", "Destination", &report.denied),
        lines("Why they were refused", "Reason", &report.reasons),
        lines("Allowed destinations", "Destination", &report.allowed),
        lines("Rules that allowed them", "Rule", &report.rules),
        list("Changes of policy", &report.policy_changes),
        list("Approvals and emergency acts", &report.acts),
        list("Alerts", &report.alerts),
        list("What was not recorded", &report.gaps),
        list("About the evidence itself", &report.evidence),
        list("About the agent", &report.agent),
    ]
}

fn columns(names: &[(&'static str, bool)]) -> Vec<Column> {
    let column = |&(name, number)| Column { name, number };
    names.iter().map(column).collect()
}

fn words(text: impl AsRef<str>) -> Cell {
    Cell {
        text: to_terminal(text.as_ref()),
        number: false,
    }
}

fn count(count: u64) -> Cell {
    Cell {
        text: grouped(count),
        number: true,
    }
}

fn row(cells: Vec<Cell>) -> Row {
    Row { cells, pre: None }
}

fn activity(steps: &[Step]) -> Section {
    let line = |step: &Step| {
        row(vec![
            words(step.day.to_string()),
            count(step.decisions.allowed),
            count(step.decisions.denied),
            count(step.decisions.would_deny),
        ])
    };
    Section {
        title: "Decisions over time",
        columns: columns(&[
            ("From", false),
            ("Allowed", true),
            ("Refused", true),
            ("Would be refused", true),
        ]),
        rows: steps.iter().map(line).collect(),
        note: None,
    }
}

fn sandboxes(report: &Report) -> Section {
    let line = |sandbox: &super::Sandbox| {
        row(vec![
            words(&sandbox.name),
            words(sandbox.policy.as_deref().unwrap_or("-")),
            count(sandbox.decisions.allowed),
            count(sandbox.decisions.denied),
            count(sandbox.limits_met),
            count(sandbox.ended),
            words(usage(&sandbox.usage)),
        ])
    };
    Section {
        title: "Sandboxes",
        columns: columns(&[
            ("Sandbox", false),
            ("Policy", false),
            ("Allowed", true),
            ("Refused", true),
            ("Limits met", true),
            ("Ended", true),
            ("Used", false),
        ]),
        rows: report.sandboxes.lines.iter().map(line).collect(),
        note: left_out(report.sandboxes.left_out),
    }
}

/// `cpu 12.3 s, memory 40.0 MiB, 3 processes`; what is not known is left out.
fn usage(usage: &ResourceUse) -> String {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let cpu = usage
        .cpu_us
        .map(|us| format!("cpu {:.1} s", us as f64 / 1e6));
    let memory = usage
        .memory_peak_bytes
        .map(|peak| format!("memory {}", mebibytes(peak)));
    let processes = usage.processes_peak.map(|peak| format!("{peak} processes"));
    let read = usage
        .read_bytes
        .map(|bytes| format!("read {}", mebibytes(bytes)));
    let written = usage
        .written_bytes
        .map(|bytes| format!("wrote {}", mebibytes(bytes)));
    let sent = usage
        .sent_bytes
        .map(|bytes| format!("sent {}", mebibytes(bytes)));
    let received = usage
        .received_bytes
        .map(|bytes| format!("received {}", mebibytes(bytes)));
    let known = [cpu, memory, processes, read, written, sent, received];
    known.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn lines(title: &'static str, what: &'static str, table: &Table<Line>) -> Section {
    let line = |line: &Line| {
        row(vec![
            words(&line.what),
            count(line.count),
            words(second(line.first)),
            words(second(line.last)),
        ])
    };
    Section {
        title,
        columns: columns(&[
            (what, false),
            ("Decisions", true),
            ("First", false),
            ("Last", false),
        ]),
        rows: table.lines.iter().map(line).collect(),
        note: left_out(table.left_out),
    }
}

fn left_out(decisions: u64) -> Option<String> {
    (decisions > 0).then(|| {
        format!(
            "{} decisions of other lines are not shown.",
            grouped(decisions)
        )
    })
}

fn list(title: &'static str, list: &List) -> Section {
    Section {
        title,
        columns: columns(&[
            ("When", false),
            ("Record", true),
            ("Who", false),
            ("Sandbox", false),
            ("Outcome", false),
            ("Count", true),
            ("What", false),
        ]),
        rows: list.entries.iter().map(entry).collect(),
        note: (list.left_out > 0)
            .then(|| format!("{} earlier ones are not shown.", grouped(list.left_out))),
    }
}

fn entry(entry: &Entry) -> Row {
    let or_dash = |text: &Option<String>| words(text.as_deref().unwrap_or("-"));
    let mut what = entry.detail.clone().unwrap_or_default();
    if let Some(digest) = &entry.digest {
        what.push_str(&format!(" [digest {digest}]"));
    }
    Row {
        cells: vec![
            words(second(entry.time)),
            count(entry.sequence.unsigned_abs()),
            or_dash(&entry.who),
            or_dash(&entry.sandbox),
            or_dash(&entry.verdict),
            count(entry.count),
            words(what.trim()),
        ],
        pre: entry.diff.as_deref().map(|diff| {
            let lines: Vec<String> = diff.lines().map(to_terminal).collect();
            lines.join("\n")
        }),
    }
}

/// To the second: what is finer stands in the JSON.
fn second(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// `1 234 567`, with spaces that no line breaks at.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}
