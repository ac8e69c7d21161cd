//! One question to one upstream: over UDP and then TCP (Do53), TLS, or HTTPS.
//!
//! Own code and not hickory's pool, because the product must count what does
//! not match, must know which upstream answered, and needs nothing else of it.

use super::cache::Key;
use super::counters::{Counters, count};
use super::endpoint::Line;
use super::incoming::Answer;
use super::outgoing::{Question, Style};
use super::sockets::Sockets;
use hickory_proto::op::ResponseCode;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Datagrams that may fail to match before the question goes over TCP, where
/// nobody off the path can answer. A forger needs thousands of tries.
const MAX_MISMATCHES: usize = 16;

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
    manner: &Manner,
) -> Result<Answer, ExchangeError> {
    let answer = ask(server, key, true, manner).await?;
    // Servers older than EDNS answer one of these (RFC 6891 section 7).
    let answer = match answer.code() {
        ResponseCode::FormErr | ResponseCode::NotImp => ask(server, key, false, manner).await?,
        _ => answer,
    };
    match answer.code() {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(ExchangeError::Code(code)),
    }
}

async fn ask(
    (server, line): (SocketAddr, &Line),
    key: &Key,
    edns: bool,
    manner: &Manner,
) -> Result<Answer, ExchangeError> {
    let padded = !matches!(line, Line::Plain);
    let style = Style {
        edns,
        padded,
        mixed_case: manner.mixed_case && !padded,
    };
    let question = Question::new(key, style).ok_or(ExchangeError::Encode)?;
    match line {
        Line::Plain => match over_udp(server, &question, manner).await? {
            Some(answer) if !answer.is_truncated() => Ok(answer),
            Some(_) | None => Box::pin(over_tcp(server, &question)).await,
        },
        Line::Tls(line) => Box::pin(line.ask(&question)).await,
        Line::Https(line) => Box::pin(line.ask(&question)).await,
    }
}

/// How upstreams are asked, whichever it is.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) mixed_case: bool,
    pub(super) counters: Arc<Counters>,
    pub(super) sockets: Sockets,
}

/// `None` after too many datagrams that do not match.
///
/// A socket per question: the kernel picks its port at random when it is connected. It
/// drops what comes from any other address then, and a dead server shows at once as a
/// refused connection.
async fn over_udp(
    server: SocketAddr,
    question: &Question,
    manner: &Manner,
) -> Result<Option<Answer>, ExchangeError> {
    let socket = manner.sockets.take(server)?;
    let socket = socket.ask(server, question.bytes())?;
    for _ in 0..MAX_MISMATCHES {
        let answer = socket.receive(|bytes| question.answered_by(bytes)).await?;
        if let Some(answer) = answer {
            // Of others something is asked again, and it may be a while until a reply leaves.
            if answer.is_final() {
                manner.sockets.put_spent(socket);
            }
            return Ok(Some(answer));
        }
        count(&manner.counters.forged);
    }
    Ok(None)
}

async fn over_tcp(server: SocketAddr, question: &Question) -> Result<Answer, ExchangeError> {
    over_stream(&mut TcpStream::connect(server).await?, question).await
}

/// Asks in a stream that nobody else uses meanwhile.
pub(super) async fn over_stream(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    question: &Question,
) -> Result<Answer, ExchangeError> {
    let length = u16::try_from(question.bytes().len()).map_err(|_| ExchangeError::Encode)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(question.bytes());
    stream.write_all(&frame).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    question.answered_by(&bytes).ok_or(ExchangeError::Mismatch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DomainName;
    use hickory_proto::rr::RecordType;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    const QUESTIONS: usize = 64;

    #[tokio::test]
    async fn each_question_has_a_port_that_nobody_can_guess() {
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().expect("an address");
            let far = tokio::net::UdpSocket::bind((host, 0)).await.expect("bound");
            let server = far.local_addr().expect("an address");
            let (key, manner) = (
                Key {
                    view: None,
                    name: DomainName::parse("a.example").expect("a name"),
                    query_type: RecordType::A,
                },
                Manner {
                    mixed_case: false,
                    counters: Arc::default(),
                    sockets: Sockets::default(),
                },
            );
            let mut ports = Vec::new();
            for _ in 0..QUESTIONS {
                let answer = async {
                    let mut bytes = [0; 512];
                    let (length, from) = far.recv_from(&mut bytes).await.expect("a question");
                    bytes[2] |= 0x80;
                    far.send_to(&bytes[..length], from).await.expect("sent");
                    from.port()
                };
                let asked = exchange((server, &Line::Plain), &key, &manner);
                let (found, port) = tokio::join!(asked, answer);
                assert!(found.is_ok(), "{found:?}");
                ports.push(port);
            }
            let different: BTreeSet<u16> = ports.iter().copied().collect();
            assert!(different.len() > QUESTIONS * 3 / 4, "{ports:?}");
            // Random ports are far from each other: two in a row within 256 are rare.
            let near = ports.windows(2).filter(|two| two[0].abs_diff(two[1]) < 256);
            assert!(near.count() < QUESTIONS / 4, "{ports:?}");
        }
    }
}
