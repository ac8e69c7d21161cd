//! Servers in a namespace: one thread for each address, ended with the guard.

use crate::Namespace;
use crate::process::paced;
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a server looks whether it should stop.
const TICK: Duration = Duration::from_millis(20);
/// How long a server waits for a silent client.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// Threads that end when this is dropped.
#[derive(Debug, Default)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
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
    socket.set_read_timeout(Some(TICK))?;
    let stop = Arc::clone(&threads.stop);
    threads.threads.push(namespace.spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while !stop.load(Ordering::Relaxed) {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            hear(&socket, peer, &buffer[..length]);
        }
    }));
    Ok(())
}

/// Starts to serve connections to `address`, a thread for each.
pub fn accepting(
    threads: &mut Threads,
    namespace: &Namespace,
    address: SocketAddr,
    serve: impl Fn(TcpStream) + Send + Sync + 'static,
) -> io::Result<()> {
    let listener = namespace.run(|| TcpListener::bind(address))?;
    listener.set_nonblocking(true)?;
    let stop = Arc::clone(&threads.stop);
    let serve = Arc::new(serve);
    threads.threads.push(namespace.spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(TICK);
                continue;
            };
            let patient = stream
                .set_nonblocking(false)
                .and_then(|()| stream.set_read_timeout(Some(paced(CLIENT_PATIENCE))));
            if patient.is_ok() {
                let serve = Arc::clone(&serve);
                // Not joined: it ends with its client, or with patience.
                std::thread::spawn(move || serve(stream));
            }
        }
    }));
    Ok(())
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
        // It also bounds how long `accept` waits.
        socket.set_read_timeout(Some(TICK))?;
        io::Result::Ok(socket)
    })?;
    let mut threads = Threads::default();
    let stop = Arc::clone(&threads.stop);
    threads.threads.push(namespace.spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            drop(listener.accept());
        }
    }));
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
