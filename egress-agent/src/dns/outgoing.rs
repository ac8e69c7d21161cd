//! A question as an upstream gets it, and by what its answer is known.
//!
//! Written byte by byte: every cold name passes here, and there is nothing in it but a
//! name, a type, and one option.

use super::cache::Key;
use super::incoming::{self, Answer};
use super::name::append_wire;
use super::query::{HEADER, TYPE_AND_CLASS};
use super::question::MAX_UDP;
use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// A standard query, recursion desired (RFC 1035 section 4.1.1).
const FLAGS: [u8; 2] = [0x01, 0x00];
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
    /// Hides its length from who sees the encrypted one; only with EDNS.
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
        append_wire(&key.name, &mut bytes);
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

    /// What the message says, if it answers this question.
    pub(super) fn answered_by(&self, bytes: &[u8]) -> Option<Answer> {
        // Only what may match is parsed.
        if !self.is_repeated_by(bytes) {
            return None;
        }
        if let Some(addresses) = incoming::addresses(bytes, HEADER..self.end) {
            return Some(Answer::Addresses(addresses));
        }
        let message = Message::from_vec(bytes).ok()?;
        let matches = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query;
        matches.then(|| Answer::Message(Box::new(message)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DomainName;
    use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
    use std::collections::BTreeSet;

    const PLAIN: Style = Style {
        edns: true,
        padded: false,
        mixed_case: false,
    };
    const MIXED: Style = Style {
        mixed_case: true,
        ..PLAIN
    };

    fn key(name: &str, query_type: RecordType) -> Key {
        Key {
            view: None,
            name: DomainName::parse(name).expect("a name"),
            query_type,
        }
    }

    fn question(name: &str, query_type: RecordType, style: Style) -> Question {
        Question::new(&key(name, query_type), style).expect("it fits")
    }

    /// The answer that has the question's own bytes.
    fn echo(question: &Question) -> Vec<u8> {
        let mut bytes = question.bytes().to_vec();
        bytes[2] |= 0x80;
        bytes
    }

    #[test]
    fn another_implementation_reads_what_was_meant() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        let styles = [true, false].into_iter().flat_map(|edns| {
            [(false, false), (true, false), (false, true)].map(|(padded, mixed_case)| Style {
                edns,
                padded: padded && edns,
                mixed_case,
            })
        });
        for style in styles {
            for name in ["a", "www.example.com", "_x.1-2.example", &longest] {
                for query_type in [
                    RecordType::A,
                    RecordType::HTTPS,
                    RecordType::Unknown(65_000),
                ] {
                    let question = question(name, query_type, style);
                    let read = Message::from_vec(question.bytes()).expect("a message");
                    assert_eq!(read.metadata.message_type, MessageType::Query);
                    assert_eq!(read.metadata.op_code, OpCode::Query);
                    assert!(read.metadata.recursion_desired);
                    let [query] = read.queries.as_slice() else {
                        panic!("one question");
                    };
                    assert_eq!(query.name.to_ascii().to_lowercase(), format!("{name}."));
                    assert_eq!(query.query_type, query_type);
                    assert_eq!(query.query_class, DNSClass::IN);
                    assert!(read.answers.is_empty() && read.authorities.is_empty());
                    assert_eq!(read.edns.is_some(), style.edns);
                    let Some(edns) = &read.edns else { continue };
                    assert_eq!((edns.version(), edns.max_payload()), (0, MAX_UDP));
                    let padding = edns.option(EdnsCode::Padding);
                    assert_eq!(padding.is_some(), style.padded);
                    if let Some(EdnsOption::Unknown(_, zeroes)) = padding {
                        assert!(zeroes.iter().all(|byte| *byte == 0));
                        assert!(question.bytes().len().is_multiple_of(PADDED_TO));
                    }
                }
            }
        }
    }

    #[test]
    fn an_answer_repeats_id_and_question() {
        let asked = question("www.example.com", RecordType::HTTPS, PLAIN);
        let good = echo(&asked);
        assert!(asked.answered_by(&good).is_some());
        let upper: Vec<u8> = good.iter().map(u8::to_ascii_uppercase).collect();
        let mut shouted = good.clone();
        shouted[HEADER..asked.end].copy_from_slice(&upper[HEADER..asked.end]);
        assert!(
            asked.answered_by(&shouted).is_some(),
            "in any case of letters"
        );
        // Each byte that is compared, changed. In the flags only two fields count.
        for at in (0..asked.end).filter(|at| [0, 1, 4, 5].contains(at) || *at >= HEADER) {
            let mut other = good.clone();
            other[at] ^= 1;
            assert!(asked.answered_by(&other).is_none(), "byte {at}");
        }
        // Type 97 is type 65 in another case, if a type were text.
        let mut other = good.clone();
        other[asked.end - 3] ^= 0x20;
        assert!(asked.answered_by(&other).is_none(), "another type");
        for length in 0..asked.end {
            assert!(
                asked.answered_by(&good[..length]).is_none(),
                "cut at {length}"
            );
        }
        assert!(asked.answered_by(asked.bytes()).is_none(), "no answer");
    }

    #[test]
    fn letters_have_a_random_case_that_the_answer_must_repeat() {
        let name = format!(
            "{}.{}.example",
            "abcdefghijklmnopqrstuvwxyz-0123456789",
            "z".repeat(60)
        );
        let spellings: BTreeSet<Vec<u8>> = (0..64)
            .map(|_| {
                let asked = question(&name, RecordType::A, MIXED);
                let mut bytes = echo(&asked);
                assert!(asked.answered_by(&bytes).is_some());
                let letter = (HEADER..asked.end - TYPE_AND_CLASS)
                    .rev()
                    .find(|at| bytes[*at].is_ascii_alphabetic())
                    .expect("a letter");
                bytes[letter] ^= 0x20;
                assert!(asked.answered_by(&bytes).is_none(), "another case");
                asked.bytes()[HEADER..asked.end].to_vec()
            })
            .collect();
        assert_eq!(
            spellings.len(),
            64,
            "93 letters, and two spellings are the same"
        );
        for at in 0..name.len() {
            if name.as_bytes()[at].is_ascii_lowercase() {
                let upper = spellings.iter().filter(|s| s[at + 1].is_ascii_uppercase());
                assert!((8..=56).contains(&upper.count()), "letter {at}");
            }
        }
        let ids: BTreeSet<[u8; 2]> = (0..64)
            .map(|_| {
                let asked = question("a", RecordType::A, PLAIN);
                [asked.bytes()[0], asked.bytes()[1]]
            })
            .collect();
        assert!(ids.len() > 48, "{} different ids", ids.len());
    }
}
