//! Steps that make a socket, use it, and throw it away.

use crate::{Result, parse};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long a step waits for the other side. A packet that is dropped on its
/// way shows as a timeout, so this is the price of each such test.
pub const PATIENCE: Duration = Duration::from_millis(1500);

pub fn tcp(address: &str, text: &str) -> Result {
    let stream = TcpStream::connect_timeout(&parse(address)?, PATIENCE)?;
    expect_echo(stream, text)
}

pub fn udp(address: &str, text: &str) -> Result {
    let address: SocketAddr = parse(address)?;
    let socket = unconnected(address)?;
    socket.send_to(text.as_bytes(), address)?;
    let mut buffer = [0; 2048];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    check(&buffer[..length], text)?;
    Ok(peer.to_string())
}

pub fn udp_send(address: &str, text: &str) -> Result {
    let address: SocketAddr = parse(address)?;
    unconnected(address)?
        .send_to(text.as_bytes(), address)
        .map(|_| String::new())
}

pub fn udp_connect_send(address: &str, text: &str) -> Result {
    let address: SocketAddr = parse(address)?;
    let socket = unconnected(address)?;
    socket.connect(address)?;
    socket.send(text.as_bytes()).map(|_| String::new())
}

/// Sends datagrams without end, as fast as somebody would who wants to be the
/// one that gets through, and counts what became of them.
pub fn udp_flood(address: &str, milliseconds: &str) -> Result {
    let address: SocketAddr = parse(address)?;
    let socket = unconnected(address)?;
    let end = Instant::now() + Duration::from_millis(parse(milliseconds)?);
    let (mut taken, mut refused) = (0_u64, 0_u64);
    while Instant::now() < end {
        match socket.send_to(b"flood", address) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(format!("{taken} taken, {refused} refused"))
}

/// Sends so many datagrams as fast as it can, and counts what became of them.
pub fn udp_storm(address: &str, count: &str) -> Result {
    let address: SocketAddr = parse(address)?;
    let socket = unconnected(address)?;
    let count: u64 = parse(count)?;
    let sent = (0..count).filter(|_| socket.send_to(b"secret", address).is_ok());
    let taken = sent.count() as u64;
    Ok(format!("{taken} taken, {} refused", count - taken))
}

/// Listens at `address` and connects to it: two sockets of one sandbox.
pub fn tcp_with_self(address: &str, text: &str) -> Result {
    let listener = TcpListener::bind(parse::<SocketAddr>(address)?)?;
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(text.as_bytes())?;
    server.set_read_timeout(Some(PATIENCE))?;
    let mut got = vec![0; text.len()];
    server.read_exact(&mut got)?;
    check(&got, text)?;
    // And back: the accepted socket may speak too.
    server.write_all(&got)?;
    expect_reply(client, text)
}

pub fn udp_with_self(address: &str, text: &str) -> Result {
    let server = UdpSocket::bind(parse::<SocketAddr>(address)?)?;
    server.set_read_timeout(Some(PATIENCE))?;
    let client = unconnected(server.local_addr()?)?;
    client.send_to(text.as_bytes(), server.local_addr()?)?;
    let mut buffer = [0; 2048];
    let (length, peer) = server.recv_from(&mut buffer)?;
    server.send_to(&buffer[..length], peer)?;
    let length = client.recv(&mut buffer)?;
    check(&buffer[..length], text)?;
    Ok(String::new())
}

pub fn make_socket(family: &str, kind: &str, protocol: &str) -> Result {
    let domain = Domain::from(parse::<i32>(family)?);
    let kind = Type::from(parse::<i32>(kind)?);
    let protocol = Protocol::from(parse::<i32>(protocol)?);
    Socket::new(domain, kind, Some(protocol)).map(|_| String::new())
}

pub fn join_group(group: &str) -> Result {
    match parse(group)? {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        }
        IpAddr::V6(group) => {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            socket.join_multicast_v6(&group, 0)?;
        }
    }
    Ok(String::new())
}

pub fn bind_device(device: &str) -> Result {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket
        .bind_device(Some(device.as_bytes()))
        .map(|()| String::new())
}

/// Sends `text` and expects it back.
pub fn expect_echo(mut stream: TcpStream, text: &str) -> Result {
    stream.write_all(text.as_bytes())?;
    expect_reply(stream, text)
}

fn expect_reply(mut stream: TcpStream, text: &str) -> Result {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut got = vec![0; text.len()];
    stream.read_exact(&mut got)?;
    check(&got, text)?;
    Ok(stream.peer_addr()?.to_string())
}

fn unconnected(peer: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn check(got: &[u8], text: &str) -> Result<()> {
    if got == text.as_bytes() {
        return Ok(());
    }
    let got = String::from_utf8_lossy(got);
    Err(io::Error::new(
        ErrorKind::InvalidData,
        format!("the answer is {got}"),
    ))
}
