//! From bytes to the one question that a query may hold.

use super::name;
use super::query::{self, HEADER, Plain, QuestionKey};
use crate::model::DomainName;
use egress_common::Reason;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// The largest UDP answer that is sent: what crosses any path unfragmented
/// (DNS flag day 2020).
pub(super) const MAX_UDP: u16 = 1232;
/// What a client without EDNS can take (RFC 1035 section 2.3.4).
const MIN_UDP: u16 = 512;

/// What every reply repeats from the query, also from one that cannot be served.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) id: u16,
    pub(super) op_code: OpCode,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    /// As the client wrote it, letter case included (some clients compare it).
    pub(super) query: Option<Query>,
    /// Whether the client speaks EDNS. Its options (cookies, subnet, …) are
    /// read by nobody and forwarded to nobody.
    pub(super) edns: bool,
    /// The largest datagram that the client takes.
    pub(super) payload: u16,
}

/// A question that may be judged.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) envelope: Envelope,
    pub(super) name: DomainName,
    pub(super) query_type: RecordType,
}

/// What is no question.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Too short to be answered, or itself an answer: any reply could start a loop.
    Silent,
    /// Answered with an error.
    Bad {
        envelope: Envelope,
        code: ResponseCode,
        reason: Reason,
    },
}

/// Reads a message from a client.
pub(super) fn read(bytes: &[u8]) -> Result<Question, Unusable> {
    ordinary(bytes).map_or_else(|| in_full(bytes), Ok)
}

/// Reads an ordinary query; `None` if it is not one.
fn ordinary(bytes: &[u8]) -> Option<Question> {
    let mut key = QuestionKey::new();
    let plain = Plain::read(bytes, &mut key)?;
    let name = key.name()?;
    let query_type = query::type_of(key.as_bytes())?;
    let mut asked = Query::query(name_at(bytes, HEADER)?, query_type);
    asked.set_query_class(DNSClass::IN);
    let envelope = Envelope {
        query: Some(asked),
        edns: plain.speaks_edns(),
        payload: u16::try_from(plain.limit()).ok()?,
        ..header(bytes).ok()?
    };
    Some(Question {
        envelope,
        name,
        query_type,
    })
}

/// The name that begins at this place of a message.
pub(super) fn name_at(message: &[u8], at: usize) -> Option<Name> {
    let mut decoder = BinDecoder::new(message);
    decoder.read_slice(at).ok()?;
    Name::read(&mut decoder).ok()
}

/// Reads whatever a client may send, and says what is wrong with it.
fn in_full(bytes: &[u8]) -> Result<Question, Unusable> {
    let mut envelope = header(bytes)?;
    let bad = |envelope: &Envelope, code, reason| Unusable::Bad {
        envelope: envelope.clone(),
        code,
        reason,
    };
    if envelope.op_code != OpCode::Query {
        return Err(bad(&envelope, ResponseCode::NotImp, Reason::MalformedQuery));
    }
    // Before the full parse, which would make room for 65,535 questions.
    if bytes.get(4..6) != Some(&[0, 1]) {
        return Err(bad(
            &envelope,
            ResponseCode::FormErr,
            Reason::MalformedQuery,
        ));
    }
    let Ok(message) = Message::from_vec(bytes) else {
        return Err(bad(
            &envelope,
            ResponseCode::FormErr,
            Reason::MalformedQuery,
        ));
    };
    if let Some(edns) = &message.edns {
        envelope.edns = true;
        envelope.payload = edns.max_payload().clamp(MIN_UDP, MAX_UDP);
    }
    let Some(query) = message.queries.into_iter().next() else {
        return Err(bad(
            &envelope,
            ResponseCode::FormErr,
            Reason::MalformedQuery,
        ));
    };
    envelope.query = Some(query.clone());
    if message.edns.is_some_and(|edns| edns.version() > 0) {
        return Err(bad(
            &envelope,
            ResponseCode::BADVERS,
            Reason::MalformedQuery,
        ));
    }
    if query.query_class != DNSClass::IN {
        return Err(bad(&envelope, ResponseCode::Refused, Reason::QueryType));
    }
    if query.name.is_root() {
        return Err(bad(&envelope, ResponseCode::Refused, Reason::NameInvalid));
    }
    let Some(name) = name::canonical(&query.name) else {
        return Err(bad(&envelope, ResponseCode::NXDomain, Reason::NameInvalid));
    };
    Ok(Question {
        envelope,
        name,
        query_type: query.query_type,
    })
}

/// Reads the twelve bytes that even an unreadable message has.
fn header(bytes: &[u8]) -> Result<Envelope, Unusable> {
    let Some(&[id_high, id_low, flags, more_flags, ..]) = bytes.get(..HEADER) else {
        return Err(Unusable::Silent);
    };
    if flags & 0x80 != 0 {
        return Err(Unusable::Silent);
    }
    Ok(Envelope {
        id: u16::from_be_bytes([id_high, id_low]),
        op_code: OpCode::from_u8((flags >> 3) & 0x0f),
        recursion_desired: flags & 0x01 != 0,
        checking_disabled: more_flags & 0x10 != 0,
        query: None,
        edns: false,
        payload: MIN_UDP,
    })
}

impl Envelope {
    /// The header and question of a reply. AD is never set: nothing is
    /// validated here, and an upstream's word for it is not proof. CD is
    /// repeated (RFC 4035 section 3.2.2).
    pub(super) fn reply(&self, code: ResponseCode) -> Message {
        let mut message = Message::new(self.id, MessageType::Response, self.op_code);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.response_code = code;
        message.add_queries(self.query.clone());
        message
    }
}
