//! An answer that only has to be filled in.

use super::query::{HEADER, Plain};
use super::question::MAX_UDP;

/// A reply without EDNS, and where its times to live stand.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Box<[u8]>,
    ttls: Box<[u16]>,
}

/// An EDNS record (RFC 6891) that says what is taken and nothing else.
pub(super) const OPT: [u8; 11] = {
    let [high, low] = MAX_UDP.to_be_bytes();
    [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]
};

const SOA: u16 = 6;

impl Template {
    /// Takes an encoded reply; `None` if it cannot be walked through, which is
    /// not so for what was encoded here.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Self> {
        let &[
            ..,
            answers_high,
            answers_low,
            authorities_high,
            authorities_low,
            0,
            0,
        ] = bytes.get(..HEADER)?
        else {
            return None;
        };
        let count = |high, low| usize::from(u16::from_be_bytes([high, low]));
        let records = count(answers_high, answers_low) + count(authorities_high, authorities_low);
        let mut at = after_name(&bytes, HEADER)? + 4;
        let mut ttls = Vec::with_capacity(records);
        for _ in 0..records {
            let fixed = after_name(&bytes, at)?;
            let &[type_high, type_low, _, _, _, _, _, _, high, low] =
                bytes.get(fixed..fixed + 10)?
            else {
                return None;
            };
            ttls.push(u16::try_from(fixed + 4).ok()?);
            at = fixed + 10 + usize::from(u16::from_be_bytes([high, low]));
            // The last four bytes say how long there is nothing (RFC 2308).
            if u16::from_be_bytes([type_high, type_low]) == SOA {
                ttls.push(u16::try_from(at.checked_sub(4)?).ok()?);
            }
        }
        (at == bytes.len()).then(|| Self {
            bytes: bytes.into(),
            ttls: ttls.into(),
        })
    }

    /// Whether a datagram takes it.
    pub(super) fn fits_a_datagram(&self) -> bool {
        self.bytes.len() <= usize::from(MAX_UDP)
    }

    /// Writes the answer to a query; `None` if the client does not take so much.
    pub(super) fn fill(&self, query: &Plain<'_>, ttl: u32, out: &mut [u8]) -> Option<usize> {
        let mut length = self.bytes.len();
        let edns = query.speaks_edns();
        if length + if edns { OPT.len() } else { 0 } > query.limit() {
            return None;
        }
        out.get_mut(..length)?.copy_from_slice(&self.bytes);
        let question = query.question();
        out.get_mut(HEADER..HEADER + question.len())?
            .copy_from_slice(question);
        let ttl = ttl.to_be_bytes();
        for at in &self.ttls {
            let at = usize::from(*at);
            out.get_mut(at..at + ttl.len())?.copy_from_slice(&ttl);
        }
        head(query, out)?;
        if edns {
            *out.get_mut(HEADER - 1)? = 1;
            out.get_mut(length..length + OPT.len())?
                .copy_from_slice(&OPT);
            length += OPT.len();
        }
        Some(length)
    }
}

/// Repeats in a reply what belongs to the query: its id and two flags.
pub(super) fn head(query: &Plain<'_>, out: &mut [u8]) -> Option<()> {
    out.get_mut(..2)?.copy_from_slice(&query.id());
    let (flags, more) = query.repeated_flags();
    *out.get_mut(2)? |= flags;
    *out.get_mut(3)? |= more;
    Some(())
}

/// Behind the name that begins at `at`.
pub(super) fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            // A pointer ends a name.
            192.. => return Some(at + 2),
            64..=191 => return None,
        }
    }
}
