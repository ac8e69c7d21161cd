//! The ordinary answer, written byte by byte.
//!
//! Nearly every answer is some addresses of the very name that was asked for. It is
//! written twice for each cold name, as a reply and as what the next ones who ask get, in
//! a tenth of what the general encoder takes. Whatever is unusual in any way is left to
//! that.

use super::query::HEADER;
use super::question::Envelope;
use super::template::{OPT, after_name};
use hickory_proto::op::Query;
use hickory_proto::rr::{DNSClass, RData, Record};

/// A response to a standard query, recursion available (RFC 1035 section 4.1.1).
const FLAGS: [u8; 2] = [0x80, 0x80];
/// A pointer to the name of the question (RFC 1035 section 4.1.4).
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
/// The most bytes of a record that holds an address.
const RECORD: usize = 28;
/// The longest question: name, type and class.
const QUESTION: usize = 255 + 4;
/// "Recursion desired" in the third byte and "checking disabled" in the fourth.
const RECURSION_DESIRED: u8 = 0x01;
const CHECKING_DISABLED: u8 = 0x10;

/// The answer to a question by addresses of the name that it asks for. Identifier, flags
/// and EDNS belong to the query and are not there ([`addressed`]). `None` if there is
/// anything else among the records, or nothing.
pub(super) fn write(query: &Query, answers: &[Record]) -> Option<Vec<u8>> {
    let count = u16::try_from(answers.len())
        .ok()
        .filter(|count| *count > 0)?;
    let mut bytes = Vec::with_capacity(HEADER + QUESTION + answers.len() * RECORD + OPT.len());
    bytes.extend([0, 0]);
    bytes.extend(FLAGS);
    bytes.extend([0, 1]);
    bytes.extend(count.to_be_bytes());
    bytes.extend([0; 4]);
    for label in query.name.iter() {
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes.extend(u16::from(query.query_type).to_be_bytes());
    bytes.extend(u16::from(query.query_class).to_be_bytes());
    for record in answers {
        if record.dns_class != DNSClass::IN {
            return None;
        }
        bytes.extend(TO_QUESTION);
        bytes.extend(u16::from(record.record_type()).to_be_bytes());
        bytes.extend(u16::from(DNSClass::IN).to_be_bytes());
        bytes.extend(record.ttl.to_be_bytes());
        match &record.data {
            RData::A(address) => {
                bytes.extend([0, 4]);
                bytes.extend(address.0.octets());
            }
            RData::AAAA(address) => {
                bytes.extend([0, 16]);
                bytes.extend(address.0.octets());
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Adds what belongs to the query.
pub(super) fn addressed(mut bytes: Vec<u8>, to: &Envelope) -> Vec<u8> {
    if let [id_high, id_low, flags, more_flags, ..] = bytes.as_mut_slice() {
        [*id_high, *id_low] = to.id.to_be_bytes();
        *flags |= if to.recursion_desired {
            RECURSION_DESIRED
        } else {
            0
        };
        *more_flags |= if to.checking_disabled {
            CHECKING_DISABLED
        } else {
            0
        };
    }
    if to.edns
        && let Some(additional) = bytes.get_mut(HEADER - 1)
    {
        *additional = 1;
        bytes.extend(OPT);
    }
    bytes
}

/// Brings the name of the question to lower case. The lengths of its labels are below all
/// letters.
pub(super) fn lower_question(bytes: &mut [u8]) {
    if let Some(end) = after_name(bytes, HEADER)
        && let Some(name) = bytes.get_mut(HEADER..end)
    {
        name.make_ascii_lowercase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, Message, OpCode};
    use hickory_proto::rr::rdata::{A, AAAA, TXT};
    use hickory_proto::rr::{Name, RecordType};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const NAME: &str = "WwW.Example.com.";

    fn record(data: RData) -> Record {
        Record::from_rdata(Name::from_ascii(NAME).expect("a name"), 77, data)
    }

    fn v4(last: u8) -> Record {
        record(RData::A(A(Ipv4Addr::new(203, 0, 113, last))))
    }

    fn v6(last: u16) -> Record {
        record(RData::AAAA(AAAA(Ipv6Addr::new(
            0x2001, 0xdb8, 0, 0, 0, 0, 0, last,
        ))))
    }

    fn envelope(query_type: RecordType, flags: [bool; 3]) -> Envelope {
        Envelope {
            id: 0xbeef,
            op_code: OpCode::Query,
            recursion_desired: flags[0],
            checking_disabled: flags[1],
            query: Some(Query::query(
                Name::from_ascii(NAME).expect("a name"),
                query_type,
            )),
            edns: flags[2],
            payload: 1232,
        }
    }

    #[test]
    fn another_implementation_writes_the_same_bytes() {
        let flags = (0..8_u8).map(|n| [n & 1 > 0, n & 2 > 0, n & 4 > 0]);
        let answers = [
            (RecordType::A, vec![v4(1)]),
            (RecordType::A, (0..40).map(v4).collect()),
            (RecordType::AAAA, vec![v6(1), v6(2)]),
        ];
        for flags in flags {
            for (query_type, answers) in &answers {
                let envelope = envelope(*query_type, flags);
                let query = envelope.query.clone().expect("a query");
                let bytes = write(&query, answers).expect("ordinary");
                let mut message: Message = envelope.reply(hickory_proto::op::ResponseCode::NoError);
                message.answers.clone_from(answers);
                if envelope.edns {
                    let mut edns = Edns::new();
                    edns.set_max_payload(1232);
                    message.set_edns(edns);
                }
                let expected = message.to_vec().expect("bytes");
                assert_eq!(addressed(bytes, &envelope), expected, "{flags:?}");
            }
        }
    }

    #[test]
    fn what_is_not_ordinary_is_left_to_the_general_encoder() {
        let envelope = envelope(RecordType::A, [true; 3]);
        let query = envelope.query.clone().expect("a query");
        let text = record(RData::TXT(TXT::new(vec!["text".to_owned()])));
        let mut chaos = v4(1);
        chaos.dns_class = DNSClass::CH;
        for answers in [vec![], vec![text], vec![v4(1), chaos]] {
            assert!(write(&query, &answers).is_none(), "{answers:?}");
        }
    }

    #[test]
    fn the_question_is_brought_to_lower_case_and_nothing_else() {
        let envelope = envelope(RecordType::A, [false; 3]);
        let query = envelope.query.clone().expect("a query");
        // An address of upper-case letters.
        let letters = record(RData::A(A(Ipv4Addr::new(b'A', b'B', b'C', b'D'))));
        let mut bytes = write(&query, &[letters]).expect("ordinary");
        let before = bytes.clone();
        lower_question(&mut bytes);
        let end = HEADER + NAME.len() + 1;
        assert_eq!(bytes[HEADER..end], before[HEADER..end].to_ascii_lowercase());
        assert_eq!(bytes[end..], before[end..]);
        assert!(bytes.ends_with(b"ABCD"));
    }
}
