//! The ordinary query, read in place.
//!
//! Nearly every query is one question of one plain name with at most an EDNS
//! record behind it. Those are read here without an allocation; whatever is
//! unusual in any way is left to the full parser (`question`), which also says
//! what is wrong with it.

use super::name::{append_wire, may_be_special};
use crate::model::DomainName;
use hickory_proto::rr::{DNSClass, RecordType};

/// Bytes before the question.
pub(super) const HEADER: usize = 12;
/// Type and class behind the name of a question.
pub(super) const TYPE_AND_CLASS: usize = 4;
/// The longest name on the wire (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// What a client without EDNS takes.
const MIN_UDP: u16 = 512;

/// Type and lower-case name of a question, as bytes to look it up by.
pub(super) struct QuestionKey {
    bytes: [u8; 2 + MAX_NAME],
    length: usize,
    /// The same name with dots, beginning with one.
    text: [u8; MAX_NAME],
}

impl QuestionKey {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; 2 + MAX_NAME],
            length: 0,
            text: [0; MAX_NAME],
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The name in canonical text; `None` where it takes more than a look at its
    /// letters to say what it means: it may be an address, or a name with a
    /// meaning of its own.
    pub(super) fn plain_text(&self) -> Option<&str> {
        // Type, and the empty label at the end.
        let text = self.dotted()?;
        let last = text.rsplit('.').next()?;
        let is_plain = last.starts_with(|c: char| c.is_ascii_lowercase()) && !may_be_special(last);
        is_plain.then_some(text)
    }

    /// The name, if it is one that policy can judge.
    pub(super) fn name(&self) -> Option<DomainName> {
        DomainName::from_lowercase(self.dotted()?.to_owned()).ok()
    }

    /// The name in lower case, without the dot at its end.
    fn dotted(&self) -> Option<&str> {
        // Behind the type and before the empty label at the end.
        let text = self.text.get(1..self.length.checked_sub(3)?)?;
        std::str::from_utf8(text).ok()
    }
}

/// The bytes of a [`QuestionKey`] for a name and a type.
pub(super) fn key_of(name: &DomainName, query_type: RecordType) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + name.as_str().len() + 2);
    key.extend(u16::from(query_type).to_be_bytes());
    append_wire(name, &mut key);
    key
}

/// The name in the bytes of a [`QuestionKey`].
pub(super) fn name_of(key: &[u8]) -> Option<DomainName> {
    let mut rest = key.get(2..)?;
    let mut text = String::with_capacity(rest.len());
    while let Some((length, after)) = rest.split_first()
        && *length > 0
    {
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
        rest = after;
    }
    DomainName::from_lowercase(text).ok()
}

/// The record type in the bytes of a [`QuestionKey`].
pub(super) fn type_of(key: &[u8]) -> Option<RecordType> {
    let (number, _) = key.split_first_chunk()?;
    Some(RecordType::from(u16::from_be_bytes(*number)))
}

/// An ordinary query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain<'a> {
    bytes: &'a [u8],
    /// Where the question ends.
    end: usize,
    /// The largest answer that the client takes, if it speaks EDNS.
    edns: Option<u16>,
}

impl<'a> Plain<'a> {
    /// Reads a query and fills `key` in; `None` if it is not an ordinary one.
    pub(super) fn read(bytes: &'a [u8], key: &mut QuestionKey) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER>()?;
        // A query, not truncated, of the usual kind; one question, nothing else
        // but perhaps one additional record.
        let &[_, _, flags, _, 0, 1, 0, 0, 0, 0, 0, additional] = header else {
            return None;
        };
        if flags & 0b1111_1010 != 0 || additional > 1 {
            return None;
        }
        let mut at = 0;
        loop {
            let length = *body.get(at)?;
            *key.bytes.get_mut(2 + at)? = length;
            *key.text.get_mut(at)? = b'.';
            at += 1;
            if length == 0 {
                break;
            }
            // Also what would be a compression pointer.
            if length > 63 {
                return None;
            }
            let label = body.get(at..at + usize::from(length))?;
            let end = at + usize::from(length);
            let lower = key.bytes.get_mut(2 + at..2 + end)?;
            let text = key.text.get_mut(at..end)?;
            for ((byte, lower), letter) in label.iter().zip(lower).zip(text) {
                if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                    return None;
                }
                *lower = byte.to_ascii_lowercase();
                *letter = *lower;
            }
            at += usize::from(length);
        }
        let &[type_high, type_low, class_high, class_low] = body.get(at..at + 4)? else {
            return None;
        };
        if at == 1 || u16::from_be_bytes([class_high, class_low]) != u16::from(DNSClass::IN) {
            return None;
        }
        [key.bytes[0], key.bytes[1]] = [type_high, type_low];
        key.length = 2 + at;
        let end = HEADER + at + 4;
        let rest = bytes.get(end..)?;
        let edns = match additional {
            0 if rest.is_empty() => None,
            0 => return None,
            _ => Some(payload(rest)?),
        };
        Some(Self { bytes, end, edns })
    }

    /// The question as the client wrote it.
    pub(super) fn question(&self) -> &'a [u8] {
        self.bytes.get(HEADER..self.end).unwrap_or_default()
    }

    pub(super) fn id(&self) -> [u8; 2] {
        match self.bytes {
            [high, low, ..] => [*high, *low],
            _ => [0; 2],
        }
    }

    /// The bits that a reply repeats: "recursion desired" of the third byte,
    /// "checking disabled" of the fourth.
    pub(super) fn repeated_flags(&self) -> (u8, u8) {
        match self.bytes {
            [_, _, flags, more, ..] => (flags & 0x01, more & 0x10),
            _ => (0, 0),
        }
    }

    /// Whether the client speaks EDNS.
    pub(super) fn speaks_edns(&self) -> bool {
        self.edns.is_some()
    }

    /// The largest datagram that the client takes.
    pub(super) fn limit(&self) -> usize {
        let wanted = self.edns.unwrap_or(MIN_UDP);
        usize::from(wanted.clamp(MIN_UDP, super::question::MAX_UDP))
    }
}

/// The payload size in an EDNS record of version 0 that is the rest of the
/// message. Its options are read by nobody.
fn payload(rest: &[u8]) -> Option<u16> {
    let (fixed, options) = rest.split_first_chunk::<11>()?;
    let &[0, 0, 41, size_high, size_low, 0, 0, _, _, high, low] = fixed else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // An option that is cut off makes the whole message malformed.
    let mut left = options;
    while !left.is_empty() {
        let &[_, _, high, low] = left.get(..4)? else {
            return None;
        };
        left = left.get(4 + usize::from(u16::from_be_bytes([high, low]))..)?;
    }
    (options.len() == length).then(|| u16::from_be_bytes([size_high, size_low]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, Message, Query};
    use hickory_proto::rr::Name;

    fn message(name: &str, query_type: RecordType, edns: Option<u16>) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(
            Name::from_ascii(name).expect("a name"),
            query_type,
        ));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message.to_vec().expect("encodes")
    }

    #[test]
    fn ordinary_queries_are_read() {
        let mut key = QuestionKey::new();
        let bytes = message("WwW.Example.com.", RecordType::AAAA, Some(4096));
        let plain = Plain::read(&bytes, &mut key).expect("ordinary");
        assert_eq!(key.name().expect("a name").as_str(), "www.example.com");
        assert_eq!(key.plain_text(), Some("www.example.com"));
        assert_eq!(type_of(key.as_bytes()), Some(RecordType::AAAA));
        assert_eq!(plain.limit(), 1232);
        assert!(plain.question().starts_with(b"\x03WwW\x07Example"));
        assert_eq!(plain.repeated_flags(), (1, 0));
        let bytes = message("a.test.", RecordType::A, None);
        let plain = Plain::read(&bytes, &mut key).expect("ordinary");
        assert_eq!((plain.limit(), plain.speaks_edns()), (512, false));
        // The key is used again: nothing of a longer name stays.
        assert_eq!(key.plain_text(), Some("a.test"));
        for name in [
            "a.localhost.",
            "1.0.0.127.in-addr.arpa.",
            "a.b.7.",
            "x.0x7.",
        ] {
            let bytes = message(name, RecordType::A, None);
            assert!(Plain::read(&bytes, &mut key).is_some());
            assert_eq!(key.plain_text(), None, "{name}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_full_parser() {
        let good = message("a.test.", RecordType::A, Some(1232));
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let long = [good.clone(), vec![0]].concat();
        let unusual: [Vec<u8>; 10] = [
            Vec::new(),
            good[..11].to_vec(),
            good[..good.len() - 1].to_vec(),
            long,
            changed(2, 0x81),
            changed(2, 0x11),
            changed(5, 2),
            changed(11, 2),
            changed(12, 0xc0),
            changed(13, b'.'),
        ];
        for bytes in unusual {
            assert!(
                Plain::read(&bytes, &mut QuestionKey::new()).is_none(),
                "{bytes:?}"
            );
        }
        let root = message(".", RecordType::A, None);
        assert!(Plain::read(&root, &mut QuestionKey::new()).is_none());
        // Every cut of it, and every single byte of damage, is survived.
        for at in 0..good.len() {
            for to in [0, 1, 63, 64, 0xff] {
                let _ = Plain::read(&changed(at, to), &mut QuestionKey::new());
            }
            let _ = Plain::read(&good[..at], &mut QuestionKey::new());
        }
    }

    #[test]
    fn the_longest_name_fits() {
        let label = "a".repeat(63);
        let name = format!("{label}.{label}.{label}.{}.", "b".repeat(61));
        let bytes = message(&name, RecordType::A, None);
        let mut key = QuestionKey::new();
        assert!(Plain::read(&bytes, &mut key).is_some());
        assert_eq!(key.as_bytes().len(), 257);
    }
}
