//! Who pings: a raw socket for ICMP.

use crate::frames::icmp;
use egress_tests::Namespace;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Types of echo messages (RFC 792, RFC 4443).
pub const REQUEST: (u8, u8) = (8, 0);
pub const REPLY: (u8, u8) = (0, 0);
pub const REQUEST6: (u8, u8) = (128, 0);
pub const REPLY6: (u8, u8) = (129, 0);
/// How long an answer may take that comes, and one is waited for that does not.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A raw socket for ICMP in a namespace: sends what it is told and hears all
/// messages that arrive.
pub struct Pinger {
    socket: Socket,
    is_v4: bool,
}

impl Pinger {
    pub fn open(namespace: &Namespace, is_v4: bool) -> Self {
        let (domain, protocol) = if is_v4 {
            (Domain::IPV4, Protocol::ICMPV4)
        } else {
            (Domain::IPV6, Protocol::ICMPV6)
        };
        let socket = namespace.run(|| Socket::new(domain, Type::RAW, Some(protocol)));
        let socket = socket.expect("root can make a raw socket");
        let often = Some(Duration::from_millis(50));
        socket.set_read_timeout(often).expect("it takes a timeout");
        Self { socket, is_v4 }
    }

    /// One that sends from this address.
    pub fn at(namespace: &Namespace, address: IpAddr) -> Self {
        let pinger = Self::open(namespace, address.is_ipv4());
        let bound = pinger.socket.bind(&SocketAddr::new(address, 0).into());
        bound.expect("the address is the namespace's");
        pinger
    }

    /// Sends a message. For IPv6 the kernel fills the checksum in.
    pub fn send(
        &self,
        to: IpAddr,
        kind: (u8, u8),
        identifier: u16,
        text: &[u8],
    ) -> io::Result<usize> {
        let message = icmp(kind, identifier, text);
        let to = SockAddr::from(SocketAddr::new(to, 0));
        self.socket.send_to(&message, &to)
    }

    /// The next message but those of the link itself.
    pub fn next(&self, deadline: Instant) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            let Ok(length) = (&self.socket).read(&mut buffer) else {
                continue;
            };
            // IPv4 gives the header too.
            let message = &buffer[if self.is_v4 { 20 } else { 0 }..length];
            if self.is_v4 || !matches!(message.first(), Some(133..=143)) {
                return Some(message.to_vec());
            }
        }
        None
    }

    /// Whether an echo is answered, by a reply with the same identifier and text.
    pub fn ping(&self, to: IpAddr, identifier: u16, text: &str) -> bool {
        let (request, reply) = if self.is_v4 {
            (REQUEST, REPLY)
        } else {
            (REQUEST6, REPLY6)
        };
        let sent = self.send(to, request, identifier, text.as_bytes());
        sent.expect("the sandbox's own stack sends it");
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.next(deadline) {
            if message[0] == reply.0
                && message[4..6] == identifier.to_be_bytes()
                && message[8..] == *text.as_bytes()
            {
                return true;
            }
        }
        false
    }
}
