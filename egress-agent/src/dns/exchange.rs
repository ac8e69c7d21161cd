//! One question to one upstream, over UDP and then TCP (Do53).
//!
//! Own code and not hickory's pool, because the product must count what does
//! not match, must know which upstream answered, and needs nothing else of it.

use super::cache::Key;
use super::counters::{Counters, count};
use super::name::wire;
use super::question::MAX_UDP;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Datagrams that may fail to match before the question goes over TCP, where
/// nobody off the path can answer. A forger needs thousands of tries.
const MAX_MISMATCHES: usize = 16;
/// Larger than what is asked for (1232): some servers do not listen.
const RECEIVE: usize = 4096;

/// Why an upstream gave nothing usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer over TCP does not match the question")]
    Mismatch,
    #[error("it answered {0}")]
    Code(ResponseCode),
    #[error("the question cannot be encoded")]
    Encode,
}

/// Asks. The caller bounds the time.
pub(super) async fn exchange(
    server: SocketAddr,
    key: &Key,
    counters: &Counters,
) -> Result<Message, ExchangeError> {
    let answer = ask(server, key, true, counters).await?;
    // Servers older than EDNS answer one of these (RFC 6891 section 7).
    let answer = match answer.metadata.response_code {
        ResponseCode::FormErr | ResponseCode::NotImp => ask(server, key, false, counters).await?,
        _ => answer,
    };
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(ExchangeError::Code(code)),
    }
}

async fn ask(
    server: SocketAddr,
    key: &Key,
    edns: bool,
    counters: &Counters,
) -> Result<Message, ExchangeError> {
    let question = Question::new(key, edns).ok_or(ExchangeError::Encode)?;
    match over_udp(server, &question, counters).await? {
        Some(answer) if !answer.metadata.truncation => Ok(answer),
        Some(_) | None => over_tcp(server, &question).await,
    }
}

/// What was sent, and by what its answer is known.
struct Question {
    id: u16,
    query: Query,
    bytes: Vec<u8>,
}

impl Question {
    /// A query with a random id. It carries nothing of the client's query but
    /// name and type: no cookie, no subnet, no letter case.
    fn new(key: &Key, edns: bool) -> Option<Self> {
        let query = Query::query(wire(&key.name)?, key.query_type);
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Query;
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP);
            message.set_edns(edns);
        }
        Some(Self {
            id: message.metadata.id,
            query,
            bytes: message.to_vec().ok()?,
        })
    }

    /// The message, if it answers this question.
    fn answered_by(&self, bytes: &[u8]) -> Option<Message> {
        // Id and question count first: only what may match is parsed.
        if bytes.get(..2) != Some(&self.id.to_be_bytes()) || bytes.get(4..6) != Some(&[0, 1]) {
            return None;
        }
        let message = Message::from_vec(bytes).ok()?;
        let matches = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && message.queries.as_slice() == std::slice::from_ref(&self.query);
        matches.then_some(message)
    }
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
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question.bytes).await?;
    let mut buffer = [0; RECEIVE];
    for _ in 0..MAX_MISMATCHES {
        let length = socket.recv(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if let Some(message) = question.answered_by(bytes) {
            return Ok(Some(message));
        }
        count(&counters.forged);
    }
    Ok(None)
}

async fn over_tcp(server: SocketAddr, question: &Question) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.bytes.len()).map_err(|_| ExchangeError::Encode)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(&question.bytes);
    stream.write_all(&frame).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    question.answered_by(&bytes).ok_or(ExchangeError::Mismatch)
}
