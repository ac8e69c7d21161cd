//! Frames, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub type Mac = [u8; 6];

/// An Ethernet frame.
pub fn ethernet(to: Mac, from: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(body);
    frame
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 packet; `options` make the header longer, `fragment` is the word of
/// flags and offset.
pub fn v4(
    (from, to): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    options: &[u8],
    fragment: u16,
    body: &[u8],
) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let length = (words * 4 + body.len()) as u16;
    let mut header = vec![0x40 | words as u8, 0];
    header.extend(length.to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(options);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(body);
    header
}

/// An IPv6 packet with whatever comes next.
pub fn v6((from, to): (Ipv6Addr, Ipv6Addr), next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    packet
}

/// The checksum of what is summed together with the addresses.
fn checksum_between((from, to): (IpAddr, IpAddr), protocol: u8, body: &[u8]) -> [u8; 2] {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut pseudo = [octets(from), octets(to)].concat();
    pseudo.extend((body.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo.extend(body);
    checksum(&pseudo).to_be_bytes()
}

/// A UDP datagram with its checksum.
pub fn udp(ends: (IpAddr, IpAddr), ports: (u16, u16), text: &[u8]) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    let mut datagram = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(text);
    let sum = checksum_between(ends, 17, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

/// An ICMP message of this type and code with its checksum; an echo with this
/// identifier, if it is one.
pub fn icmp((kind, code): (u8, u8), identifier: u16, text: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend([0, 1]);
    message.extend(text);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The same for IPv6.
pub fn icmp6(
    (from, to): (Ipv6Addr, Ipv6Addr),
    (kind, code): (u8, u8),
    identifier: u16,
    text: &[u8],
) -> Vec<u8> {
    let mut message = icmp((kind, code), identifier, text);
    message[2..4].fill(0);
    let sum = checksum_between((from.into(), to.into()), 58, &message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// An ARP packet: who says what to whom.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend(target.0);
    packet.extend(target.1.octets());
    packet
}
