//! Live connections: finding and ending them through `sock_diag(7)`.
//!
//! Dropping the packets of a revoked connection is not enough: the kernel keeps
//! what the sandbox wrote and would send it as soon as the address is open again.

use super::error::EnforcerError;
use egress_common::{CgroupId, Destination, Ip, Port, Protocol};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::io;
use std::os::fd::OwnedFd;

/// Message types and flags of `sock_diag(7)` and `netlink(7)`.
mod message {
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
    pub const BY_FAMILY: u16 = 20;
    pub const DESTROY: u16 = 21;
    pub const REQUEST: u16 = 1;
    pub const ACKNOWLEDGE: u16 = 4;
    pub const DUMP: u16 = 0x300;
    /// Attribute with the socket's cgroup id, Linux 5.8.
    pub const ATTRIBUTE_CGROUP: u16 = 21;
}

const HEADER: usize = 16;
/// `struct inet_diag_req_v2`: 8 bytes and a 48-byte socket id.
const REQUEST_LENGTH: usize = 56;
/// `struct inet_diag_msg` up to its attributes.
const ENTRY_LENGTH: usize = 72;
/// Every state but LISTEN (10) and CLOSE-like leftovers: who has a peer.
const TCP_WITH_PEER: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// Connected UDP sockets are "established".
const UDP_WITH_PEER: u32 = 1 << 1;

/// A socket with a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveConnection {
    /// The cgroup it belongs to: the sandbox's or one below it.
    pub cgroup: CgroupId,
    /// The other end.
    pub to: Destination,
    family: u8,
    /// The kernel's `inet_diag_sockid`, to name the socket again.
    id: [u8; 48],
}

/// The sockets of the agent's network namespace. Those of a namespace that a
/// sandbox made for itself are not in it: their packets are dropped all the same.
pub struct SocketTable {
    socket: OwnedFd,
}

impl SocketTable {
    /// Opens the channel. Needs CAP_NET_ADMIN for ending, and a kernel with
    /// CONFIG_INET_DIAG_DESTROY.
    pub fn open() -> Result<Self, EnforcerError> {
        rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .map(|socket| Self { socket })
        .map_err(|error| EnforcerError::Sockets(error.into()))
    }

    /// All TCP and UDP sockets with a peer, both families.
    pub fn live(&self) -> Result<Vec<LiveConnection>, EnforcerError> {
        let mut all = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            for (protocol, states) in [
                (Protocol::Tcp, TCP_WITH_PEER),
                (Protocol::Udp, UDP_WITH_PEER),
            ] {
                self.dump(family, protocol, states, &mut all)
                    .map_err(EnforcerError::Sockets)?;
            }
        }
        Ok(all)
    }

    /// Ends one: the owner's next call fails with ECONNABORTED, and nothing
    /// that was queued is ever sent. One that is gone already is no error.
    pub fn end(&self, connection: &LiveConnection) -> Result<(), EnforcerError> {
        let flags = message::REQUEST | message::ACKNOWLEDGE;
        let request = request(
            message::DESTROY,
            flags,
            connection.family,
            connection.to.protocol,
            u32::MAX,
            &connection.id,
        );
        self.send(&request).map_err(EnforcerError::Sockets)?;
        let mut buffer = vec![0; 8192];
        let length = self.receive(&mut buffer).map_err(EnforcerError::Sockets)?;
        let code = buffer
            .get(HEADER..HEADER + 4)
            .filter(|_| length >= HEADER + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, i32::from_ne_bytes);
        match -code {
            0 | libc::ENOENT => Ok(()),
            code => Err(EnforcerError::Sockets(io::Error::from_raw_os_error(code))),
        }
    }

    fn dump(
        &self,
        family: u8,
        protocol: Protocol,
        states: u32,
        all: &mut Vec<LiveConnection>,
    ) -> io::Result<()> {
        let flags = message::REQUEST | message::DUMP;
        self.send(&request(
            message::BY_FAMILY,
            flags,
            family,
            protocol,
            states,
            &[0; 48],
        ))?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = self.receive(&mut buffer)?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = split_message(rest) {
                match kind {
                    message::DONE => return Ok(()),
                    message::ERROR => {
                        let code = body
                            .get(..4)
                            .and_then(|b| b.try_into().ok())
                            .map_or(0, i32::from_ne_bytes);
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    _ => all.extend(entry(body, protocol)),
                }
                rest = next;
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, bytes, SendFlags::empty())
            .map(drop)
            .map_err(Into::into)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        rustix::net::recv(&self.socket, buffer, RecvFlags::empty())
            .map(|(_, length)| length)
            .map_err(Into::into)
    }
}

/// A whole request: `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(
    kind: u16,
    flags: u16,
    family: u8,
    protocol: Protocol,
    states: u32,
    id: &[u8; 48],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST_LENGTH);
    bytes.extend(((HEADER + REQUEST_LENGTH) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: one request at a time on this socket
    bytes.extend([family, protocol.number(), 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// The next message: its kind, its body, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// Reads `struct inet_diag_msg` and the cgroup attribute behind it.
fn entry(body: &[u8], protocol: Protocol) -> Option<LiveConnection> {
    let family = *body.first()?;
    let id: [u8; 48] = body.get(4..52)?.try_into().ok()?;
    let port = Port::from_network(u16::from_ne_bytes(id.get(2..4)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(id.get(at..at + 4)?.try_into().ok()?));
    let ip = if i32::from(family) == libc::AF_INET {
        Ip::from_v4(word(20)?)
    } else {
        Ip::from_v6([word(20)?, word(24)?, word(28)?, word(32)?])
    };
    let mut attributes = body.get(ENTRY_LENGTH..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == message::ATTRIBUTE_CGROUP {
            let cgroup = CgroupId(u64::from_ne_bytes(attributes.get(4..12)?.try_into().ok()?));
            return Some(LiveConnection {
                cgroup,
                to: Destination { ip, port, protocol },
                family,
                id,
            });
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}
