//! The raw-memory room of the interface programs: frames as they cross an
//! interface, read strictly, and rewritten where DNS is brought to the resolver.

use crate::headers::{Arp, Discovery, Ethernet, Icmp, LinkAddress, Segment, Tcp, V4, V6};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use egress_common::{Destination, Ip, Mac, Port, Protocol, Reason};

/// EtherTypes as a frame holds them.
pub mod ethertype {
    /// ARP.
    pub const ARP: u16 = 0x0806_u16.to_be();
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
}

const ETHERNET: u32 = 14;
const V4_LENGTH: u32 = 20;
const V6_LENGTH: u32 = 40;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
/// More fragments, and the offset.
const FRAGMENT_BITS: u16 = 0x3fff;

/// Which way a frame crosses the interface: what the sandbox asks goes out, and
/// what answers comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the sandbox.
    Leaves,
    /// To it.
    Reaches,
}

/// A TCP or UDP packet, or an ICMP echo: a request on its way out, a reply on its
/// way in. The identifier of an echo stands where the sandbox's port would.
pub struct Packet {
    /// Source address.
    pub from: Ip,
    /// Source port.
    pub from_port: Port,
    /// Where it goes.
    pub to: Destination,
    /// What its TCP header says; nothing for the others.
    pub segment: Option<Segment>,
}

/// An IP packet that is none of these.
#[derive(Clone, Copy)]
pub enum Other {
    /// Other ICMP for IPv4, to this address.
    Icmp(Ip),
    /// Other ICMPv6, between these, and its hop limit: 255 if it never left the link.
    /// As a word: the compiler would make a byte part of a word of which another
    /// variant has the rest, and the verifier refuses to compute with that.
    Icmp6(Ip, Ip, u32),
    /// Multicast membership and other hop-by-hop messages of IPv6.
    HopByHop,
    /// Multicast membership of IPv4.
    Igmp,
}

/// What is behind the Ethernet header.
pub enum Content {
    /// TCP, UDP or an echo.
    Packet(Packet),
    /// Some other transport, worth a look where the link itself may need it.
    Other(Other),
    /// Address resolution.
    Arp,
}

/// A frame at an interface.
pub struct Frame<'a> {
    context: &'a TcContext,
}

impl<'a> Frame<'a> {
    /// Takes the hook's context, and has the kernel lay the headers out in one
    /// piece where they are not.
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        /// Everything that is read at all: an ICMPv6 error with the headers
        /// that it complains of, or DHCP's Ethernet address.
        const HEADERS: u32 = 128;
        let skb = context.skb.skb;
        // SAFETY: the kernel passes a valid context for the time of the call.
        // Where it has no memory for it, the frame is too short to be read.
        unsafe {
            let wanted = (*skb).len.min(HEADERS);
            if (*skb).data_end - (*skb).data < wanted {
                bpf_skb_pull_data(skb, wanted);
            }
        }
        Self { context }
    }

    /// The index of the interface.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context for the time of the call.
        unsafe { (*self.context.skb.skb).ifindex }
    }

    /// What lies `at` bytes from the start of the frame; `None` if the frame is
    /// shorter.
    #[inline(always)]
    fn at<T: Copy>(&self, at: u32) -> Option<T> {
        // SAFETY: the kernel passes a valid context for the time of the call.
        let (data, end) = unsafe {
            let skb = self.context.skb.skb;
            ((*skb).data as usize, (*skb).data_end as usize)
        };
        let place = data + at as usize;
        if place + size_of::<T>() <= end {
            // SAFETY: the verifier has seen the comparison. Headers are plain
            // integers, for which any bits are good, and a BPF load may have
            // any alignment that the kernel lays packets out for.
            return Some(unsafe { *(place as *const T) });
        }
        None
    }

    /// The Ethernet header of a frame without any tag. A tag that the device
    /// has taken off already stands beside the frame.
    #[inline(always)]
    pub fn ethernet(&self) -> Option<Ethernet> {
        // SAFETY: the kernel passes a valid context for the time of the call.
        if unsafe { (*self.context.skb.skb).vlan_present } != 0 {
            return None;
        }
        self.at(0)
    }

    /// Reads what is behind the Ethernet header. Options, fragments, extension
    /// headers and everything that is not listed in [`Content`] is refused.
    #[inline(always)]
    pub fn content(&self, kind: u16, way: Way) -> Result<Content, Reason> {
        match kind {
            ethertype::IPV4 => self.v4(way),
            ethertype::IPV6 => self.v6(way),
            ethertype::ARP => Ok(Content::Arp),
            _ => Err(Reason::LinkFrame),
        }
    }

    #[inline(always)]
    fn v4(&self, way: Way) -> Result<Content, Reason> {
        let header: V4 = self.at(ETHERNET).ok_or(Reason::Unparsable)?;
        let (from, to) = (Ip::from_v4(header.from), Ip::from_v4(header.to));
        const IGMP: u8 = 2;
        if header.protocol == IGMP {
            return Ok(Content::Other(Other::Igmp));
        }
        if header.version_and_length != 0x45 || u16::from_be(header.fragment) & FRAGMENT_BITS != 0 {
            return Err(Reason::Unparsable);
        }
        if header.protocol == ICMP {
            /// RFC 792.
            const REPLY: u8 = 0;
            const REQUEST: u8 = 8;
            let kind = match way {
                Way::Leaves => REQUEST,
                Way::Reaches => REPLY,
            };
            let echo = self.echo(self.icmp(), kind, from, to, way);
            return Ok(echo.unwrap_or(Content::Other(Other::Icmp(to))));
        }
        let protocol = Protocol::from_number(header.protocol).ok_or(Reason::Unparsable)?;
        self.packet(
            (from, header.from_port),
            (to, header.to_port),
            protocol,
            ETHERNET + V4_LENGTH,
        )
    }

    #[inline(always)]
    fn v6(&self, way: Way) -> Result<Content, Reason> {
        let header: V6 = self.at(ETHERNET).ok_or(Reason::Unparsable)?;
        let (from, to) = (Ip::from_v6(header.from), Ip::from_v6(header.to));
        // A mapped address inside an IPv6 header is no IPv4 traffic.
        if header.version_class_flow[0] >> 4 != 6 || to.is_v4() || from.is_v4() {
            return Err(Reason::Unparsable);
        }
        match header.next_header {
            ICMP6 => {
                /// RFC 4443 section 4.
                const REQUEST: u8 = 128;
                const REPLY: u8 = 129;
                let kind = match way {
                    Way::Leaves => REQUEST,
                    Way::Reaches => REPLY,
                };
                let hops = header.hop_limit.into();
                let echo = self.echo(self.icmp6(), kind, from, to, way);
                return Ok(echo.unwrap_or(Content::Other(Other::Icmp6(from, to, hops))));
            }
            HOP_BY_HOP => return Ok(Content::Other(Other::HopByHop)),
            _ => {}
        }
        let protocol = Protocol::from_number(header.next_header).ok_or(Reason::Unparsable)?;
        self.packet(
            (from, header.from_port),
            (to, header.to_port),
            protocol,
            ETHERNET + V6_LENGTH,
        )
    }

    /// The echo message that may go this way, if it is one.
    #[inline(always)]
    fn echo(&self, message: Option<Icmp>, kind: u8, from: Ip, to: Ip, way: Way) -> Option<Content> {
        let message = message.filter(|message| message.kind == kind && message.code == 0)?;
        let identifier = Port::from_network(message.identifier);
        let (from_port, port) = match way {
            Way::Leaves => (identifier, Port::ANY),
            Way::Reaches => (Port::ANY, identifier),
        };
        Some(Content::Packet(Packet {
            from,
            from_port,
            to: Destination {
                ip: to,
                port,
                protocol: Protocol::Icmp,
            },
            segment: None,
        }))
    }

    #[inline(always)]
    fn packet(
        &self,
        (from, from_port): (Ip, u16),
        (to, to_port): (Ip, u16),
        protocol: Protocol,
        transport: u32,
    ) -> Result<Content, Reason> {
        let segment = match protocol {
            Protocol::Tcp => {
                let tcp: Tcp = self.at(transport + 4).ok_or(Reason::Unparsable)?;
                Some(Segment {
                    acknowledgement: u32::from_be(tcp.acknowledgement),
                    sequence: u32::from_be(tcp.sequence),
                    flags: tcp.offset_and_flags[1],
                })
            }
            // Its numbers are not read as ports; see [`Frame::echo`].
            Protocol::Udp | Protocol::Icmp => None,
        };
        Ok(Content::Packet(Packet {
            from,
            from_port: Port::from_network(from_port),
            to: Destination {
                ip: to,
                port: Port::from_network(to_port),
                protocol,
            },
            segment,
        }))
    }

    /// The ARP packet.
    #[inline(always)]
    pub fn arp(&self) -> Option<Arp> {
        self.at(ETHERNET)
    }

    /// The neighbour discovery message, and the Ethernet address that it names.
    #[inline(always)]
    pub fn discovery(&self) -> Option<(Discovery, Option<LinkAddress>)> {
        const AT: u32 = ETHERNET + V6_LENGTH;
        Some((self.at(AT)?, self.at(AT + size_of::<Discovery>() as u32)))
    }

    /// The ICMP message of an IPv4 packet.
    #[inline(always)]
    pub fn icmp(&self) -> Option<Icmp> {
        self.at(ETHERNET + V4_LENGTH)
    }

    /// The ICMPv6 message.
    #[inline(always)]
    pub fn icmp6(&self) -> Option<Icmp> {
        self.at(ETHERNET + V6_LENGTH)
    }

    /// The packet of which an ICMP error tells; its TCP header may be cut off.
    #[inline(always)]
    pub fn complained_of(&self) -> Option<(Ip, Port, Destination)> {
        const AT: u32 = ETHERNET + V4_LENGTH + size_of::<Icmp>() as u32;
        let header: V4 = self.at(AT)?;
        if header.version_and_length != 0x45 {
            return None;
        }
        Some((
            Ip::from_v4(header.from),
            Port::from_network(header.from_port),
            Destination {
                ip: Ip::from_v4(header.to),
                port: Port::from_network(header.to_port),
                protocol: Protocol::from_number(header.protocol)?,
            },
        ))
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn complained_of6(&self) -> Option<(Ip, Port, Destination)> {
        const AT: u32 = ETHERNET + V6_LENGTH + size_of::<Icmp>() as u32;
        let header: V6 = self.at(AT)?;
        Some((
            Ip::from_v6(header.from),
            Port::from_network(header.from_port),
            Destination {
                ip: Ip::from_v6(header.to),
                port: Port::from_network(header.to_port),
                protocol: Protocol::from_number(header.next_header)?,
            },
        ))
    }

    /// The Ethernet address inside a DHCP request (RFC 2131, `chaddr`).
    #[inline(always)]
    pub fn dhcp_client(&self) -> Option<Mac> {
        const UDP: u32 = 8;
        const CHADDR: u32 = 28;
        self.at(ETHERNET + V4_LENGTH + UDP + CHADDR)
    }

    /// Replaces the destination (`source` false) or the source of a TCP or UDP
    /// packet, with its checksums. Both addresses are of one family.
    #[inline(always)]
    pub fn readdress(
        &self,
        protocol: Protocol,
        source: bool,
        old: (&Ip, Port),
        new: (&Ip, Port),
    ) -> Result<(), Reason> {
        let v4 = old.0.is_v4();
        let (address, transport) = match (v4, source) {
            (true, true) => (ETHERNET + 12, ETHERNET + V4_LENGTH),
            (true, false) => (ETHERNET + 16, ETHERNET + V4_LENGTH),
            (false, true) => (ETHERNET + 8, ETHERNET + V6_LENGTH),
            (false, false) => (ETHERNET + 24, ETHERNET + V6_LENGTH),
        };
        // An absent UDP checksum stays absent, and one that comes out as zero
        // is written as its other zero.
        let (checksum, flags) = match protocol {
            Protocol::Tcp => (transport + 16, 0),
            // An echo is for no port, and so never for that of a resolver.
            Protocol::Udp | Protocol::Icmp => (transport + 6, u64::from(BPF_F_MARK_MANGLED_0)),
        };
        let port = transport + if source { 0 } else { 2 };
        let pseudo = flags | u64::from(BPF_F_PSEUDO_HDR) | 4;
        let ([a, b, c, d], [w, x, y, z]) = (old.0.words(), new.0.words());
        let skb = self.context.skb.skb;
        let mut failed = 0;
        // SAFETY: a valid context, and for the stores a pointer to as many
        // bytes as are named. The helpers make the packet writable or fail.
        unsafe {
            failed |= bpf_l4_csum_replace(
                skb,
                checksum,
                u64::from(old.1.network()),
                u64::from(new.1.network()),
                flags | 2,
            );
            failed |= bpf_l4_csum_replace(skb, checksum, u64::from(d), u64::from(z), pseudo);
            if v4 {
                failed |= bpf_l3_csum_replace(skb, ETHERNET + 10, u64::from(d), u64::from(z), 4);
                failed |= bpf_skb_store_bytes(skb, address, (&raw const z).cast(), 4, 0);
            } else {
                failed |= bpf_l4_csum_replace(skb, checksum, u64::from(a), u64::from(w), pseudo);
                failed |= bpf_l4_csum_replace(skb, checksum, u64::from(b), u64::from(x), pseudo);
                failed |= bpf_l4_csum_replace(skb, checksum, u64::from(c), u64::from(y), pseudo);
                let words = new.0.words();
                failed |= bpf_skb_store_bytes(skb, address, words.as_ptr().cast(), 16, 0);
            }
            let number = new.1.network();
            failed |= bpf_skb_store_bytes(skb, port, (&raw const number).cast(), 2, 0);
        }
        if failed == 0 {
            Ok(())
        } else {
            Err(Reason::HelperFailed)
        }
    }
}
