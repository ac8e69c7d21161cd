//! The sockets that sandboxes are redirected to.

use egress_common::Protocol;
use rustix::net::sockopt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use tokio::net::TcpListener;

/// Bytes of queries that the kernel may hold while the agent is busy. The usual
/// limit (`net.core.rmem_max`) is some 500 small packets, which a burst from many
/// sandboxes fills.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How often a free port is looked for that is free for UDP and for TCP.
const PORT_TRIES: usize = 32;

/// Ports on `127.0.0.1` and `::1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ports {
    /// On `127.0.0.1`; wanted: 0 lets the kernel choose.
    pub v4: u16,
    /// On `::1`; bound: 0 says that the host has no IPv6.
    pub v6: u16,
}

/// Why the resolver cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The wanted port belongs to somebody else.
    #[error(
        "{address} ({}) is in use by another program; find it with `ss -lnp 'sport = :{}'` and \
         stop it, or configure another resolver port (0 lets the kernel choose)",
        .protocol.name(), .address.port()
    )]
    Occupied {
        /// The address.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: Protocol,
    },
    /// No port was found that is free for both transports.
    #[error("no port on {0} is free for both UDP and TCP; configure the resolver port")]
    NoFreePort(IpAddr),
    /// Anything else.
    #[error("the resolver cannot listen on {address} ({}): {source}", .protocol.name())]
    Io {
        /// The address.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: Protocol,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One address, both transports. Bound to the concrete loopback address, never
/// to the wildcard, so that nothing off the host reaches it and replies leave
/// from the address that was asked.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    pub(super) port: u16,
}

/// Binds `127.0.0.1`.
pub(super) async fn v4(port: u16) -> Result<Sockets, BindError> {
    both(Ipv4Addr::LOCALHOST.into(), port).await
}

/// Binds `::1`; `None` where the host has no IPv6 loopback.
pub(super) async fn v6(port: u16) -> Result<Option<Sockets>, BindError> {
    match both(Ipv6Addr::LOCALHOST.into(), port).await {
        Ok(sockets) => Ok(Some(sockets)),
        Err(BindError::Io { source, .. }) if is_absent(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

async fn both(ip: IpAddr, wanted: u16) -> Result<Sockets, BindError> {
    for _ in 0..PORT_TRIES {
        let udp = udp(SocketAddr::new(ip, wanted))?;
        let local = udp.local_addr();
        let address = local.map_err(|e| error(SocketAddr::new(ip, wanted), Protocol::Udp, e))?;
        match TcpListener::bind(address).await {
            Ok(tcp) => {
                let port = address.port();
                return Ok(Sockets { udp, tcp, port });
            }
            // The kernel chose a port that is free for UDP only: choose again.
            Err(e) if wanted == 0 && e.kind() == ErrorKind::AddrInUse => {}
            Err(e) => return Err(error(address, Protocol::Tcp, e)),
        }
    }
    Err(BindError::NoFreePort(ip))
}

fn udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let failed = |e| error(address, Protocol::Udp, e);
    let socket = UdpSocket::bind(address).map_err(failed)?;
    // Past the limit needs CAP_NET_ADMIN; without it the limit will do.
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))
        .map_err(|e| failed(e.into()))?;
    Ok(socket)
}

fn error(address: SocketAddr, protocol: Protocol, source: io::Error) -> BindError {
    match source.kind() {
        ErrorKind::AddrInUse => BindError::Occupied { address, protocol },
        _ => BindError::Io {
            address,
            protocol,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_what_to_do() {
        let taken = v4(0).await.expect("a free port");
        let error = v4(taken.port).await.expect_err("it is taken");
        assert!(matches!(
            error,
            BindError::Occupied {
                protocol: Protocol::Udp,
                ..
            }
        ));
        let text = error.to_string();
        assert!(
            text.contains(&taken.port.to_string()) && text.contains("another program"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn both_transports_share_the_port() {
        let sockets = v4(0).await.expect("a free port");
        assert_eq!(
            sockets.tcp.local_addr().expect("bound").port(),
            sockets.port
        );
        assert_eq!(
            sockets.udp.local_addr().expect("bound").port(),
            sockets.port
        );
    }
}
