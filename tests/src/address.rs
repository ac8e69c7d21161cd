//! The addresses of a [`World`](crate::World).
//!
//! All come from the ranges that are reserved for documentation and
//! benchmarks, so that a mistake in a test reaches nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The near side of the link, where sandboxes run.
pub const NEAR_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
/// The far side of the link, the near side's gateway.
pub const FAR_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The near side of the link.
pub const NEAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The far side of the link, the near side's gateway.
pub const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// The server that policies in tests allow.
pub const ALLOWED_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The same server.
pub const ALLOWED_V6: Ipv6Addr = far_v6(0x10);
/// A second server that policies may allow.
pub const SECOND_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// The same server.
pub const SECOND_V6: Ipv6Addr = far_v6(0x20);
/// A server that no policy allows, listening on the same ports as the others:
/// whoever gets through to it gets an answer.
pub const FORBIDDEN_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// The same server.
pub const FORBIDDEN_V6: Ipv6Addr = far_v6(0x66);
/// The upstream resolver of the agent.
pub const UPSTREAM_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// The same resolver.
pub const UPSTREAM_V6: Ipv6Addr = far_v6(0x53);
/// A resolver that the agent does not use.
pub const OTHER_RESOLVER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);
/// The same resolver.
pub const OTHER_RESOLVER_V6: Ipv6Addr = far_v6(0x54);

/// Every address that the far side answers for.
pub const SERVERS: [IpAddr; 10] = [
    IpAddr::V4(ALLOWED_V4),
    IpAddr::V6(ALLOWED_V6),
    IpAddr::V4(SECOND_V4),
    IpAddr::V6(SECOND_V6),
    IpAddr::V4(FORBIDDEN_V4),
    IpAddr::V6(FORBIDDEN_V6),
    IpAddr::V4(UPSTREAM_V4),
    IpAddr::V6(UPSTREAM_V6),
    IpAddr::V4(OTHER_RESOLVER_V4),
    IpAddr::V6(OTHER_RESOLVER_V6),
];

/// TCP and UDP ports on which every server echoes.
pub const PORTS: [u16; 4] = [80, 443, 853, 4433];

const fn far_v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, host)
}
