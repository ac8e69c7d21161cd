//! What an upstream says: the ordinary answer read in place, any other by the general parser.
//!
//! Nearly every answer is some addresses of the very name that was asked for. Whatever is
//! unusual in any way is left to the general parser, which also says what is wrong with it.

use super::query::{HEADER, TYPE_AND_CLASS};
use super::question::name_at;
use super::template::after_name;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Record types (RFC 1035 section 3.2.2, RFC 3596, RFC 6891, RFC 2931, RFC 8945).
const ADDRESS_V4: [u8; 2] = [0, 1];
const ADDRESS_V6: [u8; 2] = [0, 28];
const OPT: [u8; 2] = [0, 41];
const SIGNATURES: [[u8; 2]; 2] = [[0, 24], [0, 250]];
/// Records that are read here; no server that means well sends more.
const MOST: u8 = 128;

/// An answer to a question that was asked.
#[derive(Debug)]
pub(super) enum Answer {
    /// Addresses of the very name, never none.
    Addresses(Vec<Record>),
    /// Anything else.
    Message(Box<Message>),
}

impl Answer {
    pub(super) fn code(&self) -> ResponseCode {
        match self {
            Self::Addresses(_) => ResponseCode::NoError,
            Self::Message(message) => message.metadata.response_code,
        }
    }

    /// Whether it says what there is: nobody asks this upstream again.
    pub(super) fn is_final(&self) -> bool {
        let is_known = matches!(self.code(), ResponseCode::NoError | ResponseCode::NXDomain);
        is_known && !self.is_truncated()
    }

    /// Whether there is more that did not fit.
    pub(super) fn is_truncated(&self) -> bool {
        match self {
            Self::Addresses(_) => false,
            Self::Message(message) => message.metadata.truncation,
        }
    }
}

/// The addresses in an answer whose question stands at `question` and is the one that was
/// asked. `None` unless it holds those and nothing else in its answer section, all of them
/// owned by the name of the question. What follows the answers is walked through and not
/// read, but for an extended error code (RFC 6891): malformed data there is not noticed,
/// and nothing is taken from it.
pub(super) fn addresses(bytes: &[u8], question: Range<usize>) -> Option<Vec<Record>> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let &[
        _,
        _,
        flags,
        more_flags,
        0,
        1,
        0,
        answers @ 1..=MOST,
        authorities_high,
        authorities_low,
        additional_high,
        additional_low,
    ] = header
    else {
        return None;
    };
    // A response to a standard query, not truncated, without an error.
    if flags & 0b1111_1010 != 0x80 || more_flags & 0x0f != 0 {
        return None;
    }
    let kind = question.end.checked_sub(TYPE_AND_CLASS)?;
    let owner = name_at(bytes.get(..kind)?, question.start)?;
    let kind: [u8; 2] = bytes.get(kind..kind + 2)?.try_into().ok()?;
    let mut at = question.end;
    let mut records = Vec::with_capacity(answers.into());
    for _ in 0..answers {
        let (fixed, data) = bytes.get(at..)?.split_first_chunk::<12>()?;
        // A pointer to the question, the asked type, the class of the internet.
        let &[0xc0, 0x0c, high, low, 0, 1, ref ttl @ .., 0, length] = fixed else {
            return None;
        };
        if [high, low] != kind {
            return None;
        }
        let data = data.get(..length.into())?;
        let data = match kind {
            ADDRESS_V4 => RData::A(A(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?))),
            ADDRESS_V6 => RData::AAAA(AAAA(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?))),
            _ => return None,
        };
        records.push(Record::from_rdata(
            owner.clone(),
            u32::from_be_bytes(*ttl),
            data,
        ));
        at += fixed.len() + usize::from(length);
    }
    let mut may_have_edns = false;
    let authorities = u16::from_be_bytes([authorities_high, authorities_low]);
    let additional = u16::from_be_bytes([additional_high, additional_low]);
    for number in 0..u32::from(authorities) + u32::from(additional) {
        if number == u32::from(authorities) {
            may_have_edns = true;
        }
        let is_of_root = bytes.get(at) == Some(&0);
        let (fixed, data) = bytes
            .get(after_name(bytes, at)?..)?
            .split_first_chunk::<10>()?;
        let &[
            high,
            low,
            _,
            _,
            extended_code,
            version,
            _,
            _,
            length_high,
            length_low,
        ] = fixed;
        let kind = [high, low];
        if kind == OPT {
            if !(may_have_edns && is_of_root) || extended_code != 0 || version != 0 {
                return None;
            }
            may_have_edns = false;
        } else if SIGNATURES.contains(&kind) {
            return None;
        }
        let data = data.get(u16::from_be_bytes([length_high, length_low]).into()..)?;
        at = bytes.len() - data.len();
    }
    (at == bytes.len()).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::chain::{Learned, follow};
    use crate::model::DomainName;
    use hickory_proto::op::{Edns, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::NS;
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;

    const NAME: &str = "WwW.example.com.";

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn question() -> Range<usize> {
        HEADER..HEADER + NAME.len() + 1 + TYPE_AND_CLASS
    }

    /// Answers by so many addresses, with so many records behind them.
    fn message(kind: RecordType, addresses: u8, authorities: u8, edns: bool) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.metadata.authoritative = true;
        message.add_query(Query::query(name(NAME), kind));
        for last in 0..addresses {
            let data = match kind {
                RecordType::A => RData::A(A(Ipv4Addr::new(203, 0, 113, last))),
                _ => RData::AAAA(AAAA(Ipv6Addr::from(u128::from(last) + (0x2001 << 112)))),
            };
            message.add_answer(Record::from_rdata(name(NAME), 60 + u32::from(last), data));
        }
        for number in 0..authorities {
            let server = name(&format!("ns{number}.example.com."));
            let glue = RData::A(A(Ipv4Addr::new(192, 0, 2, number)));
            message.add_additional(Record::from_rdata(server.clone(), 600, glue));
            message.add_authority(Record::from_rdata(
                name("example.com."),
                600,
                RData::NS(NS(server)),
            ));
        }
        if edns {
            message.set_edns(Edns::new());
        }
        message
    }

    /// What the general parser makes of it.
    fn in_general(bytes: &[u8], kind: RecordType) -> Option<Learned> {
        let message = Message::from_vec(bytes).ok()?;
        if message.metadata.message_type != MessageType::Response
            || message.metadata.op_code != OpCode::Query
            || message.metadata.truncation
            || message.metadata.response_code != ResponseCode::NoError
        {
            return None;
        }
        follow(&DomainName::parse(NAME).expect("a name"), kind, &message).ok()
    }

    #[test]
    fn ordinary_answers_are_read_as_the_general_parser_would() {
        for kind in [RecordType::A, RecordType::AAAA] {
            for (count, authorities, edns) in
                [(1, 0, false), (1, 2, true), (100, 0, true), (3, 1, false)]
            {
                let bytes = message(kind, count, authorities, edns)
                    .to_vec()
                    .expect("bytes");
                let found = addresses(&bytes, question()).expect("ordinary");
                assert_eq!(found.len(), usize::from(count));
                assert_eq!(Some(Learned::addresses(found)), in_general(&bytes, kind));
                for length in 0..bytes.len() {
                    assert!(
                        addresses(&bytes[..length], question()).is_none(),
                        "cut at {length}"
                    );
                }
                let longer = [bytes, vec![0]].concat();
                assert!(addresses(&longer, question()).is_none(), "a byte too many");
            }
        }
    }

    #[test]
    fn what_is_not_ordinary_is_left_to_the_general_parser() {
        type Change = fn(&mut Message);
        let changes: [(&str, Change); 9] = [
            ("no answer", |m| m.answers.clear()),
            ("an error", |m| {
                m.metadata.response_code = ResponseCode::NXDomain
            }),
            ("an extended error", |m| {
                m.metadata.response_code = ResponseCode::BADVERS;
            }),
            ("truncated", |m| m.metadata.truncation = true),
            ("a question", |m| {
                m.metadata.message_type = MessageType::Query
            }),
            ("a status", |m| m.metadata.op_code = OpCode::Status),
            ("another owner", |m| {
                m.answers[0].name = name("a.example.com.")
            }),
            ("another type", |m| {
                m.answers[0].data = RData::NS(NS(name("a.example.com.")))
            }),
            ("another class", |m| {
                m.answers[0].dns_class = hickory_proto::rr::DNSClass::CH;
            }),
        ];
        for (what, change) in changes {
            let mut message = message(RecordType::A, 2, 1, true);
            change(&mut message);
            let bytes = message.to_vec().expect("bytes");
            assert!(addresses(&bytes, question()).is_none(), "{what}");
        }
    }

    #[test]
    fn edns_belongs_to_the_root() {
        let mut bytes = message(RecordType::A, 1, 0, false).to_vec().expect("bytes");
        bytes[HEADER - 1] = 1;
        let opt = [0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        let with = |owner: &[u8]| [&bytes, owner, &opt].concat();
        assert!(addresses(&with(&[0]), question()).is_some());
        assert!(addresses(&with(&[0xc0, 0x0c]), question()).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_what_the_general_parser_reads(
            six in any::<bool>(),
            count in 1_u8..4,
            authorities in 0_u8..3,
            edns in any::<bool>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let kind = if six { RecordType::AAAA } else { RecordType::A };
            let mut bytes = message(kind, count, authorities, edns).to_vec().expect("bytes");
            for (at, value) in changes {
                let at = at.index(bytes.len());
                // The question was compared before.
                if !question().contains(&at) {
                    bytes[at] = value;
                }
            }
            if let Some(found) = addresses(&bytes, question())
                && let Ok(general) = Message::from_vec(&bytes)
            {
                prop_assert!(!general.answers.is_empty());
                prop_assert_eq!(Some(Learned::addresses(found)), in_general(&bytes, kind));
            }
        }
    }
}
