//! Addresses and ports, from the ranges for benchmarks (RFC 2544).

use std::net::{Ipv4Addr, SocketAddrV4};

/// The near side of the veth pair, where the worker runs.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The far side, where everything but one listener is.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// An address of the near side itself. It is reached through the loopback
/// device, and is granted like any other: what is in `127.0.0.0/8` is decided
/// by whose socket listens, not by a grant.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);

/// Takes datagrams; nobody reads them.
pub const DATAGRAMS: SocketAddrV4 = SocketAddrV4::new(FAR, 4433);
/// How many ports behind [`DATAGRAMS`] take datagrams too.
pub const PEERS: u16 = 8;
/// Takes connections.
pub const CONNECTIONS: SocketAddrV4 = SocketAddrV4::new(FAR, 443);
/// Swallows bulk data on the far side.
pub const BULK_VETH: SocketAddrV4 = SocketAddrV4::new(FAR, 8443);
/// Swallows bulk data on the near side.
pub const BULK_LOOPBACK: SocketAddrV4 = SocketAddrV4::new(LOCAL, 8443);

/// Every destination that the worker needs, as IANA protocol number and endpoint.
pub fn destinations() -> impl Iterator<Item = (u8, SocketAddrV4)> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let datagrams = (0..PEERS).map(|n| (UDP, peer(n)));
    let streams = [CONNECTIONS, BULK_VETH, BULK_LOOPBACK].map(|it| (TCP, it));
    datagrams.chain(streams)
}

/// One of the [`PEERS`].
pub const fn peer(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(FAR, DATAGRAMS.port() + number)
}
