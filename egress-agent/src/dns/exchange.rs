//! One question to one upstream: over UDP and then TCP (Do53), TLS, or HTTPS.
//!
//! Own code and not hickory's pool, because the product must count what does
//! not match, must know which upstream answered, and needs nothing else of it.

use super::cache::Key;
use super::counters::{Counters, count};
use super::endpoint::Line;
use super::expecting::Expecting;
use super::name::wire;
use super::question::MAX_UDP;
use crate::model::DomainName;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::opt::EdnsOption;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Datagrams that may fail to match before the question goes over TCP, where
/// nobody off the path can answer. A forger needs thousands of tries.
const MAX_MISMATCHES: usize = 16;
/// The EDNS option of RFC 7830, and the length that RFC 8467 recommends for queries.
const PADDING: u16 = 12;
const PADDED_TO: usize = 128;
/// Larger than what is asked for (1232): some servers do not listen.
const RECEIVE: usize = 4096;

/// Why an upstream gave nothing usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer over a stream does not match the question")]
    Mismatch,
    #[error("it answered {0}")]
    Code(ResponseCode),
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("the question cannot be encoded")]
    Encode,
}

/// Asks. The caller bounds the time. Large parts of this future are kept elsewhere: it is
/// moved several times before it begins.
pub(super) async fn exchange(
    server: (SocketAddr, &Line),
    key: &Key,
    mixed_case: bool,
    counters: &Counters,
) -> Result<Message, ExchangeError> {
    let answer = ask(server, key, (true, mixed_case), counters).await?;
    // Servers older than EDNS answer one of these (RFC 6891 section 7).
    let answer = match answer.metadata.response_code {
        ResponseCode::FormErr | ResponseCode::NotImp => {
            ask(server, key, (false, mixed_case), counters).await?
        }
        _ => answer,
    };
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(ExchangeError::Code(code)),
    }
}

async fn ask(
    (server, line): (SocketAddr, &Line),
    key: &Key,
    (edns, mixed_case): (bool, bool),
    counters: &Counters,
) -> Result<Message, ExchangeError> {
    let padded = !matches!(line, Line::Plain);
    let style = Style {
        edns,
        padded,
        mixed_case: mixed_case && !padded,
    };
    let question = Question::new(key, style).ok_or(ExchangeError::Encode)?;
    match line {
        Line::Plain => match over_udp(server, &question, counters).await? {
            Some(answer) if !answer.metadata.truncation => Ok(answer),
            Some(_) | None => Box::pin(over_tcp(server, &question)).await,
        },
        Line::Tls(line) => Box::pin(line.ask(&question)).await,
        Line::Https(line) => Box::pin(line.ask(&question)).await,
    }
}

/// How a question is put.
#[derive(Clone, Copy)]
struct Style {
    edns: bool,
    /// Hides its length from who sees the encrypted one.
    padded: bool,
    /// Random letter case (0x20), which the answer must repeat: one bit for each
    /// letter that a forger off the path must guess.
    mixed_case: bool,
}

/// What was sent, and by what its answer is known.
pub(super) struct Question {
    id: u16,
    query: Query,
    mixed_case: bool,
    bytes: Vec<u8>,
}

impl Question {
    /// A query with a random id. It carries nothing of the client's query but
    /// name and type: no cookie, no subnet, no letter case.
    fn new(key: &Key, style: Style) -> Option<Self> {
        let Style {
            edns,
            padded,
            mixed_case,
        } = style;
        let name = if mixed_case {
            mixed(&key.name)?
        } else {
            wire(&key.name)?
        };
        let query = Query::query(name, key.query_type);
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Query;
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP);
            if padded {
                message.set_edns(edns.clone());
                // The option's head is 4 bytes.
                let length = message.to_vec().ok()?.len() + 4;
                let padding = vec![0; length.next_multiple_of(PADDED_TO) - length];
                edns.options_mut()
                    .insert(EdnsOption::Unknown(PADDING, padding));
            }
            message.set_edns(edns);
        }
        Some(Self {
            id: message.metadata.id,
            query,
            mixed_case,
            bytes: message.to_vec().ok()?,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message, if it answers this question.
    pub(super) fn answered_by(&self, bytes: &[u8]) -> Option<Message> {
        // Id and question count first: only what may match is parsed.
        if bytes.get(..2) != Some(&self.id.to_be_bytes()) || bytes.get(4..6) != Some(&[0, 1]) {
            return None;
        }
        let message = Message::from_vec(bytes).ok()?;
        let matches = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && message.queries.as_slice() == std::slice::from_ref(&self.query);
        let repeats_case = |message: &Message| {
            message
                .queries
                .iter()
                .all(|query| query.name.eq_case(&self.query.name))
        };
        let matches = matches && (!self.mixed_case || repeats_case(&message));
        matches.then_some(message)
    }
}

/// The name with letters in random case. The hash is keyed at random for each name.
fn mixed(name: &DomainName) -> Option<Name> {
    let mut bits = (0_u64..).map(|n| RandomState::new().hash_one(n));
    let mut left = (0, 0);
    let mut flip = |letter: char| {
        if left.1 == 0 {
            left = (bits.next().unwrap_or_default(), u64::BITS);
        }
        left = (left.0 >> 1, left.1 - 1);
        if left.0 & 1 == 1 {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    };
    let labels: Vec<String> = name
        .labels()
        .map(|label| label.chars().map(&mut flip).collect())
        .collect();
    Name::from_labels(labels.iter().map(String::as_bytes)).ok()
}

/// `None` after too many datagrams that do not match.
///
/// A socket per question: the kernel picks its port at random. It is connected,
/// so the kernel drops what comes from any other address, and a dead server
/// shows at once as a refused connection.
async fn over_udp(
    server: SocketAddr,
    question: &Question,
    counters: &Counters,
) -> Result<Option<Message>, ExchangeError> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    socket.send(&question.bytes)?;
    let socket = Expecting::answer(socket)?;
    let mut buffer = vec![0; RECEIVE];
    for _ in 0..MAX_MISMATCHES {
        let length = socket.receive(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if let Some(message) = question.answered_by(bytes) {
            return Ok(Some(message));
        }
        count(&counters.forged);
    }
    Ok(None)
}

async fn over_tcp(server: SocketAddr, question: &Question) -> Result<Message, ExchangeError> {
    over_stream(&mut TcpStream::connect(server).await?, question).await
}

/// Asks in a stream that nobody else uses meanwhile.
pub(super) async fn over_stream(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    question: &Question,
) -> Result<Message, ExchangeError> {
    let length = u16::try_from(question.bytes.len()).map_err(|_| ExchangeError::Encode)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(&question.bytes);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    question.answered_by(&bytes).ok_or(ExchangeError::Mismatch)
}
