//! As much of the DNS format as tests need, byte by byte: a codec of the
//! harness's own, so that a mistake in the product's cannot hide in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Type numbers of RFC 1035 and its successors.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of a zone.
    pub const SOA: u16 = 6;
    /// Pointer.
    pub const PTR: u16 = 12;
    /// Mail exchange.
    pub const MX: u16 = 15;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// EDNS options.
    pub const OPT: u16 = 41;
    /// Service binding for HTTPS.
    pub const HTTPS: u16 = 65;
}

/// Response code: the name exists.
pub const NOERROR: u8 = 0;
/// Response code: the server failed.
pub const SERVFAIL: u8 = 2;
/// Response code: the name does not exist.
pub const NXDOMAIN: u8 = 3;
/// Response code: the server refuses to answer.
pub const REFUSED: u8 = 5;

/// EDNS option: extended error (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Chosen by the client.
    pub id: u16,
    /// The name, lower case, without the last dot.
    pub name: String,
    /// The record type.
    pub kind: u16,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An address, as A or AAAA.
    Address(IpAddr),
    /// Another name for it.
    Alias(String),
    /// Any other type: number and bytes.
    Other(u16, Vec<u8>),
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose record it is.
    pub owner: String,
    /// Seconds for which it holds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// A parsed answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Copied from the query.
    pub id: u16,
    /// Response code.
    pub code: u8,
    /// The answer did not fit.
    pub truncated: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// Text of the extended error, if there is one.
    pub extended_error: Option<String>,
}

impl Query {
    /// Writes the query, with EDNS so that extended errors come back.
    pub fn encode(&self) -> Vec<u8> {
        const INTERNET: u16 = 1;
        self.encode_in(INTERNET)
    }

    /// The same in another class.
    pub fn encode_in(&self, class: u16) -> Vec<u8> {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        put_name(&mut bytes, &self.name);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        // Root owner, OPT, 1,232 bytes of payload, no flags, no options.
        bytes.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    /// Reads a query.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (name, end) = take_name(bytes, 12)?;
        Some(Self {
            id: be16(bytes, 0)?,
            name,
            kind: be16(bytes, end)?,
        })
    }

    /// Writes the answer to this query.
    pub fn answer(&self, code: u8, truncated: bool, records: &[Record]) -> Vec<u8> {
        self.answer_with(code, truncated, records, &[])
    }

    /// The same, with records in the authority section.
    pub fn answer_with(
        &self,
        code: u8,
        truncated: bool,
        records: &[Record],
        authority: &[Record],
    ) -> Vec<u8> {
        let mut bytes = self.id.to_be_bytes().to_vec();
        let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
        bytes.extend([0x85 | u8::from(truncated) << 1, 0x80 | code, 0, 1]);
        bytes.extend(count.to_be_bytes());
        let count = u16::try_from(authority.len()).unwrap_or(u16::MAX);
        bytes.extend(count.to_be_bytes());
        bytes.extend([0; 2]);
        put_name(&mut bytes, &self.name);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend([0, 1]);
        for record in records.iter().chain(authority) {
            put_record(&mut bytes, record);
        }
        bytes
    }
}

impl Message {
    /// Reads an answer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut message = Self {
            id: be16(bytes, 0)?,
            code: bytes.get(3)? & 0x0f,
            truncated: bytes.get(2)? & 2 != 0,
            ..Self::default()
        };
        let mut at = 12;
        for _ in 0..be16(bytes, 4)? {
            at = take_name(bytes, at)?.1 + 4;
        }
        let answers = be16(bytes, 6)?;
        let others = be16(bytes, 8)?.checked_add(be16(bytes, 10)?)?;
        for index in 0..answers.checked_add(others)? {
            let (owner, header) = take_name(bytes, at)?;
            let kind = be16(bytes, header)?;
            let ttl = u32::from_be_bytes(bytes.get(header + 4..header + 8)?.try_into().ok()?);
            let start = header + 10;
            at = start + usize::from(be16(bytes, header + 8)?);
            let content = bytes.get(start..at)?;
            if index < answers {
                let data = read_data(bytes, kind, start, content)?;
                message.answers.push(Record { owner, ttl, data });
            } else if kind == kind::OPT {
                message.extended_error = extended_error(content);
            }
        }
        Some(message)
    }

    /// The addresses of the answer section, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.answers.iter().filter_map(|record| match record.data {
            Data::Address(address) => Some(address),
            Data::Alias(_) | Data::Other(..) => None,
        })
    }
}

/// The SOA record of a zone, by which negative answers say how long they are good.
pub fn soa(zone: &str, ttl: u32) -> Record {
    let mut content = Vec::new();
    put_name(&mut content, &format!("ns.{zone}"));
    put_name(&mut content, &format!("nobody.{zone}"));
    for number in [1, 3600, 600, 86_400, ttl] {
        content.extend(number.to_be_bytes());
    }
    Record {
        owner: zone.into(),
        ttl,
        data: Data::Other(kind::SOA, content),
    }
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    for label in name
        .trim_end_matches('.')
        .split('.')
        .filter(|label| !label.is_empty())
    {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
}

fn put_record(bytes: &mut Vec<u8>, record: &Record) {
    put_name(bytes, &record.owner);
    let (kind, content) = match &record.data {
        Data::Address(IpAddr::V4(address)) => (kind::A, address.octets().to_vec()),
        Data::Address(IpAddr::V6(address)) => (kind::AAAA, address.octets().to_vec()),
        Data::Alias(name) => {
            let mut content = Vec::new();
            put_name(&mut content, name);
            (kind::CNAME, content)
        }
        Data::Other(kind, content) => (*kind, content.clone()),
    };
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(record.ttl.to_be_bytes());
    bytes.extend(
        u16::try_from(content.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    bytes.extend(content);
}

/// Reads a name and returns the place behind it.
fn take_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = start;
    let mut end = None;
    // A pointer loop would never end; no name has this many labels.
    for _ in 0..128 {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..=at + length)?;
                labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += 1 + length;
            }
            _ => {
                end = end.or(Some(at + 2));
                at = usize::from(be16(bytes, at)? & 0x3fff);
            }
        }
    }
    None
}

fn read_data(bytes: &[u8], kind: u16, start: usize, content: &[u8]) -> Option<Data> {
    Some(match kind {
        kind::A => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(content).ok()?).into()),
        kind::AAAA => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(content).ok()?).into()),
        kind::CNAME => Data::Alias(take_name(bytes, start)?.0),
        _ => Data::Other(kind, content.to_vec()),
    })
}

fn extended_error(mut options: &[u8]) -> Option<String> {
    loop {
        let (code, length) = (be16(options, 0)?, usize::from(be16(options, 2)?));
        let content = options.get(4..4 + length)?;
        if code == EXTENDED_ERROR {
            return Some(String::from_utf8_lossy(content.get(2..)?).into_owned());
        }
        options = options.get(4 + length..)?;
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(u16::from_be_bytes(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_back_as_it_was_written() {
        let query = Query {
            id: 7,
            name: "www.example.com".into(),
            kind: kind::A,
        };
        assert_eq!(Query::decode(&query.encode()), Some(query.clone()));
        let records = vec![
            Record {
                owner: "www.example.com".into(),
                ttl: 60,
                data: Data::Alias("host.example.net".into()),
            },
            Record {
                owner: "host.example.net".into(),
                ttl: 5,
                data: Data::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            },
        ];
        let message = Message::decode(&query.answer(NOERROR, true, &records)).expect("an answer");
        assert_eq!(message.answers, records);
        assert!(message.truncated);
    }

    #[test]
    fn a_name_that_points_at_itself_is_refused() {
        let mut bytes = vec![0; 12];
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(Query::decode(&bytes), None);
    }
}
