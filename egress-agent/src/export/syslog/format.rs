//! RFC 5424 messages.

use crate::audit::StoredRecord;
use crate::export::summary;
use std::fmt::Write;

/// The longest message, in bytes: what collectors take unless told otherwise.
const LONGEST: usize = 8_192;

/// Structured data under the enterprise number that is reserved for
/// documentation (RFC 5612), since the product has none of its own.
const SD_ID: &str = "egress@32473";

/// A syslog facility, 0 to 23.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facility(u8);

impl Facility {
    /// `log audit`.
    pub const AUDIT: Self = Self(13);

    /// Reads a number from 0 to 23.
    pub fn new(number: u8) -> Option<Self> {
        (number < 24).then_some(Self(number))
    }
}

/// One record as a message, at most 8,192 bytes; a longer text is cut.
pub fn message(record: &StoredRecord, facility: Facility) -> String {
    let priority = priority(facility, severity(record));
    let mut text = format!("<{priority}>1 {:.6} ", record.time);
    header(&record.node, 255, &mut text);
    text.push_str(" egress-agent - ");
    header(&record.kind, 32, &mut text);
    text.push_str(" [");
    text.push_str(SD_ID);
    let mut data = Data(&mut text);
    data.add("id", Some(&record.id));
    data.number("sequence", Some(record.sequence));
    data.add("sandbox", record.sandbox.as_deref());
    data.add("policy", record.policy.as_deref());
    data.add("task", record.task.as_deref());
    data.add("session", record.session.as_deref());
    data.add("project", record.project.as_deref());
    data.add("verdict", record.verdict.as_deref());
    data.add("reason", record.reason.as_deref());
    data.add("hook", record.hook.as_deref());
    data.number("address", record.address);
    data.number("port", record.port);
    data.add("protocol", record.protocol.as_deref());
    data.add("name", record.name.as_deref());
    data.add("queryType", record.query_type.as_deref());
    let rule = record
        .rule
        .as_ref()
        .map(|rule| format!("{}:{}", rule.file, rule.line));
    data.add("rule", rule.as_deref());
    data.number("process", record.process);
    data.add("command", record.command.as_deref());
    data.number("user", record.user);
    data.add("actor", record.actor.as_deref());
    data.number("count", Some(record.count));
    // The byte order mark says that the text is UTF-8.
    text.push_str("] \u{feff}");
    for character in summary(record).chars() {
        if text.len() + character.len_utf8() > LONGEST {
            break;
        }
        text.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    text
}

/// The number that a message begins with; severities are 0, emergency, to 7, debug.
pub fn priority(facility: Facility, severity: u8) -> u16 {
    u16::from(facility.0) * 8 + u16::from(severity)
}

/// From 0, emergency, to 7, debug.
fn severity(record: &StoredRecord) -> u8 {
    match (record.kind.as_str(), record.verdict.as_deref()) {
        ("emergency", _) => 1,
        ("alert", _) => 2,
        ("loss", _) => 3,
        (_, Some("deny")) => 4,
        (_, Some("would_deny")) | ("policy" | "approval", _) => 5,
        _ => 6,
    }
}

/// A header field: printable ASCII without blanks; what is not becomes `-`.
fn header(field: &str, longest: usize, to: &mut String) {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '-' };
    if field.is_empty() {
        to.push('-');
    }
    to.extend(field.chars().take(longest).map(plain));
}

/// Parameters of structured data; absent ones are left out.
struct Data<'a>(&'a mut String);

impl Data<'_> {
    fn add(&mut self, name: &str, value: Option<&str>) {
        /// Values that sandboxes choose must leave room for the others.
        const LONGEST_VALUE: usize = 512;
        let Some(value) = value else {
            return;
        };
        // Writing to text does not fail.
        let _ = write!(self.0, " {name}=\"");
        for character in value.chars().take(LONGEST_VALUE) {
            match character {
                '"' | '\\' | ']' => self.0.extend(['\\', character]),
                other if other.is_control() => self.0.push(' '),
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }

    fn number(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            let _ = write!(self.0, " {name}=\"{value}\"");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_the_standard_has_it() {
        let record = StoredRecord {
            detail: Some("line\none".to_owned()),
            command: Some("a\"b\\c]d\u{1b}".to_owned()),
            ..crate::audit::sample_for_tests()
        };
        let text = message(&record, Facility::AUDIT);
        assert!(
            text.starts_with(
                "<108>1 2026-11-20T08:30:00.000000Z host-1 egress-agent - flow [egress@32473 id=\""
            ),
            "{text}"
        );
        assert!(text.contains(r#" command="a\"b\\c\]d ""#), "{text}");
        assert!(
            text.contains("] \u{feff}deny: api.example.com:443/tcp: "),
            "{text}"
        );
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let record = StoredRecord {
            detail: Some("ä".repeat(10_000)),
            ..crate::audit::sample_for_tests()
        };
        let text = message(&record, Facility::AUDIT);
        assert!(
            text.len() <= LONGEST && text.len() > LONGEST - 2,
            "{}",
            text.len()
        );
        assert!(text.ends_with('ä'));
    }

    #[test]
    fn facilities_are_those_that_there_are() {
        assert_eq!(Facility::new(13), Some(Facility::AUDIT));
        assert_eq!(Facility::new(24), None);
    }
}
