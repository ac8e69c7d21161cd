//! Where a packet goes.

use crate::layout::shared;

/// An IPv4 or IPv6 address as four words in network order.
///
/// IPv4 is held as IPv4-mapped IPv6 (`::ffff:a.b.c.d`, RFC 4291 section
/// 2.5.5.2): a v4 address and its mapped v6 form are the same destination on
/// the wire, so they must be the same key. Four 32-bit words and not sixteen
/// bytes: byte-wise code doubles what the verifier has to walk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(C, align(8))]
pub struct Ip(pub(crate) [u32; 4]);

/// The middle word of every IPv4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Ip {
    /// `::`, and what an absent address is stored as.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// Takes an IPv4 address as the kernel stores it (`__be32`).
    #[inline(always)]
    pub const fn from_v4(address: u32) -> Self {
        Self([0, 0, MAPPED, address])
    }

    /// Takes an IPv6 address as the kernel stores it (`__be32[4]`).
    #[inline(always)]
    pub const fn from_v6(address: [u32; 4]) -> Self {
        Self(address)
    }

    /// The IPv4 address (`__be32`), if this is one.
    #[inline(always)]
    pub const fn v4(&self) -> Option<u32> {
        if self.is_v4() { Some(self.0[3]) } else { None }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// The four words, network order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// Whether a socket of the same host listens there: `127.0.0.0/8`, `::1`,
    /// and the unspecified addresses, which the kernel turns into loopback
    /// *after* the address hooks have run.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let [a, b, c, d] = self.0;
        if self.is_v4() {
            let d = u32::from_be(d);
            return d >> 24 == 127 || d == 0;
        }
        a == 0 && b == 0 && c == 0 && (d == 0 || d == 1_u32.to_be())
    }

    /// Whether no policy can open this address, because it does not name one
    /// host: multicast, broadcast (on loopback too, where every socket bound to
    /// `0.0.0.0` hears it), reserved space, and IPv6 ranges that carry
    /// an IPv4 address inside them (6to4, Teredo, NAT64, IPv4-compatible),
    /// which would let the embedded address escape every IPv4 rule.
    #[inline(always)]
    pub const fn is_never_allowed(&self) -> bool {
        let [a, b, c, d] = self.0;
        if self.is_v4() {
            let d = u32::from_be(d);
            // 0.0.0.0/8 except 0.0.0.0 itself, which is loopback; 224.0.0.0/3;
            // the broadcast addresses of 127.0.0.0/8, the all-zero one up to Linux 5.13.
            return (d >> 24 == 0 && d != 0)
                || d >> 29 == 7
                || d == 0x7fff_ffff
                || d == 0x7f00_0000;
        }
        let a = u32::from_be(a);
        a >> 24 == 0xff                                   // ff00::/8 multicast
            || a >> 16 == 0x2002                          // 6to4, RFC 3056
            || a == 0x2001_0000                           // Teredo, RFC 4380
            || (a == 0x0064_ff9b && b == 0 && c == 0)     // NAT64, RFC 6052
            || (a == 0x0064_ff9b && u32::from_be(b) >> 16 == 1) // RFC 8215
            || (a == 0 && b == 0 && c == 0 && d != 0 && d != 1_u32.to_be()) // ::/96
    }
}

/// A transport that a sandbox may use. The numbers are IANA's (and the kernel's).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// ICMP echo (RFC 792), 1; that of ICMPv6 (RFC 4443 section 4) too, so that
    /// one rule, one grant and one kind of connection serve both families. It
    /// has no ports: [`Port::ANY`] stands for the one of the other end, the
    /// identifier for the sandbox's.
    Icmp = 1,
    /// TCP, 6.
    Tcp = 6,
    /// UDP, 17.
    Udp = 17,
}

impl Protocol {
    /// Reads the IANA number of a transport with ports, which is all that sockets
    /// of the host may speak; `None` for everything else. ICMP is not among them:
    /// what reads headers takes an echo message for one only at an interface, and
    /// only after it has looked at more than the number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// Reads the number of a key or a report, where ICMP stands for its echo.
    pub const fn from_key(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Icmp),
            other => Self::from_number(other),
        }
    }

    /// Whether its messages are for one of the other end's ports.
    pub const fn has_ports(self) -> bool {
        !matches!(self, Self::Icmp)
    }

    /// The IANA number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The lower-case name that policies use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port in network order, as packets and socket addresses carry it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Port(pub(crate) u16);

impl Port {
    /// Stands for every port in a [`crate::GrantKey`].
    pub const ANY: Self = Self(0);
    /// Port 53, where classic DNS is spoken.
    pub const DNS: Self = Self::from_host(53);

    /// Takes a port in the machine's order.
    #[inline(always)]
    pub const fn from_host(port: u16) -> Self {
        Self(port.to_be())
    }

    /// Takes a port in network order.
    #[inline(always)]
    pub const fn from_network(port: u16) -> Self {
        Self(port)
    }

    /// The port in the machine's order.
    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The port in network order.
    #[inline(always)]
    pub const fn network(self) -> u16 {
        self.0
    }
}

/// One transport endpoint: what a packet is addressed to, or came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Destination {
    /// The address.
    pub ip: Ip,
    /// The port.
    pub port: Port,
    /// The transport.
    pub protocol: Protocol,
}

shared! {
    Port: 2 = { 0: u16 }
}
const _: () = assert!(size_of::<Ip>() == 16 && align_of::<Ip>() == 8);
#[cfg(feature = "user")]
// SAFETY: four `u32` in a `repr(C)` struct; 16 bytes at alignment 8 leave no padding.
unsafe impl aya::Pod for Ip {}

#[cfg(feature = "user")]
mod text {
    //! How addresses are read and written by people.
    extern crate std;
    use super::{Destination, Ip};
    use core::fmt;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    impl From<IpAddr> for Ip {
        fn from(address: IpAddr) -> Self {
            match address {
                IpAddr::V4(v4) => Self::from_v4(u32::from_ne_bytes(v4.octets())),
                IpAddr::V6(v6) => {
                    let o = v6.octets();
                    let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
                    Self([word(0), word(4), word(8), word(12)])
                }
            }
        }
    }

    impl From<Ip> for IpAddr {
        /// IPv4-mapped addresses come out as IPv4.
        fn from(ip: Ip) -> Self {
            match ip.v4() {
                Some(word) => Self::V4(Ipv4Addr::from(word.to_ne_bytes())),
                None => {
                    let mut octets = [0; 16];
                    for (chunk, word) in octets.chunks_exact_mut(4).zip(ip.0) {
                        chunk.copy_from_slice(&word.to_ne_bytes());
                    }
                    Self::V6(Ipv6Addr::from(octets))
                }
            }
        }
    }

    impl fmt::Display for Ip {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            IpAddr::from(*self).fmt(f)
        }
    }

    impl fmt::Display for Destination {
        /// `203.0.113.7:443/tcp`, `[2001:db8::1]:53/udp`, `203.0.113.7/icmp`.
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if !self.protocol.has_ports() {
                return write!(f, "{}/{}", self.ip, self.protocol.name());
            }
            let address = SocketAddr::new(self.ip.into(), self.port.host());
            write!(f, "{address}/{}", self.protocol.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ip, Protocol};
    use std::net::IpAddr;

    fn ip(text: &str) -> Ip {
        // The conversion under feature "user" is not there in a plain test build.
        match text.parse::<IpAddr>().expect("an address") {
            IpAddr::V4(v4) => Ip::from_v4(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let o = v6.octets();
                let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
                Ip::from_v6([word(0), word(4), word(8), word(12)])
            }
        }
    }

    #[test]
    fn v4_and_its_mapped_form_are_one_address() {
        assert_eq!(ip("203.0.113.7"), ip("::ffff:203.0.113.7"));
    }

    #[test]
    fn unspecified_counts_as_loopback_because_the_kernel_rewrites_it_later() {
        for text in [
            "127.0.0.1",
            "127.77.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
        ] {
            assert!(ip(text).is_loopback(), "{text}");
            assert!(!ip(text).is_never_allowed(), "{text}");
        }
        for text in ["128.0.0.1", "::2", "10.0.0.1", "0.0.0.1"] {
            assert!(!ip(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn no_number_of_a_header_is_taken_for_an_echo() {
        for number in 0..=u8::MAX {
            let read = Protocol::from_number(number);
            assert_ne!(read, Some(Protocol::Icmp), "{number}");
            assert!(read.is_none_or(|protocol| protocol.number() == number));
        }
        assert_eq!(Protocol::from_key(1), Some(Protocol::Icmp));
        assert_eq!(Protocol::from_key(58), None);
    }

    #[test]
    fn addresses_that_are_no_single_host_are_never_allowed() {
        for text in [
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "127.255.255.255",
            "127.0.0.0",
            "::ffff:127.255.255.255",
            "240.0.0.1",
            "0.1.2.3",
            "ff02::1",
            "2002:a00:1::",
            "2001:0:5ef5::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "::10.0.0.1",
        ] {
            assert!(ip(text).is_never_allowed(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "127.255.255.254",
            "223.255.255.255",
            "2001:db8::1",
            "2001:1::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(!ip(text).is_never_allowed(), "{text}");
        }
    }
}
