//! Reads the headers of what crosses the wire.
//!
//! A judge has to be easy to believe, so this knows nothing of the product's
//! own parser and treats whatever it does not understand as a packet, not as
//! noise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A hardware address.
pub type Mac = [u8; 6];

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;
/// IANA protocol number of ICMPv6.
const ICMPV6: u8 = 58;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A frame that crossed the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// The ethertype.
    pub ethertype: u16,
    /// Where it came from, if it is IP.
    pub source: Option<IpAddr>,
    /// Where it goes, if it is IP.
    pub destination: Option<IpAddr>,
    /// The transport protocol, behind every extension header, if it is IP.
    pub protocol: Option<u8>,
    /// The port it goes to, if it is TCP or UDP and not a later fragment.
    pub port: Option<u16>,
    /// Whether it is a TCP reset.
    pub is_reset: bool,
    /// What follows the last header that was understood.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Whether the kernel tells one of these peers that a datagram of its own
    /// found no socket any more (ICMP type 3 code 3, ICMPv6 type 1 code 4). No
    /// socket sends it and no sandbox controls what is in it: row B-41 of
    /// docs/bypasses.md.
    pub fn is_port_unreachable_for(&self, peers: &[SocketAddr]) -> bool {
        let kind = (self.protocol, self.payload.first(), self.payload.get(1));
        matches!(
            kind,
            (Some(1), Some(3), Some(3)) | (Some(58), Some(1), Some(4))
        ) && peers.iter().any(|peer| self.destination == Some(peer.ip()))
    }

    /// Reads an Ethernet frame; returns the sender's hardware address with it.
    pub fn parse(frame: &[u8]) -> Option<(Mac, Self)> {
        let sender = frame.get(6..12)?.try_into().ok()?;
        let ethertype = be16(frame, 12)?;
        let body = frame.get(14..)?;
        let understood = match ethertype {
            ETHERTYPE_IPV4 => ipv4(body),
            ETHERTYPE_IPV6 => ipv6(body),
            _ => None,
        };
        let packet = understood.unwrap_or_else(|| Self {
            ethertype,
            source: None,
            destination: None,
            protocol: None,
            port: None,
            is_reset: false,
            payload: body.to_vec(),
        });
        Some((sender, packet))
    }

    /// Says whether it goes to `address`, by any protocol.
    pub fn goes_to(&self, address: impl Into<IpAddr>) -> bool {
        self.destination == Some(address.into())
    }

    /// Says whether it goes to this address and port, by TCP or UDP.
    pub fn goes_to_socket(&self, address: SocketAddr) -> bool {
        self.goes_to(address.ip()) && self.port == Some(address.port())
    }

    /// Says whether `text` is in what it carries.
    pub fn carries(&self, text: &[u8]) -> bool {
        self.payload
            .windows(text.len())
            .any(|window| window == text)
    }

    /// Says whether it is one of the packets by which a link itself works:
    /// ARP, neighbour discovery, and the reports for the multicast groups of
    /// the link's own addresses.
    pub fn belongs_to_the_link(&self) -> bool {
        match (self.ethertype, self.protocol) {
            (ETHERTYPE_ARP, _) => true,
            (_, Some(ICMPV6)) => match self.payload.first() {
                Some(133..=136) => true,
                Some(143) => only_solicited_nodes(&self.payload),
                _ => false,
            },
            _ => false,
        }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(source), Some(destination)) = (self.source, self.destination) else {
            return write!(
                f,
                "ethertype {:#06x}, {} bytes",
                self.ethertype,
                self.payload.len()
            );
        };
        let protocol = self.protocol.unwrap_or_default();
        write!(f, "{source} → {destination}")?;
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        write!(f, " protocol {protocol}, {} bytes", self.payload.len())
    }
}

fn ipv4(body: &[u8]) -> Option<Packet> {
    let header = usize::from(body.first()? & 0x0f) * 4;
    let protocol = *body.get(9)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    let later_fragment = be16(body, 6)? & 0x1fff != 0;
    let (port, payload) = transport(protocol, later_fragment, body.get(header..)?);
    Some(Packet {
        ethertype: ETHERTYPE_IPV4,
        source: address(12),
        destination: address(16),
        protocol: Some(protocol),
        port,
        is_reset: is_reset(protocol, later_fragment, body.get(header..)?),
        payload,
    })
}

fn ipv6(body: &[u8]) -> Option<Packet> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let mut protocol = *body.get(6)?;
    let mut rest = body.get(40..)?;
    let mut later_fragment = false;
    loop {
        let length = match protocol {
            // Hop-by-hop, routing, destination options.
            0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
            44 => {
                later_fragment = be16(rest, 2)? & 0xfff8 != 0;
                8
            }
            _ => break,
        };
        protocol = *rest.first()?;
        rest = rest.get(length..)?;
    }
    let (port, payload) = transport(protocol, later_fragment, rest);
    Some(Packet {
        ethertype: ETHERTYPE_IPV6,
        source: address(8),
        destination: address(24),
        protocol: Some(protocol),
        port,
        is_reset: is_reset(protocol, later_fragment, rest),
        payload,
    })
}

/// Whether the RST flag is set.
fn is_reset(protocol: u8, later_fragment: bool, body: &[u8]) -> bool {
    const RST: u8 = 1 << 2;
    protocol == TCP && !later_fragment && body.get(13).is_some_and(|flags| flags & RST != 0)
}

fn transport(protocol: u8, later_fragment: bool, body: &[u8]) -> (Option<u16>, Vec<u8>) {
    let header = match protocol {
        _ if later_fragment => return (None, body.to_vec()),
        TCP => body.get(12).map_or(20, |byte| usize::from(byte >> 4) * 4),
        UDP => 8,
        _ => return (None, body.to_vec()),
    };
    (
        be16(body, 2),
        body.get(header..).unwrap_or_default().to_vec(),
    )
}

/// Says whether an MLDv2 report only names solicited-node groups.
fn only_solicited_nodes(report: &[u8]) -> bool {
    const RECORD: usize = 20;
    let Some(records) = report.get(8..) else {
        return false;
    };
    records.chunks(RECORD).all(|record| {
        record
            .get(4..)
            .is_some_and(|group| group.starts_with(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]))
    })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Mac = [2, 0, 0, 0, 0, 1];

    fn frame(ethertype: u16, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(SENDER);
        frame.extend(ethertype.to_be_bytes());
        frame.extend(body);
        frame
    }

    #[test]
    fn a_udp_datagram_behind_ipv4_options_is_understood() {
        let mut body = vec![0x46, 0, 0, 36, 0, 0, 0, 0, 64, UDP, 0, 0];
        body.extend([198, 19, 0, 2, 203, 0, 113, 66]);
        body.extend([0; 4]);
        body.extend([0x10, 0, 0, 53, 0, 12, 0, 0, b'h', b'e', b'y', b'!']);
        let (sender, packet) = Packet::parse(&frame(ETHERTYPE_IPV4, &body)).expect("a packet");
        assert_eq!(sender, SENDER);
        assert!(packet.goes_to_socket("203.0.113.66:53".parse().expect("an address")));
        assert_eq!(packet.payload, b"hey!");
    }

    #[test]
    fn a_routing_header_does_not_hide_the_transport() {
        let mut body = vec![0x60, 0, 0, 0, 0, 16, 43, 64];
        body.extend(Ipv6Addr::LOCALHOST.octets());
        body.extend(Ipv6Addr::LOCALHOST.octets());
        body.extend([UDP, 0, 4, 0, 0, 0, 0, 0]);
        body.extend([0, 1, 0, 80, 0, 8, 0, 0]);
        let (_, packet) = Packet::parse(&frame(ETHERTYPE_IPV6, &body)).expect("a packet");
        assert_eq!((packet.protocol, packet.port), (Some(UDP), Some(80)));
    }

    #[test]
    fn what_is_not_understood_is_still_a_packet() {
        let (_, packet) = Packet::parse(&frame(0x88b5, b"secret")).expect("a packet");
        assert!(!packet.belongs_to_the_link());
        assert!(packet.carries(b"secret"));
    }
}
