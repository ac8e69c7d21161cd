//! What goes back to the client.

use super::gate::Gate;
use super::plain_answer;
use super::question::{Envelope, MAX_UDP, Question};
use super::screen::Opened;
use super::template::Template;
use egress_common::{Protocol, Reason};
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Loopback never changes; the TTL is only there to have one.
const LOCALHOST_TTL: u32 = 300;
/// The EDNS option of RFC 8914.
const EXTENDED_ERROR: u16 = 15;
/// Longer explanations are cut: the answer must fit into one datagram.
pub(super) const MAX_EXPLANATION: usize = 400;

/// A reply, ready to be encoded.
#[derive(Debug)]
pub(super) struct Reply {
    envelope: Envelope,
    code: ResponseCode,
    answers: Vec<Record>,
    /// Whether all answers are owned by the asked name.
    is_direct: bool,
    /// How long clients may remember that there is nothing.
    negative_ttl: Duration,
    explanation: Option<Explanation>,
}

/// An extended error.
#[derive(Clone, Debug)]
struct Explanation {
    code: u16,
    text: String,
}

impl Reply {
    /// The only way to answer with what an upstream said: it takes what was
    /// opened, receipt included, and says nothing that was not opened.
    pub(super) fn positive<G: Gate>(question: &Question, opened: Opened<G>) -> (Self, G::Receipt) {
        let is_direct = opened.is_direct();
        let (mut records, answer_ttl, receipt) = opened.redeem();
        let ttl = u32::try_from(answer_ttl.as_secs()).unwrap_or(u32::MAX);
        let asked = question.envelope.query.as_ref().map(|query| &query.name);
        for record in &mut records {
            record.ttl = ttl;
            // The letter case of the question (0x20): some clients compare it.
            if let Some(asked) = asked
                && (is_direct || record.name == *asked)
            {
                record.name.clone_from(asked);
            }
        }
        let reply = Self {
            answers: records,
            is_direct,
            ..Self::new(&question.envelope, ResponseCode::NoError)
        };
        (reply, receipt)
    }

    /// The addresses of loopback names, which are the same everywhere and need
    /// no grant: loopback is opened by network rules alone.
    pub(super) fn localhost(question: &Question) -> Self {
        let mut reply = Self::new(&question.envelope, ResponseCode::NoError);
        let data = match question.query_type {
            RecordType::A => Some(RData::A(A(Ipv4Addr::LOCALHOST))),
            RecordType::AAAA => Some(RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
            _ => None,
        };
        let asked = question
            .envelope
            .query
            .as_ref()
            .map(|query| query.name.clone());
        if let (Some(data), Some(asked)) = (data, asked) {
            reply
                .answers
                .push(Record::from_rdata(asked, LOCALHOST_TTL, data));
        } else {
            reply.negative_ttl = Duration::from_secs(LOCALHOST_TTL.into());
        }
        reply
    }

    /// What the upstream says does not exist.
    pub(super) fn nothing(question: &Question, no_such_name: bool, ttl: Duration) -> Self {
        let code = if no_such_name {
            ResponseCode::NXDomain
        } else {
            ResponseCode::NoError
        };
        Self {
            negative_ttl: ttl,
            ..Self::new(&question.envelope, code)
        }
    }

    /// What policy refuses.
    pub(super) fn refusal(
        envelope: &Envelope,
        code: ResponseCode,
        (reason, help): (Reason, Option<&str>),
        negative_ttl: Duration,
    ) -> Self {
        let text = match help {
            Some(help) => format!("{}; {help}", reason.sentence()),
            None => reason.sentence().to_owned(),
        };
        Self {
            negative_ttl,
            explanation: Some(Explanation {
                code: extended_code(reason),
                text,
            }),
            ..Self::new(envelope, code)
        }
    }

    /// SERVFAIL with an extended error: 22 nobody answered, 23 the network or
    /// the answers are broken, 0 anything else.
    pub(super) fn failure(envelope: &Envelope, extended: u16, text: &str) -> Self {
        Self {
            explanation: Some(Explanation {
                code: extended,
                text: text.to_owned(),
            }),
            ..Self::new(envelope, ResponseCode::ServFail)
        }
    }

    /// Says that the answer is past its time (RFC 8914 code 3).
    pub(super) fn say_stale(&mut self) {
        self.explanation.get_or_insert_with(|| Explanation {
            code: 3,
            text: "no upstream resolver answers; this is what was known before".to_owned(),
        });
    }

    fn new(envelope: &Envelope, code: ResponseCode) -> Self {
        Self {
            envelope: envelope.clone(),
            code,
            answers: Vec::new(),
            is_direct: false,
            negative_ttl: Duration::ZERO,
            explanation: None,
        }
    }

    /// The bytes to send. What does not fit into a datagram is sent as
    /// truncated, so that the client comes back over TCP.
    pub(super) fn encode(&self, transport: Protocol) -> Option<Vec<u8>> {
        let limit = match transport {
            // Nobody asks by ICMP.
            Protocol::Udp | Protocol::Icmp => usize::from(self.envelope.payload.min(MAX_UDP)),
            Protocol::Tcp => usize::from(u16::MAX),
        };
        if let Some(bytes) = self.plain()
            && let bytes = plain_answer::addressed(bytes, &self.envelope)
            && bytes.len() <= limit
        {
            return Some(bytes);
        }
        let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
        let mut message = self.message(true);
        // A message that does not even encode is cut like one that is too long.
        if let Some(bytes) = fits(&message) {
            return Some(bytes);
        }
        if let Some(bytes) = fits(&self.message(false)) {
            return Some(bytes);
        }
        message.answers.clear();
        message.authorities.clear();
        message.edns = self.edns(false);
        message.metadata.truncation = true;
        fits(&message)
    }

    /// The reply to whoever asks the same again; `None` if it is too long for a
    /// datagram.
    pub(super) fn template(&self) -> Option<Template> {
        if let Some(mut bytes) = self.plain() {
            plain_answer::lower_question(&mut bytes);
            return Template::new(bytes).filter(Template::fits_a_datagram);
        }
        let mut message = self.message(false);
        message.metadata.id = 0;
        message.metadata.recursion_desired = false;
        message.metadata.checking_disabled = false;
        message.edns = None;
        // In one letter case, so that the owner of a record is the question.
        for query in &mut message.queries {
            query.name = query.name.to_lowercase();
        }
        let asked = message.queries.first()?.name.clone();
        for record in &mut message.answers {
            if record.name == asked {
                record.name = asked.clone();
            }
        }
        Template::new(message.to_vec().ok()?).filter(Template::fits_a_datagram)
    }

    /// The reply, without what belongs to the query, if it is an ordinary one.
    fn plain(&self) -> Option<Vec<u8>> {
        if !self.is_direct || self.explanation.is_some() {
            return None;
        }
        plain_answer::write(self.envelope.query.as_ref()?, &self.answers)
    }

    fn message(&self, explain: bool) -> Message {
        let mut message = self.envelope.reply(self.code);
        message.answers.clone_from(&self.answers);
        message.authorities = self.authority().into_iter().collect();
        message.edns = self.edns(explain);
        message
    }

    fn edns(&self, explain: bool) -> Option<Edns> {
        // RFC 6891 section 6.1.1: only to clients that sent one.
        if !self.envelope.edns {
            return None;
        }
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        if let Some(Explanation { code, text }) = self.explanation.as_ref().filter(|_| explain) {
            let mut data = code.to_be_bytes().to_vec();
            data.extend(cut(text, MAX_EXPLANATION).as_bytes());
            edns.options_mut()
                .insert(EdnsOption::Unknown(EXTENDED_ERROR, data));
        }
        Some(edns)
    }

    /// The record by which clients know how long a "no" lasts (RFC 2308). Its
    /// owner is the name above the asked one: the asked name itself would be
    /// said to be a zone and not to exist, in one message.
    fn authority(&self) -> Option<Record> {
        let ttl = u32::try_from(self.negative_ttl.as_secs()).unwrap_or(u32::MAX);
        if ttl == 0 || !self.answers.is_empty() {
            return None;
        }
        let owner = self.envelope.query.as_ref()?.name.base_name();
        let label = |text: &str| Name::from_labels([text.as_bytes(), b"invalid"]).ok();
        let (server, person) = (label("egress-agent")?, label("nobody")?);
        let soa = SOA::new(server, person, 1, 3600, 600, 86_400, ttl);
        Some(Record::from_rdata(owner, ttl, RData::SOA(soa)))
    }
}

/// The RFC 8914 code that fits: 15 blocked (a rule forbids it), 17 filtered
/// (part of the answer was taken out), 18 prohibited (nothing allows it to this
/// client), 0 otherwise.
pub(super) fn extended_code(reason: Reason) -> u16 {
    match reason {
        Reason::NameBlocked
        | Reason::ChainRefused
        | Reason::NameBudget
        | Reason::QueryBudget
        | Reason::SandboxBlocked
        | Reason::Emergency => 15,
        Reason::QueryType | Reason::Rebinding | Reason::NeverAllowed | Reason::TooManyAddresses => {
            17
        }
        Reason::NameNotAllowed
        | Reason::NameInvalid
        | Reason::RuleExpired
        | Reason::UnknownAsker
        | Reason::UnknownSandbox
        | Reason::NoRule => 18,
        Reason::Unparsable
        | Reason::Disturbed
        | Reason::SocketKind
        | Reason::SocketOption
        | Reason::Lapsed
        | Reason::Loopback
        | Reason::Inbound
        | Reason::ForeignSocket
        | Reason::OtherResolver
        | Reason::NoResolver
        | Reason::Revoked
        | Reason::HelperFailed
        | Reason::Misrouted
        | Reason::TooManyQueries
        | Reason::TooManyConnections
        | Reason::LinkFrame
        | Reason::SpoofedSource
        | Reason::NoConnection
        | Reason::ConnectionsFull
        | Reason::UpstreamFailed
        | Reason::GrantFailed
        | Reason::MalformedQuery => 0,
    }
}

/// At most `bytes` of the text, cut between characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
