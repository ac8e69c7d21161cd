//! Messages byte by byte: what is sent may be anything, and of what comes back
//! every bit counts.

use std::fmt::Write;

/// A query that is being written.
#[derive(Clone)]
pub struct Query {
    /// Id, flags, and the four counts.
    pub header: [u16; 6],
    /// Everything behind the header.
    pub body: Vec<u8>,
}

/// A name on the wire, in the letters that are given.
pub fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

impl Query {
    /// A query of class IN with recursion desired.
    pub fn new(id: u16, text: &str, kind: u16) -> Self {
        let mut body = name(text);
        body.extend(kind.to_be_bytes());
        body.extend([0, 1]);
        Self {
            header: [id, 0x0100, 1, 0, 0, 0],
            body,
        }
    }

    /// Other flags, as the second 16 bits of the header.
    pub fn flags(mut self, flags: u16) -> Self {
        self.header[1] = flags;
        self
    }

    /// Another class.
    pub fn class(mut self, class: u16) -> Self {
        let at = self.body.len() - 2;
        self.body[at..].copy_from_slice(&class.to_be_bytes());
        self
    }

    /// An OPT record: payload size, version, flags, options.
    pub fn edns(mut self, payload: u16, version: u8, flags: u16, options: &[u8]) -> Self {
        self.header[5] += 1;
        self.body.extend([0, 0, 41]);
        self.body.extend(payload.to_be_bytes());
        self.body.extend([0, version]);
        self.body.extend(flags.to_be_bytes());
        self.body.extend((options.len() as u16).to_be_bytes());
        self.body.extend(options);
        self
    }

    /// Bytes behind what is there.
    pub fn and(mut self, bytes: &[u8]) -> Self {
        self.body.extend(bytes);
        self
    }

    /// Another count of questions.
    pub fn questions(mut self, count: u16) -> Self {
        self.header[2] = count;
        self
    }

    /// The whole message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.header.iter().flat_map(|n| n.to_be_bytes()).collect();
        bytes.extend(&self.body);
        bytes
    }
}

/// An EDNS option.
pub fn option(code: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = code.to_be_bytes().to_vec();
    bytes.extend((content.len() as u16).to_be_bytes());
    bytes.extend(content);
    bytes
}

/// A record of an answer.
#[derive(Clone, Debug)]
pub struct Record {
    /// In the letters that came.
    pub owner: String,
    /// Its number.
    pub kind: u16,
    /// Or the payload size.
    pub class: u16,
    /// Or code, version and flags.
    pub ttl: u32,
    /// As it came.
    pub data: Vec<u8>,
}

/// An answer, taken apart.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its length in bytes.
    pub length: usize,
    /// Of the header.
    pub id: u16,
    /// Of the header.
    pub flags: u16,
    /// Name, type and class of the questions.
    pub questions: Vec<(String, u16, u16)>,
    /// The three sections.
    pub sections: [Vec<Record>; 3],
}

impl Answer {
    /// Reads a message, all of it.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let short = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let mut at = 12;
        let mut questions = Vec::new();
        for _ in 0..short(4)? {
            let (text, end) = take_name(bytes, at)?;
            questions.push((text, short(end)?, short(end + 2)?));
            at = end + 4;
        }
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        for (number, section) in sections.iter_mut().enumerate() {
            for _ in 0..short(6 + 2 * number)? {
                let (owner, end) = take_name(bytes, at)?;
                let length = usize::from(short(end + 8)?);
                let ttl = u32::from(short(end + 4)?) << 16 | u32::from(short(end + 6)?);
                section.push(Record {
                    owner,
                    kind: short(end)?,
                    class: short(end + 2)?,
                    ttl,
                    data: bytes.get(end + 10..end + 10 + length)?.to_vec(),
                });
                at = end + 10 + length;
            }
        }
        (at == bytes.len()).then_some(Self {
            length: bytes.len(),
            id: short(0)?,
            flags: short(2)?,
            questions,
            sections,
        })
    }

    /// A bit of the flags: 15 is QR, 10 AA, 9 TC, 8 RD, 7 RA, 6 Z, 5 AD, 4 CD.
    pub fn bit(&self, bit: u32) -> bool {
        self.flags >> bit & 1 == 1
    }

    /// The operation.
    pub fn operation(&self) -> u16 {
        self.flags >> 11 & 15
    }

    /// The response code with the bits that EDNS adds.
    pub fn code(&self) -> u16 {
        let above = self.edns().map_or(0, |edns| (edns.ttl >> 24) as u16);
        above << 4 | self.flags & 15
    }

    /// The OPT record.
    pub fn edns(&self) -> Option<&Record> {
        self.sections[2].iter().find(|record| record.kind == 41)
    }

    /// Codes of the EDNS options.
    pub fn options(&self) -> Vec<u16> {
        let mut codes = Vec::new();
        let mut rest = self.edns().map_or(&[][..], |edns| &edns.data);
        while let [a, b, c, d, more @ ..] = rest {
            codes.push(u16::from_be_bytes([*a, *b]));
            let length = usize::from(u16::from_be_bytes([*c, *d]));
            rest = more.get(length..).unwrap_or_default();
        }
        codes
    }

    /// Types in the answer section.
    pub fn kinds(&self) -> Vec<u16> {
        self.sections[0].iter().map(|record| record.kind).collect()
    }

    /// The time for which a "no" is good: the SOA record's own, and its last number.
    pub fn negative(&self) -> Option<(u32, u32)> {
        let soa = self.sections[1].iter().find(|record| record.kind == 6)?;
        let last = soa.data.get(soa.data.len().checked_sub(4)?..)?;
        Some((soa.ttl, u32::from_be_bytes(last.try_into().ok()?)))
    }
}

fn take_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut text, mut at, mut end) = (String::new(), start, None);
    for _ in 0..128 {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((text, end.unwrap_or(at + 1))),
            1..=63 => {
                for byte in bytes.get(at + 1..=at + length)? {
                    text.push(char::from(*byte));
                }
                text.push('.');
                at += 1 + length;
            }
            _ => {
                end = end.or(Some(at + 2));
                at = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            }
        }
    }
    None
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Hexadecimal digits as bytes.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
