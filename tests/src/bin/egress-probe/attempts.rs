//! Many attempts in one process: a line in, a line out.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Write};
use std::net::SocketAddr;

/// Reads lines `tcp|udp|udp-connected ADDR` until there are no more, tries each
/// without waiting for any answer, and prints the error number that the sender
/// got, 0 for none. What keeps a datagram's `connect` from working is printed
/// with a minus: then nothing was sent.
pub fn answer_all() -> super::Result {
    let mut answered = 0_usize;
    for line in io::stdin().lines() {
        let line = line?;
        let (kind, address) = line
            .split_once(' ')
            .ok_or_else(|| io::Error::other(format!("not understood: {line}")))?;
        let code = attempt(kind, super::parse(address)?)?;
        writeln!(io::stdout(), "{code}")?;
        answered += 1;
    }
    Ok(answered.to_string())
}

/// An IPv4 address that is written as IPv6 is tried on an IPv6 socket.
fn attempt(kind: &str, address: SocketAddr) -> super::Result<i32> {
    let to = SockAddr::from(address);
    let domain = Domain::for_address(address);
    let number = |result: io::Result<()>| result.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
    let datagram = || Socket::new(domain, Type::DGRAM, Some(Protocol::UDP));
    Ok(match kind {
        "tcp" => {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            number(socket.connect(&to))
        }
        "udp" => number(datagram()?.send_to(b"x", &to).map(drop)),
        "udp-connected" => {
            let socket = datagram()?;
            match number(socket.connect(&to)) {
                0 => number(socket.send(b"x").map(drop)),
                code => -code,
            }
        }
        other => return Err(io::Error::other(format!("not understood: {other}"))),
    })
}
