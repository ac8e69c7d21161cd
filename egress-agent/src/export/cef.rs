//! ArcSight Common Event Format, version 0.

use super::{PRODUCT, VENDOR, VERSION, summary};
use crate::audit::StoredRecord;
use std::fmt::Write;
use std::net::IpAddr;

/// Adds a record, without a line end.
pub fn write(record: &StoredRecord, to: &mut String) {
    to.push_str("CEF:0");
    let id = record.reason.as_deref().unwrap_or(&record.kind);
    let name = format!(
        "{} {}",
        record.kind,
        record.verdict.as_deref().unwrap_or("event")
    );
    for part in [VENDOR, PRODUCT, VERSION, id, &name] {
        to.push('|');
        header(part, to);
    }
    let _ = write!(to, "|{}|", severity(record));
    let mut extension = Extension { to, first: true };
    extension.plain("rt", record.time.as_millisecond());
    extension.text("dvchost", &record.node);
    extension.plain("externalId", record.sequence);
    extension.text("cat", &record.kind);
    extension.plain("cnt", record.count);
    extension.optional("act", record.verdict.as_deref());
    extension.optional("reason", record.reason.as_deref());
    // Only IPv4 fits `dst` and `src`.
    let inbound = record.hook.as_deref() == Some("ingress");
    match record.address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(v4)) => extension.plain(if inbound { "src" } else { "dst" }, v4),
        Some(IpAddr::V6(v6)) if inbound => extension.custom("c6a2", "Source IPv6 Address", v6),
        Some(IpAddr::V6(v6)) => extension.custom("c6a3", "Destination IPv6 Address", v6),
        None => {}
    }
    if let Some(port) = record.port {
        extension.plain(if inbound { "spt" } else { "dpt" }, port);
    }
    if record.hook.is_some() {
        extension.plain("deviceDirection", u8::from(!inbound));
    }
    extension.optional("proto", record.protocol.as_deref());
    extension.optional("dhost", record.name.as_deref());
    if let Some(process) = record.process {
        extension.plain("spid", process);
    }
    extension.optional("sproc", record.command.as_deref());
    if let Some(user) = record.user {
        extension.plain("suid", user);
    }
    let rule = record
        .rule
        .as_ref()
        .map(|rule| format!("{}:{}", rule.file, rule.line));
    for (key, label, value) in [
        ("cs1", "sandbox", record.sandbox.as_deref()),
        ("cs2", "policy", record.policy.as_deref()),
        ("cs3", "rule", rule.as_deref()),
        ("cs4", "dnsQueryType", record.query_type.as_deref()),
        ("cs5", "task", record.task.as_deref()),
        ("cs6", "project", record.project.as_deref()),
    ] {
        if let Some(value) = value {
            extension.text(key, value);
            extension.text(&format!("{key}Label"), label);
        }
    }
    extension.text("msg", &summary(record));
}

/// 0 to 10: what was refused as an attack stands above what was only not allowed.
fn severity(record: &StoredRecord) -> u8 {
    match (record.kind.as_str(), record.verdict.as_deref()) {
        ("loss", _) => 7,
        (_, Some("deny")) => 5,
        (_, Some("would_deny")) => 3,
        _ => 1,
    }
}

struct Extension<'a> {
    to: &'a mut String,
    first: bool,
}

impl Extension<'_> {
    fn key(&mut self, key: &str) {
        if !self.first {
            self.to.push(' ');
        }
        self.first = false;
        self.to.push_str(key);
        self.to.push('=');
    }

    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.to, "{value}");
    }

    fn custom(&mut self, key: &str, label: &str, value: impl std::fmt::Display) {
        self.plain(key, value);
        self.text(&format!("{key}Label"), label);
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        for character in value.chars() {
            match character {
                '\\' => self.to.push_str("\\\\"),
                '=' => self.to.push_str("\\="),
                '\n' => self.to.push_str("\\n"),
                '\r' => self.to.push_str("\\r"),
                // Nothing else of a control character may reach a terminal or a parser.
                other if other.is_control() => self.to.push(' '),
                other => self.to.push(other),
            }
        }
    }
}

/// A header part: bars and backslashes are escaped, and it has no line end.
fn header(text: &str, to: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => to.push_str("\\\\"),
            '|' => to.push_str("\\|"),
            other if other.is_control() => to.push(' '),
            other => to.push(other),
        }
    }
}
