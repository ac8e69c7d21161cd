//! A question as an upstream gets it, and by what its answer is known.
//!
//! Written byte by byte: every cold name passes here, and there is nothing in it but a
//! name, a type, and one option.

use super::cache::Key;
use super::question::MAX_UDP;
use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// A standard query, recursion desired (RFC 1035 section 4.1.1).
const FLAGS: [u8; 2] = [0x01, 0x00];
const HEADER: usize = 12;
/// Type and class behind the name of a question.
const TYPE_AND_CLASS: usize = 4;
/// An OPT record without its options (RFC 6891 section 6.1.2).
const OPT: usize = 11;
/// The EDNS option of RFC 7830, and the length that RFC 8467 recommends for queries.
const PADDING: u16 = 12;
const PADDED_TO: usize = 128;
/// The code and the length of an option.
const OPTION_HEAD: usize = 4;

/// How a question is put.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) edns: bool,
    /// Hides its length from who sees the encrypted one; needs EDNS.
    pub(super) padded: bool,
    /// Random letter case (0x20), which the answer must repeat: one bit for each
    /// letter that a forger off the path must guess.
    pub(super) mixed_case: bool,
}

/// What was sent, and by what its answer is known.
pub(super) struct Question {
    mixed_case: bool,
    /// Where the question ends in the message.
    end: usize,
    bytes: Vec<u8>,
}

impl Question {
    /// A query with a random id. It carries nothing of the client's query but
    /// name and type: no cookie, no subnet, no letter case. `None` cannot happen for a
    /// canonical name, whose bounds are those of the wire.
    pub(super) fn new(key: &Key, style: Style) -> Option<Self> {
        let mut bytes = Vec::with_capacity(2 * PADDED_TO);
        bytes.extend(rand::random::<u16>().to_be_bytes());
        bytes.extend(FLAGS);
        // One question, and one record behind it if there is EDNS.
        bytes.extend([0, 1, 0, 0, 0, 0, 0, u8::from(style.edns)]);
        for label in key.name.labels() {
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        if style.mixed_case {
            mix(bytes.get_mut(HEADER..)?);
        }
        bytes.extend(u16::from(key.query_type).to_be_bytes());
        bytes.extend(u16::from(DNSClass::IN).to_be_bytes());
        let end = bytes.len();
        if style.edns {
            bytes.push(0);
            bytes.extend(u16::from(RecordType::OPT).to_be_bytes());
            bytes.extend(MAX_UDP.to_be_bytes());
            // Extended code, version and flags.
            bytes.extend([0; 4]);
            let padding = style.padded.then(|| {
                let length = end + OPT + OPTION_HEAD;
                length.next_multiple_of(PADDED_TO) - length
            });
            match padding {
                Some(padding) => {
                    let options = u16::try_from(OPTION_HEAD + padding).ok()?;
                    bytes.extend(options.to_be_bytes());
                    bytes.extend(PADDING.to_be_bytes());
                    bytes.extend(u16::try_from(padding).ok()?.to_be_bytes());
                    bytes.resize(bytes.len() + padding, 0);
                }
                None => bytes.extend([0; 2]),
            }
        }
        Some(Self {
            mixed_case: style.mixed_case,
            end,
            bytes,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message, if it answers this question.
    pub(super) fn answered_by(&self, bytes: &[u8]) -> Option<Message> {
        // Only what may match is parsed.
        if !self.is_repeated_by(bytes) {
            return None;
        }
        let message = Message::from_vec(bytes).ok()?;
        let matches = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query;
        matches.then_some(message)
    }

    /// Whether id, number of questions and question are the same. The name of the first question
    /// stands there in full: nothing is before it that it could point to.
    fn is_repeated_by(&self, bytes: &[u8]) -> bool {
        let name = HEADER..self.end - TYPE_AND_CLASS;
        let kind = name.end..self.end;
        let same = |part: std::ops::Range<usize>| bytes.get(part.clone()) == self.bytes.get(part);
        let same_letters = || match (bytes.get(name.clone()), self.bytes.get(name.clone())) {
            (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
            _ => false,
        };
        same(0..2)
            && same(4..6)
            && same(kind)
            && (same(name.clone()) || (!self.mixed_case && same_letters()))
    }
}

/// Gives each letter a random case. The lengths of labels are below all letters.
fn mix(name: &mut [u8]) {
    for part in name.chunks_mut(u64::BITS as usize) {
        let mut bits: u64 = rand::random();
        for byte in part {
            if bits & 1 == 1 {
                byte.make_ascii_uppercase();
            }
            bits >>= 1;
        }
    }
}
