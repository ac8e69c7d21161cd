//! Frames as nobody's network stack would send them: AF_PACKET sockets.

#![expect(unsafe_code, reason = "sockaddr_ll has no safe wrapper")]

use crate::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;

/// Whether frames take the way of the sender's own queueing discipline, which
/// is where a program on the way out would stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// They do.
    Usual,
    /// `PACKET_QDISC_BYPASS`.
    Bypass,
}

/// A socket that sends whole Ethernet frames through one device.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    device: i32,
}

impl RawSocket {
    /// Opens one in a namespace.
    pub fn open(namespace: &Namespace, device: &str, way: Way) -> io::Result<Self> {
        namespace.run(|| {
            let index: i32 =
                std::fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{device}"))?
                    .lines()
                    .next()
                    .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
                    .ok_or(io::ErrorKind::InvalidData)?;
            let socket = Socket::new(Domain::PACKET, Type::RAW, None::<Protocol>)?;
            if way == Way::Bypass {
                /// `linux/if_packet.h`.
                const QDISC_BYPASS: libc::c_int = 20;
                let on: libc::c_int = 1;
                // SAFETY: the option takes an int, whose place and size are given.
                let failed = unsafe {
                    libc::setsockopt(
                        socket.as_raw_fd(),
                        libc::SOL_PACKET,
                        QDISC_BYPASS,
                        (&raw const on).cast(),
                        size_of_val(&on) as u32,
                    )
                };
                if failed != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(Self {
                socket,
                device: index,
            })
        })
    }

    /// Sends one frame. A device that a program refuses it at may say so.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: all zero is a value of this plain structure.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.device;
        // What the stack says about the frame's content, as the frame does.
        let kind = frame.get(12..14).and_then(|kind| kind.try_into().ok());
        to.sll_protocol = kind.map_or(0, u16::from_ne_bytes);
        // SAFETY: the frame and the address live across the call, with their sizes.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as u32,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
