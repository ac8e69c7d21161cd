//! Which sockets a sandbox may make, and which options it may set on them.

use super::{Judged, Passed, identify};
use crate::context::current_cgroup;
use crate::context::option::{self, SO_SNDBUF, SOL_SOCKET, SocketOption};
use crate::emit::Seen;
use crate::{lookups, maps};
use aya_ebpf::{bindings::bpf_sock, programs::SockoptContext};
use egress_common::Reason;

/// `cgroup/sock_create`: only TCP and UDP. Raw, ping, SCTP, DCCP, UDP-Lite and
/// L2TP sockets send past the address hooks; an MPTCP socket lets the peer name
/// further addresses to connect to.
#[inline(always)]
pub fn create(family: u32, kind: u32, protocol: u32, seen: &mut Seen) -> Judged {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    const STREAM: u32 = 1;
    const DATAGRAM: u32 = 2;
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    seen.detail = family << 16 | (kind & 0xff) << 8 | protocol & 0xff;
    seen.protocol = protocol as u8;
    let allowed = (family == AF_INET || family == AF_INET6)
        && ((kind == STREAM && protocol == TCP) || (kind == DATAGRAM && protocol == UDP));
    if allowed {
        return Ok(Passed::Quietly);
    }
    identify(current_cgroup(), seen)?;
    Err(Reason::SocketKind)
}

/// `cgroup/post_bind`: notes whose the socket is, for callers of the same
/// sandbox that connect to it.
#[inline(always)]
pub fn bound(sk: *mut bpf_sock) {
    if let Some(cgroup) = current_cgroup()
        && let Some(home) = lookups::remembered(&maps::HOMES, sk, true)
    {
        *home = cgroup;
    }
}

/// `cgroup/setsockopt`.
#[inline(always)]
pub fn set_option(context: &SockoptContext, seen: &mut Seen) -> Judged {
    let option = option::read(context);
    if !is_dangerous(option.level, option.name) && keeps_send_buffer(context, &option) {
        return Ok(Passed::Quietly);
    }
    seen.detail = (option.level as u32) << 16 | (option.name as u32 & 0xffff);
    identify(current_cgroup(), seen)?;
    Err(Reason::SocketOption)
}

/// Whether the option leaves a TCP socket's send buffer within its bound, which it is
/// made to where that is possible.
#[inline(always)]
fn keeps_send_buffer(context: &SockoptContext, wanted: &SocketOption) -> bool {
    const SO_SNDBUFFORCE: i32 = 32;
    /// Lets the kernel choose the size again.
    const SO_BUF_LOCK: i32 = 72;
    let frees = wanted.name == SO_BUF_LOCK;
    let concerns = frees || matches!(wanted.name, SO_SNDBUF | SO_SNDBUFFORCE);
    if wanted.level != SOL_SOCKET || !concerns || !option::is_tcp(context) {
        return true;
    }
    let most = current_cgroup()
        .and_then(lookups::sandbox)
        .map_or(0, |sandbox| sandbox.send_buffer);
    if most == 0 {
        return true;
    }
    if !frees {
        option::cut_down(context, option::half(most));
    }
    !frees
}

/// Options that make the kernel send by itself, steer packets past what the
/// packet hook reads, or hold a packet back after it was judged: in a queue that
/// obeys them (`fq`) it would outlive a revocation. Numbers are from the kernel's `include/uapi/linux/{in,in6,tcp,udp}.h`
/// and `include/uapi/asm-generic/socket.h`.
#[inline(always)]
const fn is_dangerous(level: i32, name: i32) -> bool {
    const SOL_IP: i32 = 0;
    const SOL_TCP: i32 = 6;
    const SOL_UDP: i32 = 17;
    const SOL_IPV6: i32 = 41;
    match level {
        SOL_SOCKET => matches!(
            name,
            25      // SO_BINDTODEVICE: another network for an allowed address
                | 36 // SO_MARK: policy routing
                | 47 // SO_MAX_PACING_RATE: a packet a second
                | 51 | 52 // SO_ATTACH_REUSEPORT_CBPF, _EBPF: another receiver than was judged
                | 61 // SO_TXTIME: a time to leave at
                | 62 // SO_BINDTOIFINDEX: as SO_BINDTODEVICE
        ),
        SOL_IP => matches!(
            name,
            3           // IP_HDRINCL
                | 4     // IP_OPTIONS: source routes
                | 5     // IP_ROUTER_ALERT
                | 7     // IP_RETOPTS
                | 15    // IP_FREEBIND: foreign source addresses, in effect on IPv6
                | 16 | 17 // IPsec and XFRM policy
                | 19    // IP_TRANSPARENT: foreign source addresses
                | 32    // IP_MULTICAST_IF
                | 35
                ..=48 // group membership: the kernel sends IGMP reports
                | 50 // IP_UNICAST_IF
        ),
        SOL_TCP => matches!(
            name,
            19      // TCP_REPAIR: a connection without a handshake
                | 22 // TCP_REPAIR_OPTIONS
                | 29 // TCP_REPAIR_WINDOW
                | 37 // TCP_TX_DELAY: leaves later
        ),
        SOL_UDP => matches!(name, 100), // UDP_ENCAP: hands packets to IPsec or L2TP
        SOL_IPV6 => matches!(
            name,
            3..=6       // RFC 2292 extension headers
                | 9     // IPV6_NEXTHOP
                | 17    // IPV6_MULTICAST_IF
                | 20 | 21 // group membership: the kernel sends MLD reports
                | 22    // IPV6_ROUTER_ALERT
                | 27 | 28 // anycast membership
                | 32    // IPV6_FLOWLABEL_MGR: a label can carry a routing header
                | 34 | 35 // IPsec and XFRM policy
                | 36    // IPV6_HDRINCL
                | 42..=48 // group membership by protocol-independent calls
                | 50    // IPV6_PKTINFO: another device for an allowed address
                | 54 | 55 | 57 | 59 // hop-by-hop, routing and destination headers
                | 75    // IPV6_TRANSPARENT
                | 76    // IPV6_UNICAST_IF
                | 78    // IPV6_FREEBIND: foreign source addresses
        ),
        _ => false,
    }
}
