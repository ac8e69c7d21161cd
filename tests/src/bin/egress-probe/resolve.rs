//! Steps that resolve names.

use crate::exchange::PATIENCE;
use crate::{Result, exchange, parse};
use egress_tests::dns::wire::{Message, Query, kind};
use egress_tests::dns::{Data, Record};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

pub fn by_library(name: &str) -> Result {
    let addresses = (name, 0).to_socket_addrs()?;
    let texts: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    Ok(texts.join(" "))
}

pub fn then_exchange(name: &str, port: &str, text: &str) -> Result {
    let mut addresses = (name, parse(port)?).to_socket_addrs()?;
    let first = addresses
        .next()
        .ok_or_else(|| io::Error::other("no address"))?;
    exchange::tcp(&first.to_string(), text)
}

pub fn by_datagram(server: &str, kind: &str, name: &str, patience: Duration) -> Result {
    ask(parse(server)?, number(kind)?, name, patience)
}

/// Asks for an IPv4 address once, and waits so long.
pub fn ask_once(server: SocketAddr, name: &str, patience: Duration) -> Result {
    ask(server, kind::A, name, patience)
}

/// Asks in another class than the internet's. Silence is told as such.
pub fn in_class(server: &str, class: &str, kind: &str, name: &str) -> Result {
    /// Classes are refused at once, if at all.
    const SHORT: Duration = Duration::from_millis(1500);
    let query = query(number(kind)?, name);
    let bytes = query.encode_in(parse(class)?);
    exchange_datagrams(parse(server)?, &query, &bytes, SHORT)
}

fn query(kind: u16, name: &str) -> Query {
    let (id, name) = (0x5ea1, name.into());
    Query { id, name, kind }
}

fn ask(server: SocketAddr, kind: u16, name: &str, patience: Duration) -> Result {
    let query = query(kind, name);
    exchange_datagrams(server, &query, &query.encode(), patience)
}

fn exchange_datagrams(
    server: SocketAddr,
    query: &Query,
    bytes: &[u8],
    patience: Duration,
) -> Result {
    let local = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(bytes, server)?;
    let mut buffer = [0; 4096];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    // The client has to see the address that it asked, or it would refuse.
    if peer != server {
        return Err(io::Error::other(format!("the answer comes from {peer}")));
    }
    describe(&buffer[..length], query.id)
}

/// How a stream is written.
pub enum Pieces {
    /// All at once.
    All,
    /// Each byte by itself.
    Bytes,
}

/// Sends all queries before it reads the first answer, as the C library does
/// with `use-vc`; answers may come in any order.
pub fn by_stream(server: &str, kind: &str, names: &[&str], pieces: Pieces) -> Result {
    let mut stream = TcpStream::connect_timeout(&parse(server)?, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut batch = Vec::new();
    for (id, name) in (1..).zip(names) {
        let query = Query {
            id,
            name: (*name).into(),
            kind: number(kind)?,
        }
        .encode();
        batch.extend(u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes());
        batch.extend(query);
    }
    let size = match pieces {
        Pieces::All => batch.len(),
        Pieces::Bytes => 1,
    };
    for piece in batch.chunks(size.max(1)) {
        stream.write_all(piece)?;
    }
    let mut answers = vec![String::new(); names.len()];
    for _ in names {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes)?;
        let id = Message::decode(&bytes).map_or(0, |message| message.id);
        let place = usize::from(id)
            .checked_sub(1)
            .and_then(|index| answers.get_mut(index));
        *place.ok_or_else(|| io::Error::other("an answer to no query"))? = describe(&bytes, id)?;
    }
    Ok(answers.join(" / "))
}

/// Asks for `nFIRST.SUFFIX` and the names that follow, many at a time on one
/// connection; says how many were answered with an address.
pub fn wildcard(first: &str, count: &str, suffix: &str) -> Result {
    const AT_ONCE: usize = 100;
    let first: usize = parse(first)?;
    let names: Vec<usize> = (first..first + parse::<usize>(count)?).collect();
    let mut stream = TcpStream::connect_timeout(&parse("127.0.0.1:53")?, PATIENCE)?;
    stream.set_read_timeout(Some(10 * PATIENCE))?;
    let mut answered = 0_usize;
    for names in names.chunks(AT_ONCE) {
        let mut batch = Vec::new();
        for number in names {
            let query = Query {
                id: (number % usize::from(u16::MAX)) as u16,
                name: format!("n{number}.{suffix}"),
                kind: kind::A,
            }
            .encode();
            batch.extend(u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes());
            batch.extend(query);
        }
        stream.write_all(&batch)?;
        for _ in names {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes)?;
            let message = Message::decode(&bytes);
            answered += usize::from(message.is_some_and(|m| m.code == 0 && !m.answers.is_empty()));
        }
    }
    Ok(answered.to_string())
}

fn number(kind: &str) -> Result<u16> {
    Ok(match kind {
        "A" => kind::A,
        "AAAA" => kind::AAAA,
        "CNAME" => kind::CNAME,
        "HTTPS" => kind::HTTPS,
        "MX" => kind::MX,
        "PTR" => kind::PTR,
        "TXT" => kind::TXT,
        other => parse(other)?,
    })
}

/// `code=3 error="…"` or `code=0 203.0.113.10 alias=…`.
fn describe(bytes: &[u8], id: u16) -> Result {
    let message = Message::decode(bytes)
        .filter(|message| message.id == id)
        .ok_or_else(|| io::Error::other("the answer cannot be read"))?;
    let mut text = format!("code={}", message.code);
    if message.truncated {
        text.push_str(" truncated");
    }
    for Record { data, .. } in &message.answers {
        text.push_str(&match data {
            Data::Address(address) => format!(" {address}"),
            Data::Alias(name) => format!(" alias={name}"),
            Data::Other(kind, content) => format!(" type{kind}={}", content.len()),
        });
    }
    if let Some(error) = message.extended_error {
        text.push_str(&format!(" error={error:?}"));
    }
    Ok(text)
}
