//! RFC 4180: CRLF at line ends, quotes where they are needed.

use super::time::rfc3339;
use crate::audit::StoredRecord;
use std::fmt::Write;

/// The columns, in order.
const COLUMNS: [&str; 48] = [
    "id",
    "node",
    "sequence",
    "time",
    "kind",
    "sandbox_id",
    "sandbox",
    "policy",
    "relaxations",
    "session",
    "task",
    "project",
    "on_behalf_of",
    "labels",
    "process",
    "command",
    "user",
    "hook",
    "address",
    "address_hash",
    "port",
    "protocol",
    "name",
    "name_hash",
    "query_type",
    "upstream",
    "cache",
    "latency_us",
    "rule_file",
    "rule_line",
    "rule_text",
    "verdict",
    "reason",
    "actor",
    "digest",
    "diff",
    "cpu_us",
    "memory_kills",
    "memory_peak_bytes",
    "processes_peak",
    "processes_refused",
    "read_bytes",
    "received_bytes",
    "sent_bytes",
    "throttled_us",
    "written_bytes",
    "count",
    "detail",
];

pub fn heading() -> String {
    COLUMNS.join(",") + "\r\n"
}

pub fn write(record: &StoredRecord, to: &mut String) {
    let rule = record.rule.as_ref();
    // Numbers need no quotes, and writing to text does not fail.
    let number = |value: Option<u64>, to: &mut String| {
        if let Some(value) = value {
            let _ = write!(to, "{value}");
        }
        to.push(',');
    };
    field(Some(&record.id), to);
    field(Some(&record.node), to);
    let _ = write!(to, "{},{},", record.sequence, rfc3339(record.time));
    field(Some(&record.kind), to);
    number(record.sandbox_id.map(u64::from), to);
    field(record.sandbox.as_deref(), to);
    field(record.policy.as_deref(), to);
    field(Some(&record.relaxations.join(" ")), to);
    field(record.session.as_deref(), to);
    field(record.task.as_deref(), to);
    field(record.project.as_deref(), to);
    field(record.on_behalf_of.as_deref(), to);
    let labels: Vec<String> = record
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    field(Some(&labels.join(" ")), to);
    number(record.process.map(u64::from), to);
    field(record.command.as_deref(), to);
    number(record.user.map(u64::from), to);
    field(record.hook.as_deref(), to);
    if let Some(address) = record.address {
        let _ = write!(to, "{address}");
    }
    to.push(',');
    field(record.address_hash.as_deref(), to);
    number(record.port.map(u64::from), to);
    field(record.protocol.as_deref(), to);
    field(record.name.as_deref(), to);
    field(record.name_hash.as_deref(), to);
    field(record.query_type.as_deref(), to);
    field(record.upstream.as_deref(), to);
    field(record.cache.as_deref(), to);
    number(record.latency_us, to);
    field(rule.map(|rule| rule.file.as_str()), to);
    number(rule.map(|rule| u64::from(rule.line)), to);
    field(rule.and_then(|rule| rule.text.as_deref()), to);
    field(record.verdict.as_deref(), to);
    field(record.reason.as_deref(), to);
    field(record.actor.as_deref(), to);
    field(record.digest.as_deref(), to);
    field(record.diff.as_deref(), to);
    let usage = record.usage.as_ref();
    number(usage.and_then(|usage| usage.cpu_us), to);
    number(usage.map(|usage| usage.memory_kills), to);
    number(usage.and_then(|usage| usage.memory_peak_bytes), to);
    number(usage.and_then(|usage| usage.processes_peak), to);
    number(usage.map(|usage| usage.processes_refused), to);
    number(usage.and_then(|usage| usage.read_bytes), to);
    number(usage.and_then(|usage| usage.received_bytes), to);
    number(usage.and_then(|usage| usage.sent_bytes), to);
    number(usage.and_then(|usage| usage.throttled_us), to);
    number(usage.and_then(|usage| usage.written_bytes), to);
    number(Some(record.count), to);
    field(record.detail.as_deref(), to);
    to.pop();
    to.push_str("\r\n");
}

/// Adds a text and a comma. Spreadsheets run a cell that begins like a formula:
/// sandboxes choose names and commands, so such a text gets an apostrophe before
/// it, also behind blanks, which some of them skip.
fn field(text: Option<&str>, to: &mut String) {
    let text = text.unwrap_or_default();
    let runs = text.trim_start().starts_with([
        '=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
    ]) || text.starts_with(['\t', '\r', '\n']);
    let special = text.contains([',', '"', '\r', '\n', '\t', ';']);
    if !runs && !special {
        to.push_str(text);
    } else {
        to.push('"');
        if runs {
            to.push('\'');
        }
        to.push_str(&text.replace('"', "\"\""));
        to.push('"');
    }
    to.push(',');
}
