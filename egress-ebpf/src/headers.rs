//! Headers as they lie in a frame, field by field in network order.

#![allow(
    missing_docs,
    reason = "the fields are those of the RFC that each header names"
)]

use crate::frame::ethertype;
use egress_common::{Ip, Mac};

/// The Ethernet header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    /// To whom.
    pub to: Mac,
    /// From whom.
    pub from: Mac,
    /// What is behind it, network order.
    pub kind: u16,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826). Addresses are pairs of words:
/// they lie at odd multiples of two bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arp {
    hardware: u16,
    pub protocol: u16,
    lengths: [u8; 2],
    operation: u16,
    /// Who speaks.
    pub sender: Mac,
    sender_ip: [u16; 2],
    /// Who is spoken to; nothing in a request.
    pub target: Mac,
    target_ip: [u16; 2],
}

impl Arp {
    /// Whether it asks for an address; `None` if it is something else than a
    /// request or a reply for IPv4 over Ethernet.
    #[inline(always)]
    pub fn is_request(&self) -> Option<bool> {
        let plain = self.hardware == 1_u16.to_be()
            && self.protocol == ethertype::IPV4
            && self.lengths == [6, 4];
        match u16::from_be(self.operation) {
            1 if plain => Some(true),
            2 if plain => Some(false),
            _ => None,
        }
    }

    /// Who speaks.
    #[inline(always)]
    pub fn sender_ip(&self) -> Ip {
        Ip::from_v4(word(self.sender_ip))
    }

    /// Who is asked for, or told.
    #[inline(always)]
    pub fn target_ip(&self) -> Ip {
        Ip::from_v4(word(self.target_ip))
    }
}

#[inline(always)]
fn word([first, second]: [u16; 2]) -> u32 {
    // As the memory holds them: both are in network order already.
    if cfg!(target_endian = "little") {
        u32::from(first) | u32::from(second) << 16
    } else {
        u32::from(first) << 16 | u32::from(second)
    }
}

/// A neighbour discovery message (RFC 4861) up to its target.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Discovery {
    /// ICMPv6 type.
    pub kind: u8,
    code: u8,
    checksum: u16,
    reserved: u32,
    target: [u32; 4],
}

impl Discovery {
    /// The address that is asked for or told of.
    #[inline(always)]
    pub const fn target(&self) -> Ip {
        Ip::from_v6(self.target)
    }
}

/// The option of neighbour discovery that names an Ethernet address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LinkAddress {
    kind: u8,
    units: u8,
    /// The address.
    pub mac: Mac,
}

impl LinkAddress {
    /// Whether it is that option and not another one.
    #[inline(always)]
    pub const fn is_one(&self) -> bool {
        (self.kind == 1 || self.kind == 2) && self.units == 1
    }
}

/// The first words of an ICMP message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Icmp {
    /// The type, which has another meaning in each family.
    pub kind: u8,
    pub code: u8,
    checksum: u16,
    /// What tells the questions of one asker from others in an echo message,
    /// network order.
    pub identifier: u16,
    sequence: u16,
}

/// The TCP header (RFC 9293) behind its ports.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub sequence: u32,
    pub acknowledgement: u32,
    pub offset_and_flags: [u8; 2],
}

/// What a TCP segment says.
#[derive(Clone, Copy)]
pub struct Segment {
    /// The acknowledgement number, machine order.
    pub acknowledgement: u32,
    /// The sequence number, machine order.
    pub sequence: u32,
    pub flags: u8,
}

impl Segment {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    /// Whether it begins a connection: SYN alone.
    #[inline(always)]
    pub const fn begins(&self) -> bool {
        self.flags & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// Whether its sender ends its side.
    #[inline(always)]
    pub const fn ends(&self) -> bool {
        self.flags & Self::FIN != 0
    }

    /// Whether it takes the connection down.
    #[inline(always)]
    pub const fn resets(&self) -> bool {
        self.flags & Self::RST != 0
    }

    /// Whether the acknowledgement number means anything.
    #[inline(always)]
    pub const fn acknowledges(&self) -> bool {
        self.flags & Self::ACK != 0
    }
}

/// The IPv4 header without options (RFC 791) and the two ports behind it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct V4 {
    pub version_and_length: u8,
    service: u8,
    pub length: u16,
    id: u16,
    pub fragment: u16,
    ttl: u8,
    pub protocol: u8,
    checksum: u16,
    pub from: u32,
    pub to: u32,
    pub from_port: u16,
    pub to_port: u16,
}

/// The IPv6 header (RFC 8200) and the two ports right behind it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct V6 {
    pub version_class_flow: [u8; 4],
    pub length: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub from: [u32; 4],
    pub to: [u32; 4],
    pub from_port: u16,
    pub to_port: u16,
}
