//! Sandboxes that are an interface: who is behind it, and what they have under way.
//!
//! No host socket stands behind a packet of a container or a microVM, so what
//! sockets remember elsewhere is remembered here, by connection. Needs nothing
//! that Linux 6.1 does not have.

use crate::destination::{Destination, Ip, Port};
use crate::layout::shared;
use crate::sandbox::CgroupId;

/// The bit that no cgroup id has: the kernel counts those up from one.
const INTERFACE: u64 = 1 << 63;

impl CgroupId {
    /// The id under which the sandbox behind an interface stands in the maps
    /// that are keyed by cgroup: it takes a cgroup's place there.
    #[inline(always)]
    pub const fn of_interface(index: u32) -> Self {
        Self(INTERFACE | index as u64)
    }

    /// The interface's index, if this stands for one.
    #[inline(always)]
    pub const fn interface(self) -> Option<u32> {
        if self.0 & INTERFACE == 0 {
            None
        } else {
            Some(self.0 as u32)
        }
    }
}

/// An Ethernet address, as three words of the frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(C)]
pub struct Mac(pub [u16; 3]);

impl Mac {
    /// All zero: not assigned, or not learned yet. Nobody can send from it.
    pub const NONE: Self = Self([0; 3]);
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xffff; 3]);

    /// Takes the six bytes in their order on the wire.
    pub const fn from_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ])
    }

    /// The six bytes in their order on the wire.
    pub const fn bytes(self) -> [u8; 6] {
        let Self([x, y, z]) = self;
        let ([a, b], [c, d], [e, f]) = (x.to_ne_bytes(), y.to_ne_bytes(), z.to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// Whether it names more than one station.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        u16::from_be(self.0[0]) >> 8 & 1 != 0
    }
}

/// Addresses of a sandbox: those that are `address` under `mask`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Assigned {
    /// The address under the mask.
    pub address: Ip,
    /// The mask; all ones for a single address. An unused slot has an address
    /// outside of its mask, which nothing equals.
    pub mask: Ip,
}

impl Assigned {
    /// Matches nothing.
    pub const NONE: Self = Self {
        address: Ip([u32::MAX; 4]),
        mask: Ip([0; 4]),
    };

    /// The network of `bits` leading bits (of 128, also for IPv4) around `ip`.
    pub const fn network(ip: Ip, bits: u32) -> Self {
        let mut mask = [0_u32; 4];
        let mut word = 0;
        while word < 4 {
            let left = bits.saturating_sub(word as u32 * 32);
            mask[word] = match left {
                0 => 0,
                1..=31 => (!(u32::MAX >> left)).to_be(),
                _ => u32::MAX,
            };
            word += 1;
        }
        let [a, b, c, d] = ip.0;
        Self {
            address: Ip([a & mask[0], b & mask[1], c & mask[2], d & mask[3]]),
            mask: Ip(mask),
        }
    }

    /// Whether an address is in both.
    pub fn meets(&self, other: &Self) -> bool {
        *self != Self::NONE
            && *other != Self::NONE
            && (self.holds(&other.address) || other.holds(&self.address))
    }

    #[inline(always)]
    const fn holds(&self, ip: &Ip) -> bool {
        let ([a, b, c, d], [w, x, y, z]) = (ip.0, self.mask.0);
        let [i, j, k, l] = self.address.0;
        a & w == i && b & x == j && c & y == k && d & z == l
    }
}

/// Networks that one interface can be assigned.
pub const MAX_ASSIGNED: usize = 4;

/// What is on the other side of an interface; written by the agent alone, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Link {
    /// What the sandbox may send from.
    pub assigned: [Assigned; MAX_ASSIGNED],
    /// The host's IPv6 address on the link, to which DNS is brought; unspecified
    /// if it has none.
    pub gateway6: Ip,
    /// The host's link-local address on the link, if any.
    pub local6: Ip,
    /// Connections that the agent has taken out of the table since the
    /// interface was attached; see [`LinkUse`].
    pub swept: u64,
    /// The host's IPv4 address on the link, network order; 0 if it has none.
    pub gateway4: u32,
    /// Bits of [`Link::DHCP`] and the others: what the policy lets pass beside connections.
    pub permits: u32,
    /// The sandbox's own Ethernet address; [`Mac::NONE`] if its first frame is to tell.
    pub mac: Mac,
    /// The host's.
    pub gateway_mac: Mac,
    /// Where the resolver listens on the gateway's addresses, network order; 0 if nowhere.
    pub resolver_port: u16,
    /// Zero.
    pub reserved: u16,
}

impl Link {
    /// [`Link::permits`]: DHCP between the sandbox and the gateway.
    pub const DHCP: u32 = 1;
    /// [`Link::permits`]: router solicitations and the gateway's advertisements.
    pub const ROUTER_ADVERTISEMENTS: u32 = 2;

    /// Whether the sandbox may send from there.
    #[inline(always)]
    pub fn owns(&self, ip: &Ip) -> bool {
        let [a, b, c, d] = &self.assigned;
        (a.holds(ip) || b.holds(ip) || c.holds(ip) || d.holds(ip)) && !self.is_gateway(ip)
    }

    /// Whether that is the host on this link.
    #[inline(always)]
    pub fn is_gateway(&self, ip: &Ip) -> bool {
        match ip.v4() {
            Some(v4) => v4 == self.gateway4 && v4 != 0,
            None => *ip != Ip::UNSPECIFIED && (*ip == self.gateway6 || *ip == self.local6),
        }
    }

    /// The resolver's address for the family of `ip`, if it listens there.
    #[inline(always)]
    pub fn resolver_for(&self, ip: &Ip) -> Option<(Ip, Port)> {
        let address = if ip.is_v4() {
            Ip::from_v4(self.gateway4)
        } else {
            self.gateway6
        };
        let absent = address == Ip::UNSPECIFIED || address.v4() == Some(0);
        if absent || self.resolver_port == 0 {
            None
        } else {
            Some((address, Port::from_network(self.resolver_port)))
        }
    }
}

/// What the programs count and learn about an interface; they alone write it,
/// after the agent has made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct LinkUse {
    /// Connections that were put into the table. Less [`Link::swept`] it is how
    /// many are in it.
    pub begun: u64,
    /// The Ethernet address of the first frame, where none is assigned.
    pub mac: Mac,
    /// Zero.
    pub reserved: u16,
}

/// Connections that one interface may have in the table, of
/// [`MAX_CONNECTIONS`]: a sandbox that fills its share leaves others theirs.
pub const CONNECTIONS_PER_LINK: u64 = 16_384;
/// Connections of all interfaces.
pub const MAX_CONNECTIONS: usize = 262_144;

/// A connection that a sandbox began through its interface; both directions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct ConnectionKey {
    /// The sandbox's end.
    pub here: Ip,
    /// The other end.
    pub there: Ip,
    /// The interface's index.
    pub interface: u32,
    /// The sandbox's port.
    pub here_port: Port,
    /// The other port.
    pub there_port: Port,
    /// IANA transport number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

impl ConnectionKey {
    /// The connection from `here` to `there`.
    #[inline(always)]
    pub const fn new(interface: u32, (here, here_port): (Ip, Port), there: &Destination) -> Self {
        Self {
            here,
            there: there.ip,
            interface,
            here_port,
            there_port: there.port,
            protocol: there.protocol as u8,
            reserved: [0; 7],
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Connection {
    /// Coarse monotonic nanoseconds (`CLOCK_MONOTONIC_COARSE`) of its last packet.
    pub seen: u64,
    /// [`crate::Settings::epoch`] under which it was judged.
    pub epoch: u32,
    /// What has happened to it: [`Connection::ANSWERED`] and the others.
    pub state: u32,
    /// The last acknowledgement number that the sandbox sent, machine order:
    /// the sequence number that a reset must have to be believed by it.
    pub acknowledged_here: u32,
    /// The same of the other end.
    pub acknowledged_there: u32,
    /// The sandbox's Ethernet address.
    pub mac: Mac,
    /// The host's.
    pub gateway_mac: Mac,
    /// Zero.
    pub reserved: u32,
}

impl Connection {
    /// [`Connection::state`]: the other end has sent something.
    pub const ANSWERED: u32 = 1;
    /// The sandbox has ended its side (FIN).
    pub const ENDED_HERE: u32 = 2;
    /// The other end has.
    pub const ENDED_THERE: u32 = 4;
    /// One of them has reset it.
    pub const RESET: u32 = 8;
    /// Both directions are known to be acknowledged up to the numbers above.
    pub const NUMBERED: u32 = 16;

    /// Whether nothing more than farewells is to come.
    pub const fn has_ended(&self) -> bool {
        const BOTH: u32 = Connection::ENDED_HERE | Connection::ENDED_THERE;
        self.state & Self::RESET != 0 || self.state & BOTH == BOTH
    }
}

/// How long UDP to one peer is one connection while nothing is said, in
/// nanoseconds; longer than the keep-alives of what is spoken over it.
pub const UDP_IDLE: u64 = 120_000_000_000;

/// What a sandbox behind an interface asked, by the source of its packet
/// ([`crate::AskerKey`]): answers come from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Asked {
    /// The address that was asked, port 53.
    pub ip: Ip,
    /// The interface's index.
    pub interface: u32,
    /// Zero.
    pub reserved: u32,
}

shared! {
    Mac: 6 = { 0: [u16; 3] }
    Assigned: 32 = { address: Ip, mask: Ip }
    Link: 192 = {
        assigned: [Assigned; MAX_ASSIGNED], gateway6: Ip, local6: Ip, swept: u64, gateway4: u32,
        permits: u32, mac: Mac, gateway_mac: Mac, resolver_port: u16, reserved: u16,
    }
    LinkUse: 16 = { begun: u64, mac: Mac, reserved: u16 }
    ConnectionKey: 48 = {
        here: Ip, there: Ip, interface: u32, here_port: u16, there_port: u16, protocol: u8,
        reserved: [u8; 7],
    }
    Connection: 40 = {
        seen: u64, epoch: u32, state: u32, acknowledged_here: u32, acknowledged_there: u32,
        mac: Mac, gateway_mac: Mac, reserved: u32,
    }
    Asked: 24 = { ip: Ip, interface: u32, reserved: u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> Ip {
        Ip::from_v4(u32::from_ne_bytes([a, b, c, d]))
    }

    #[test]
    fn an_interface_is_no_cgroup_and_says_which_it_is() {
        assert_eq!(CgroupId::of_interface(7).interface(), Some(7));
        assert_eq!(CgroupId(7).interface(), None);
    }

    #[test]
    fn an_assigned_network_holds_its_own_addresses_only() {
        let link = Assigned::network(v4(10, 0, 0, 1), 96 + 30);
        assert!(link.holds(&v4(10, 0, 0, 2)) && link.holds(&v4(10, 0, 0, 1)));
        assert!(!link.holds(&v4(10, 0, 0, 4)) && !link.holds(&Ip::UNSPECIFIED));
        let host = Assigned::network(v4(10, 0, 0, 2), 128);
        assert!(host.holds(&v4(10, 0, 0, 2)) && !host.holds(&v4(10, 0, 0, 3)));
        for ip in [
            v4(0, 0, 0, 0),
            v4(255, 255, 255, 255),
            Ip::UNSPECIFIED,
            Ip([u32::MAX; 4]),
        ] {
            assert!(!Assigned::NONE.holds(&ip), "{ip:?}");
        }
    }

    #[test]
    fn bytes_of_an_ethernet_address_come_back_as_they_were() {
        let bytes = [2, 0x11, 0x22, 0x33, 0x44, 0x55];
        assert_eq!(Mac::from_bytes(bytes).bytes(), bytes);
        assert!(!Mac::from_bytes(bytes).is_group());
        assert!(Mac::BROADCAST.is_group() && Mac::from_bytes([1, 0, 0x5e, 0, 0, 1]).is_group());
    }
}
