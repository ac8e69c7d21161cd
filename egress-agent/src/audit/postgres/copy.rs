//! Records as the text format of `COPY`.

use crate::audit::chain::hexadecimal;
use crate::audit::postgres::ShipError;
use crate::audit::verify::{AddressColumn, Columns, Content, Entry};
use jiff::Timestamp;
use std::net::Ipv6Addr;

/// One batch, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Lines of `COPY`.
    pub text: String,
    /// The days that it touches, `2026-11-20`, each once and in order.
    pub days: Vec<jiff::civil::Date>,
    /// The last place in it.
    pub last: Option<i64>,
    /// How many records.
    pub records: usize,
}

impl Batch {
    /// Adds a record of a node's chain.
    pub fn push(&mut self, node: &str, chain: &str, entry: &Entry) -> Result<(), ShipError> {
        let header = &entry.header;
        let time = Timestamp::from_microsecond(header.time)
            .map_err(|_| ShipError::Time(header.sequence))?;
        let day = time.to_zoned(jiff::tz::TimeZone::UTC).date();
        if let Err(place) = self.days.binary_search(&day) {
            self.days.insert(place, day);
        }
        let none = Columns::default();
        let columns = entry.columns.as_ref().unwrap_or(&none);
        let (body, digest) = match &entry.content {
            Content::Body(body) => (Some(body.as_str()), None),
            Content::Erased(digest) => (None, Some(bytes(&digest.0))),
            Content::Unreadable => return Err(ShipError::Unreadable(header.sequence)),
        };
        let address = match &columns.address {
            AddressColumn::Address(address) => *address,
            // Hidden addresses are hashes, which are longer.
            AddressColumn::Key(key) => key
                .as_deref()
                .and_then(|key| <[u8; 16]>::try_from(key).ok())
                .map(|octets| Ipv6Addr::from(octets).to_canonical()),
        };
        let address = address.map(|address| address.to_string());
        self.field(Some(node));
        self.field(Some(chain));
        self.field(Some(&header.sequence.to_string()));
        self.field(Some(&time.to_string()));
        self.field(Some(&header.class.to_string()));
        self.field(Some(&bytes(&entry.chain.0)));
        self.field(body);
        self.field(digest.as_deref());
        self.field(columns.kind.as_deref());
        self.field(columns.sandbox.as_deref());
        self.field(columns.task.as_deref());
        self.field(columns.project.as_deref());
        self.field(columns.outcome.as_deref());
        self.field(columns.reason.as_deref());
        self.field(address.as_deref());
        self.field(columns.name_key.as_deref());
        // The last tab ends the line instead.
        self.text.pop();
        self.text.push('\n');
        self.last = Some(header.sequence);
        self.records += 1;
        Ok(())
    }

    /// A field and its tab; `\N` is NULL.
    fn field(&mut self, value: Option<&str>) {
        let Some(value) = value else {
            self.text.push_str("\\N\t");
            return;
        };
        let is_special = |byte: u8| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r' | b'\0');
        if !value.bytes().any(is_special) {
            self.text.push_str(value);
            self.text.push('\t');
            return;
        }
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\t' => self.text.push_str("\\t"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                // PostgreSQL has no text with it. In a body it is escaped; a
                // sandbox's name cannot have it.
                '\0' => {}
                other => self.text.push(other),
            }
        }
        self.text.push('\t');
    }
}

fn bytes(bytes: &[u8]) -> String {
    format!("\\x{}", hexadecimal(bytes))
}
