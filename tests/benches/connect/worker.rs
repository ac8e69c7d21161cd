//! The process that is measured: it sits in a column's cgroup and does what it
//! is told, one line each, and answers with a number and how often it did it.
//!
//! Whatever takes connections is made before it joins the cgroup, so it belongs
//! to nobody: only the client's side is judged. Both ends are served by one
//! thread, except for bulk data, so that no scheduling is measured.

use super::bulk;
use super::operation::Operation;
use super::place::{BULK_LOOPBACK, BULK_VETH, CONNECTIONS, DATAGRAMS, PEERS, peer};
use egress_tests::Namespace;
use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::{self, BufRead, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often an operation is repeated between two looks at the clock.
const BATCH: u32 = 32;
/// A small payload.
const PAYLOAD: [u8; 64] = [0x5a; 64];

/// What the operations need, made once.
struct Worker {
    listener: TcpListener,
    unconnected: UdpSocket,
    reconnected: UdpSocket,
    connected: UdpSocket,
    near: TcpStream,
    far: TcpStream,
    /// Never read: a full socket drops what comes, at a constant cost.
    _datagrams: Vec<UdpSocket>,
}

/// Keeps this thread on one processor, where there is a choice.
pub fn pin(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        // Somebody may have confined us to other processors; then so be it.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Sets up, joins the cgroup and serves until its input ends.
pub fn run(far: &str, cgroup: &Path) -> io::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let other = (cpus > 1).then_some(cpus - 1);
    // The other processes of the machine should not be measured.
    let _ = rustix::process::setpriority_process(None, -20);
    let far = Namespace::open(far)?;
    let near = Namespace::open("/proc/self/ns/net")?;
    let (listener, veth) = far.run(|| {
        io::Result::Ok((
            TcpListener::bind(CONNECTIONS)?,
            TcpListener::bind(BULK_VETH)?,
        ))
    })?;
    let datagrams = far.run(|| {
        (0..PEERS)
            .map(|n| UdpSocket::bind(peer(n)))
            .collect::<Result<_, _>>()
    })?;
    bulk::swallow(&far, veth, other);
    bulk::swallow(&near, TcpListener::bind(BULK_LOOPBACK)?, other);

    std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())?;
    pin(other.map(|_| 0));
    let connected = datagram_socket()?;
    connected.connect(DATAGRAMS)?;
    let near = TcpStream::connect(CONNECTIONS)?;
    near.set_nodelay(true)?;
    let (far, _) = listener.accept()?;
    let mut worker = Worker {
        listener,
        unconnected: datagram_socket()?,
        reconnected: datagram_socket()?,
        connected,
        near,
        far,
        _datagrams: datagrams,
    };
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let operation = Operation::named(&line)
            .ok_or_else(|| io::Error::other(format!("`{line}` is no operation")))?;
        let (value, times) = worker
            .measure(operation)
            .map_err(|error| io::Error::other(format!("{line}: {error}")))?;
        println!("{value} {times}");
    }
    Ok(())
}

/// As `socket(2)` makes it: not bound, so that the first use binds it.
fn datagram_socket() -> io::Result<UdpSocket> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(socket.into())
}

impl Worker {
    /// One sample: its value, and how many operations it is made of.
    fn measure(&mut self, operation: Operation) -> io::Result<(f64, u32)> {
        let slice = operation.slice();
        match operation {
            Operation::UdpSocket => repeat(slice, || datagram_socket().map(drop)),
            Operation::UdpConnect => repeat(slice, || self.reconnected.connect(DATAGRAMS)),
            Operation::UdpSendTo => repeat(slice, || {
                self.unconnected.send_to(&PAYLOAD, DATAGRAMS).map(drop)
            }),
            Operation::UdpSendToMany => {
                let mut next = 0;
                repeat(slice, || {
                    next = (next + 1) % PEERS;
                    self.unconnected.send_to(&PAYLOAD, peer(next)).map(drop)
                })
            }
            Operation::UdpSend => repeat(slice, || self.connected.send(&PAYLOAD).map(drop)),
            Operation::TcpConnect => self.connect(slice),
            Operation::TcpSegment => {
                let mut buffer = [0; PAYLOAD.len()];
                repeat(slice, || {
                    self.near.write_all(&PAYLOAD)?;
                    self.far.read_exact(&mut buffer)
                })
            }
            Operation::BulkVeth => bulk::send(BULK_VETH, slice).map(|value| (value, 1)),
            Operation::BulkLoopback => bulk::send(BULK_LOOPBACK, slice).map(|value| (value, 1)),
        }
    }

    /// Only the client's calls count, not what the server does in between.
    fn connect(&self, slice: Duration) -> io::Result<(f64, u32)> {
        let begin = Instant::now();
        let mut spent = Vec::new();
        while begin.elapsed() < slice {
            let begin = Instant::now();
            drop(TcpStream::connect(CONNECTIONS)?);
            spent.push(begin.elapsed().as_nanos() as f64);
            drop(self.listener.accept()?);
        }
        let times = spent.len() as u32;
        Ok((median(spent), times))
    }
}

/// Does something for about `slice`; nanoseconds for each time.
fn repeat(slice: Duration, mut what: impl FnMut() -> io::Result<()>) -> io::Result<(f64, u32)> {
    let begin = Instant::now();
    let mut spent = Vec::new();
    while begin.elapsed() < slice {
        let begin = Instant::now();
        for _ in 0..BATCH {
            what()?;
        }
        spent.push(begin.elapsed().as_nanos() as f64 / f64::from(BATCH));
    }
    let times = spent.len() as u32 * BATCH;
    Ok((median(spent), times))
}

/// The middle one: what other processes and interrupts took a few times drops
/// out. So does what the kernel puts off until later, in every column alike.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
