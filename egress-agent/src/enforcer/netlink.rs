//! The little of `netlink(7)` that is needed here: one request at a time, its
//! answers, and attributes.

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

mod kind {
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
}

/// Flags of a request.
pub mod flag {
    /// It is a request.
    pub const REQUEST: u16 = 1;
    /// An answer is wanted although nothing is asked.
    pub const ACKNOWLEDGE: u16 = 4;
    /// Everything is asked for.
    pub const DUMP: u16 = 0x300;
    /// What is not there is made.
    pub const CREATE: u16 = 0x400;
    /// What is there is an error.
    pub const EXCLUSIVE: u16 = 0x200;
}

/// A socket for requests.
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens one (`None` is NETLINK_ROUTE) of the calling thread's network namespace.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self { socket })
    }

    /// Sends a request and gives the bodies of its answers.
    pub fn call(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | flag::REQUEST).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (_, length) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, body, next)) = split(rest) {
                match kind {
                    kind::DONE => return Ok(answers),
                    kind::ERROR => {
                        let code = body.get(..4).and_then(|b| b.try_into().ok());
                        return match code.map_or(0, i32::from_ne_bytes) {
                            0 => Ok(answers),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => answers.push(body.to_vec()),
                }
                rest = next;
            }
        }
    }
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// Appends an attribute.
pub fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of a kind.
pub fn get(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        /// Bits that say how the value is laid out.
        const KIND: u16 = 0x3fff;
        if kind & KIND == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}
