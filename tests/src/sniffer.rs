//! The judge: everything that arrived in the far namespace.

use crate::Namespace;
use crate::packet::{Mac, Packet};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the sniffer may lag behind the wire.
const PATIENCE: Duration = Duration::from_secs(5);

/// Collects every frame that a namespace receives from one sender or is not
/// known to come from elsewhere.
#[derive(Debug)]
pub struct Sniffer {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Starts to listen in `namespace`. Frames that `own` sends and frames of
    /// the loopback device are not collected.
    pub fn start(namespace: &Namespace, own: Mac) -> io::Result<Self> {
        let socket = namespace.run(|| {
            let flags = SocketFlags::CLOEXEC;
            socket_with(
                AddressFamily::PACKET,
                SocketType::RAW,
                flags,
                Some(eth::ALL),
            )
        })?;
        // A burst must not push out the one packet that decides.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20)?;
        let timeout = Some(Duration::from_millis(50));
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            timeout,
        )?;
        let packets = Arc::default();
        let stop = Arc::default();
        let (collected, stopped) = (Arc::clone(&packets), Arc::clone(&stop));
        let reader = std::thread::spawn(move || collect(&socket, own, &collected, &stopped));
        Ok(Self {
            packets,
            stop,
            reader: Some(reader),
        })
    }

    /// Everything that was collected so far.
    pub fn packets(&self) -> Vec<Packet> {
        self.packets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says whether a packet was collected of which `predicate` holds.
    pub fn saw(&self, predicate: impl FnMut(&Packet) -> bool) -> bool {
        self.packets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(predicate)
    }

    /// Waits until such a packet is collected, or patience ends.
    pub fn awaits(&self, mut predicate: impl FnMut(&Packet) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !self.saw(&mut predicate) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Ends it: who measures speed wants no copy of every packet.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // A panic of the reader was already printed, and this may run
            // while the test itself panics.
            let _ = reader.join();
        }
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.end();
    }
}

fn collect(socket: &OwnedFd, own: Mac, packets: &Mutex<Vec<Packet>>, stop: &AtomicBool) {
    // Segments are not cut before the wire, so a frame can be 64 KiB long.
    let mut buffer = vec![0_u8; 1 << 17];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, _)) = recv(socket, &mut buffer[..], RecvFlags::empty()) else {
            continue;
        };
        let Some((sender, packet)) = Packet::parse(&buffer[..length]) else {
            continue;
        };
        if sender != own && sender != Mac::default() {
            packets
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(packet);
        }
    }
}
