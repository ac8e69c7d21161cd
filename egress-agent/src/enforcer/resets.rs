//! Ending connections that go through an interface: a TCP reset to both ends,
//! as each would believe it from the other.

use super::error::EnforcerError;
use egress_common::{Connection, ConnectionKey, Ip, Port, Protocol};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Sockets that send whole packets.
pub struct Resets {
    v4: OwnedFd,
    v6: Option<OwnedFd>,
}

impl Resets {
    /// Opens them. Needs CAP_NET_RAW.
    pub fn open() -> Result<Self, EnforcerError> {
        let raw = |family| {
            rustix::net::socket_with(
                family,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(ipproto::RAW),
            )
        };
        Ok(Self {
            v4: raw(AddressFamily::INET).map_err(|error| EnforcerError::Sockets(error.into()))?,
            // A host without IPv6 has no such connections.
            v6: raw(AddressFamily::INET6).ok(),
        })
    }

    /// Resets a TCP connection at both ends. Each takes only the sequence
    /// number that it waits for, which is what it acknowledged last; `false` if
    /// that is not known, or it is no TCP.
    pub fn send(&self, key: &ConnectionKey, connection: &Connection) -> io::Result<bool> {
        let both = Connection::NUMBERED | Connection::ANSWERED;
        if key.protocol != Protocol::Tcp.number() || connection.state & both != both {
            return Ok(false);
        }
        let (here, there) = ((key.here, key.here_port), (key.there, key.there_port));
        self.one(there, here, connection.acknowledged_here)?;
        self.one(here, there, connection.acknowledged_there)?;
        Ok(true)
    }

    fn one(&self, from: (Ip, Port), to: (Ip, Port), sequence: u32) -> io::Result<()> {
        let packet = reset(from, to, sequence);
        let socket = if to.0.is_v4() {
            Some(&self.v4)
        } else {
            self.v6.as_ref()
        };
        let socket = socket.ok_or(io::ErrorKind::Unsupported)?;
        let to = SocketAddr::new(to.0.into(), 0);
        rustix::net::sendto(socket, &packet, SendFlags::empty(), &to)?;
        Ok(())
    }
}

/// A whole IP packet with a TCP reset in it.
fn reset(from: (Ip, Port), to: (Ip, Port), sequence: u32) -> Vec<u8> {
    const TCP: u8 = 6;
    const LENGTH: u16 = 20;
    const HOPS: u8 = 64;
    let mut segment = Vec::with_capacity(LENGTH.into());
    segment.extend(from.1.host().to_be_bytes());
    segment.extend(to.1.host().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0; 4]);
    // Five words long, RST.
    segment.extend([0x50, 0x04]);
    segment.extend([0; 6]);
    let (from, to) = (octets(from.0), octets(to.0));
    let mut pseudo = [from.as_slice(), &to].concat();
    pseudo.extend(u32::from(LENGTH).to_be_bytes());
    pseudo.extend([0, 0, 0, TCP]);
    pseudo.extend(&segment);
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut packet = if from.len() == 4 {
        let mut header = vec![0x45, 0];
        header.extend((20 + LENGTH).to_be_bytes());
        // No identification, do not fragment; the kernel fills the checksum in.
        header.extend([0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
        header
    } else {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(LENGTH.to_be_bytes());
        header.extend([TCP, HOPS]);
        header
    };
    packet.extend(from);
    packet.extend(to);
    packet.extend(segment);
    packet
}

fn octets(ip: Ip) -> Vec<u8> {
    match IpAddr::from(ip) {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_has_a_checksum_that_its_receiver_verifies() {
        for (from, to) in [
            ("192.0.2.1", "198.51.100.9"),
            ("2001:db8::1", "2001:db8:1::9"),
        ] {
            let ip = |text: &str| Ip::from(text.parse::<IpAddr>().expect("an address"));
            let end = |text| (ip(text), Port::from_host(443));
            let packet = reset(end(from), end(to), 0x0102_0304);
            let segment = &packet[packet.len() - 20..];
            assert_eq!(&segment[4..8], &[1, 2, 3, 4]);
            let mut pseudo = [octets(ip(from)), octets(ip(to))].concat();
            pseudo.extend([0, 0, 0, 20, 0, 0, 0, 6]);
            pseudo.extend(segment);
            assert_eq!(checksum(&pseudo), 0, "{from}");
        }
    }
}
