//! Servers in a namespace: one thread for each address, ended with the guard.

use crate::Namespace;
use crate::process::paced;
use rustix::net::{RecvFlags, recvfrom};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// After an error, so that a lasting one does not spin.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a server waits for a silent client.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// Threads that end when this is dropped.
#[derive(Debug, Default)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    /// Each wakes the thread that waits for it, when it is shut down. Nothing looks for the end from time to
    /// time: a world has a hundred servers, and what is measured beside them shall not see them.
    sockets: Vec<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts a thread that waits for this socket again and again, until it is to stop. What it is
    /// given fails when it has to end, and may fail earlier.
    fn wait_for<S: AsFd + Send + 'static>(
        &mut self,
        namespace: &Namespace,
        socket: S,
        mut once: impl FnMut(&S) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.sockets.push(socket.as_fd().try_clone_to_owned()?);
        let stop = Arc::clone(&self.stop);
        self.threads.push(namespace.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                if once(&socket).is_err() && !stop.load(Ordering::Acquire) {
                    std::thread::sleep(PAUSE);
                }
            }
        }));
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for socket in &self.sockets {
            // One that is not connected says so, and wakes who reads it all the same.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Read);
        }
        for thread in self.threads.drain(..) {
            // Its panic was printed already; this may run while panicking.
            let _ = thread.join();
        }
    }
}

/// Starts to answer datagrams at `address`.
pub fn receiving(
    threads: &mut Threads,
    namespace: &Namespace,
    address: SocketAddr,
    answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> io::Result<()> {
    hearing(
        threads,
        namespace,
        address,
        move |socket, peer, datagram| {
            if let Some(reply) = answer(datagram) {
                // A reply that cannot be sent is the client's to miss.
                let _ = socket.send_to(&reply, peer);
            }
        },
    )
}

/// Starts to hear datagrams at `address`, and does with each what it is told,
/// given the socket and the sender.
pub fn hearing(
    threads: &mut Threads,
    namespace: &Namespace,
    address: SocketAddr,
    hear: impl Fn(&UdpSocket, SocketAddr, &[u8]) + Send + 'static,
) -> io::Result<()> {
    let socket = namespace.run(|| UdpSocket::bind(address))?;
    let mut buffer = vec![0; 1 << 16];
    threads.wait_for(namespace, socket, move |socket| {
        // A socket that was shut down gives nothing and names nobody, over which the
        // standard library's `recv_from` panics.
        let (length, _, peer) = recvfrom(socket, &mut buffer[..], RecvFlags::empty())?;
        let peer = peer.ok_or(io::ErrorKind::UnexpectedEof)?;
        let peer = SocketAddr::try_from(peer)?;
        hear(socket, peer, &buffer[..length]);
        Ok(())
    })
}

/// Starts to serve connections to `address`, a thread for each.
pub fn accepting(
    threads: &mut Threads,
    namespace: &Namespace,
    address: SocketAddr,
    serve: impl Fn(TcpStream) + Send + Sync + 'static,
) -> io::Result<()> {
    let listener = namespace.run(|| TcpListener::bind(address))?;
    let serve = Arc::new(serve);
    threads.wait_for(namespace, listener, move |listener| {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(paced(CLIENT_PATIENCE)))?;
        let serve = Arc::clone(&serve);
        // Not joined: it ends with its client, or with patience.
        std::thread::spawn(move || serve(stream));
        Ok(())
    })
}

/// Starts to take connections to `address` and to close them at once: for more
/// connections than there could be threads.
pub fn closing(namespace: &Namespace, address: SocketAddr) -> io::Result<Threads> {
    /// What the kernel allows without being asked (`net.core.somaxconn`).
    const BACKLOG: i32 = 4096;
    let listener = namespace.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        io::Result::Ok(socket)
    })?;
    let mut threads = Threads::default();
    threads.wait_for(namespace, listener, |listener| listener.accept().map(drop))?;
    Ok(threads)
}

/// Starts servers that send back what they get, by TCP and UDP, on every one
/// of these addresses and ports; a TCP client that speaks HTTP gets a page.
pub fn echo(namespace: &Namespace, addresses: &[IpAddr], ports: &[u16]) -> io::Result<Threads> {
    let mut threads = Threads::default();
    for &ip in addresses {
        for &port in ports {
            let address = SocketAddr::new(ip, port);
            receiving(&mut threads, namespace, address, |datagram| {
                Some(datagram.to_vec())
            })?;
            accepting(&mut threads, namespace, address, move |stream| {
                // The client decides when the stream ends.
                let _ = echo_stream(stream, address);
            })?;
        }
    }
    Ok(threads)
}

fn echo_stream(mut stream: TcpStream, address: SocketAddr) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        let got = &buffer[..length];
        if got.is_empty() {
            return Ok(());
        }
        if !got.starts_with(b"GET ") && !got.starts_with(b"HEAD ") {
            stream.write_all(got)?;
            continue;
        }
        let page = format!("hello from {address}\n");
        let length = page.len();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{page}"
        );
    }
}
