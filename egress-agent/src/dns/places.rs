//! Where sandboxes that are an interface reach the resolver: the host's own
//! address on their link, to which the kernel programs bring their queries.
//!
//! Each is bound to its device, so that nothing that arrives elsewhere can pass
//! for a packet of that link. Who asks is, as for all, what the programs wrote
//! down about the packet.

use super::counters::count;
use super::gate::Gate;
use super::listen::BindError;
use super::server::{PAUSE_AFTER_ERROR, Serve, Shared, reap};
use super::trace::Asked;
use super::worker::{reply, send};
use egress_common::{Protocol, SandboxId};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Opens places of a running resolver.
#[derive(Clone)]
pub struct Places {
    serve: Serve,
}

/// One address at one device; closed when dropped.
#[derive(Debug)]
pub struct Place {
    port: u16,
    _stop: Stop,
}

#[derive(Debug)]
struct Stop(watch::Sender<bool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl Place {
    /// The port, on UDP and TCP.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Places {
    pub(super) const fn new(serve: Serve) -> Self {
        Self { serve }
    }

    /// Opens UDP and TCP on an address of a device. Port 0 lets the kernel
    /// choose. The address need not be usable yet: it may still be tentative.
    pub fn open(&self, device: &str, address: SocketAddr) -> Result<Place, BindError> {
        self.open_at(Some(device), address, None)
    }

    /// Opens UDP and TCP on an address of the calling thread's network namespace,
    /// in which nobody is but this sandbox.
    pub fn open_for(&self, sandbox: SandboxId, address: SocketAddr) -> Result<Place, BindError> {
        self.open_at(None, address, Some(sandbox))
    }

    fn open_at(
        &self,
        device: Option<&str>,
        address: SocketAddr,
        only: Option<SandboxId>,
    ) -> Result<Place, BindError> {
        let failed = |protocol| {
            move |source: io::Error| match source.kind() {
                io::ErrorKind::AddrInUse => BindError::Occupied { address, protocol },
                _ => BindError::Io {
                    address,
                    protocol,
                    source,
                },
            }
        };
        let udp = bind(device, address, Type::DGRAM).map_err(failed(Protocol::Udp))?;
        let bound = udp.local_addr().map_err(failed(Protocol::Udp))?;
        let port = bound.as_socket().map_or(0, |address| address.port());
        let mut same = address;
        same.set_port(port);
        let tcp = bind(device, same, Type::STREAM).map_err(failed(Protocol::Tcp))?;
        /// Connections that wait to be accepted.
        const BACKLOG: i32 = 1024;
        tcp.listen(BACKLOG).map_err(failed(Protocol::Tcp))?;
        let udp = UdpSocket::from_std(udp.into()).map_err(failed(Protocol::Udp))?;
        let tcp = TcpListener::from_std(tcp.into()).map_err(failed(Protocol::Tcp))?;
        let (stop, stopped) = watch::channel(false);
        (self.serve)(udp, tcp, only, stopped);
        Ok(Place {
            port,
            _stop: Stop(stop),
        })
    }
}

fn bind(device: Option<&str>, address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    if kind == Type::STREAM {
        // After a restart old connections must not keep the port.
        socket.set_reuse_address(true)?;
    } else {
        /// Queries that wait for the agent; one link needs less than all of a host.
        const RECEIVE_BUFFER: usize = 256 << 10;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// No query is longer; what is cut off does not parse.
const RECEIVE: usize = 4096;

/// Reads the datagrams of one place until told to stop, and answers each question in a
/// task of its own. A thread for each link, as the resolver's own sockets have, would
/// be a thousand threads that sleep.
pub(super) async fn datagrams<G: Gate>(
    shared: Arc<Shared<G>>,
    socket: Arc<UdpSocket>,
    only: Option<SandboxId>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut buffer = [0; RECEIVE];
    loop {
        let received = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            received = socket.recv_from(&mut buffer) => received,
        };
        reap(&mut tasks);
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "the resolver cannot receive");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        // What waits here is one sandbox's own, and no other's budget hangs on it.
        if shared.backlog.is_empty() {
            shared.resolver.gate.drained();
        }
        let asked = Asked {
            from,
            protocol: Protocol::Udp,
            sandbox: shared.asker(only, from, Protocol::Udp),
            // Behind an interface nobody sees processes.
            process: None,
        };
        // What is no question costs its sender nothing, so it must not cost a task.
        let heard = match shared
            .resolver
            .hear(asked, buffer.get(..length).unwrap_or_default())
        {
            Ok(heard) => heard,
            Err(turned_away) => {
                send(&socket, turned_away, from);
                continue;
            }
        };
        let Some(pass) = shared.queries.enter(heard.sandbox) else {
            count(&shared.resolver.counters.overloaded);
            continue;
        };
        let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
        tasks.spawn(reply(shared, socket, (asked, heard), pass));
    }
    while tasks.join_next().await.is_some() {}
}
