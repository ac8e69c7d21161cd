//! What sockets remember.

use crate::destination::{Ip, Port, Protocol};
use crate::layout::shared;
use crate::sandbox::{CgroupId, SandboxId};

/// Peers that one unconnected UDP socket is remembered for.
pub const MAX_PEERS: usize = 4;

/// What was decided for a socket, kept in its storage (`BPF_MAP_TYPE_SK_STORAGE`).
///
/// It is what lets a connection outlive the grant that opened it. It counts
/// only while `cgroup` is the cgroup of the socket that sends: a connection can
/// be judged in one sandbox on a socket that belongs to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Flow {
    /// The sandbox's cgroup that was judged.
    pub cgroup: CgroupId,
    /// [`crate::Settings::epoch`] at that time.
    pub epoch: u32,
    /// How many peers were ever remembered; the next goes to this slot, modulo
    /// [`MAX_PEERS`].
    pub remembered: u32,
    /// The peers that were allowed. A connected socket uses the first only.
    pub peers: [Peer; MAX_PEERS],
}

/// One allowed peer of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Peer {
    /// Its address.
    pub ip: Ip,
    /// Boot-time nanoseconds until which it counts, or [`Peer::LASTS`] or
    /// [`Peer::STATIC`].
    pub expires: u64,
    /// Its port.
    pub port: Port,
    /// Zero.
    pub reserved: [u16; 3],
}

impl Peer {
    /// The `expires` of a connected peer: it counts while the socket stays
    /// connected, whatever becomes of the grant.
    pub const LASTS: u64 = u64::MAX;
    /// The `expires` of a peer that a static rule allows: only a change of
    /// policy, which moves the epoch, ends it.
    pub const STATIC: u64 = u64::MAX - 1;

    /// Whether this is that endpoint.
    #[inline(always)]
    pub fn is(&self, ip: &Ip, port: Port) -> bool {
        self.port == port && self.ip == *ip && self.expires != 0
    }
}

impl Flow {
    /// The remembered peer with this endpoint.
    #[inline(always)]
    pub fn peer(&self, ip: &Ip, port: Port) -> Option<&Peer> {
        // Unrolled by hand: on a loop over 40-byte elements the verifier of 6.1
        // keeps one state per iteration and exit.
        let [a, b, c, d] = &self.peers;
        if a.is(ip, port) {
            Some(a)
        } else if b.is(ip, port) {
            Some(b)
        } else if c.is(ip, port) {
            Some(c)
        } else if d.is(ip, port) {
            Some(d)
        } else {
            None
        }
    }

    /// Remembers an allowed peer, in place of the oldest if all slots are taken.
    #[inline(always)]
    pub fn remember(&mut self, ip: &Ip, port: Port, expires: u64) {
        let slot = (self.remembered % MAX_PEERS as u32) as usize;
        if let Some(peer) = self.peers.get_mut(slot) {
            *peer = Peer {
                ip: *ip,
                expires,
                port,
                reserved: [0; 3],
            };
        }
        self.remembered = self.remembered.saturating_add(1);
    }

    /// Whether some peer was pushed out, so that an absent peer proves nothing.
    #[inline(always)]
    pub const fn has_forgotten(&self) -> bool {
        self.remembered > MAX_PEERS as u32
    }
}

/// What is remembered of a socket that speaks to the resolver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Origin {
    /// The address that the client asked last, before the redirect.
    pub ip: Ip,
    /// The port that the client asked; 0 if it addressed the resolver itself.
    pub port: Port,
    /// Zero.
    pub reserved: u16,
    /// The process that asked last; 0 if it addressed the resolver itself.
    pub process: u32,
    /// Under which key the socket last proved who asks, so that the proof ends
    /// with the socket. Its protocol is 0 while there is none.
    pub asker: AskerKey,
}

/// The source of a packet that a sandbox sent to the resolver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(C)]
pub struct AskerKey {
    /// Source address.
    pub ip: Ip,
    /// Source port.
    pub port: Port,
    /// IANA transport number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

impl AskerKey {
    /// The key of what comes from there.
    #[inline(always)]
    #[must_use]
    pub const fn new(ip: Ip, port: Port, protocol: Protocol) -> Self {
        Self {
            ip,
            port,
            protocol: protocol.number(),
            reserved: [0; 5],
        }
    }
}

/// Who asks the resolver, as `cgroup_skb/egress` saw it on the packet's socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Asker {
    /// The sandbox's cgroup.
    pub cgroup: CgroupId,
    /// Boot-time nanoseconds after which this proves nothing.
    pub expires: u64,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The process that asked, or 0: for the record, and proof of nothing.
    pub process: u32,
}

/// How long a sent packet proves who asks, in nanoseconds. The agent reads a
/// UDP query well within it, and a TCP connection is looked up when it is
/// accepted; each further packet of the connection renews it.
pub const ASKER_LIFETIME: u64 = 30_000_000_000;

shared! {
    Peer: 32 = { ip: Ip, expires: u64, port: u16, reserved: [u16; 3] }
    Flow: 144 = { cgroup: u64, epoch: u32, remembered: u32, peers: [Peer; MAX_PEERS] }
    Origin: 48 = { ip: Ip, port: u16, reserved: u16, process: u32, asker: AskerKey }
    AskerKey: 24 = { ip: Ip, port: u16, protocol: u8, reserved: [u8; 5] }
    Asker: 24 = { cgroup: u64, expires: u64, sandbox: u32, process: u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_peer_takes_the_place_of_the_first_and_the_flow_knows_it() {
        let mut flow = Flow::default();
        let ip = |n: u32| Ip::from_v4((0xcb00_7100 + n).to_be());
        for n in 1..=4 {
            flow.remember(&ip(n), Port::from_host(443), Peer::LASTS);
        }
        assert!(!flow.has_forgotten());
        assert!(flow.peer(&ip(1), Port::from_host(443)).is_some());
        flow.remember(&ip(5), Port::from_host(443), Peer::LASTS);
        assert!(flow.peer(&ip(1), Port::from_host(443)).is_none());
        assert!(flow.peer(&ip(5), Port::from_host(443)).is_some());
        assert!(flow.peer(&ip(5), Port::from_host(80)).is_none());
        assert!(flow.has_forgotten());
    }

    #[test]
    fn an_empty_flow_knows_no_peer_not_even_the_unspecified_one() {
        assert!(Flow::default().peer(&Ip::UNSPECIFIED, Port::ANY).is_none());
    }
}
