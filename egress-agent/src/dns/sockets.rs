//! Sockets towards upstreams, before their question and after their answer.
//!
//! To make one, to have the runtime wait for it and to close it takes some microseconds
//! each, for which nobody who asked has to wait: some are made before they are needed, and
//! those from which nothing is read any more are closed when the reply has left. What waits
//! here for a question has no port yet, which nobody could guess or find: it gets one, at
//! random, when it is connected.

use super::expecting::Expecting;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Spent ones that are kept open at most. Further ones are closed by whoever brings them.
const MOST_SPENT: usize = 64;
/// What is kept ready for each address family in which questions were asked.
const READY: usize = 8;

/// Sockets that are to be used, and those that are to be closed.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    v4: Ready,
    v6: Ready,
    spent: Vec<Expecting>,
}

#[derive(Debug, Default)]
struct Ready {
    is_used: bool,
    sockets: Vec<Expecting>,
}

impl Sockets {
    /// A socket for one question to `server`, not connected.
    pub(super) fn take(&self, server: SocketAddr) -> io::Result<Expecting> {
        let mut state = self.lock();
        let (family, ready) = match server {
            SocketAddr::V4(_) => (AddressFamily::INET, &mut state.v4),
            SocketAddr::V6(_) => (AddressFamily::INET6, &mut state.v6),
        };
        ready.is_used = true;
        let taken = ready.sockets.pop();
        drop(state);
        taken.map_or_else(|| make(family), Ok)
    }

    /// Takes a socket from which nothing is read any more.
    pub(super) fn put_spent(&self, socket: Expecting) {
        let mut state = self.lock();
        if state.spent.len() < MOST_SPENT {
            state.spent.push(socket);
        }
        // Otherwise it is closed on return, after the lock is let go of.
    }

    /// Closes what is spent, and makes what will be needed. Must be called in the runtime
    /// that is to wait for answers.
    pub(super) fn renew(&self) {
        let mut state = self.lock();
        let spent = mem::take(&mut state.spent);
        let missing = [
            (AddressFamily::INET, state.v4.missing()),
            (AddressFamily::INET6, state.v6.missing()),
        ];
        // The kernel closes and makes them without the lock.
        drop(state);
        drop(spent);
        for (family, missing) in missing {
            for _ in 0..missing {
                // Whoever needs one tries again, and says why if there is none.
                let Ok(socket) = make(family) else { return };
                let mut state = self.lock();
                let ready = match family {
                    AddressFamily::INET => &mut state.v4,
                    _ => &mut state.v6,
                };
                // Another thread may have made some meanwhile.
                if ready.missing() > 0 {
                    ready.sockets.push(socket);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    fn missing(&self) -> usize {
        if self.is_used {
            READY.saturating_sub(self.sockets.len())
        } else {
            0
        }
    }
}

fn make(family: AddressFamily) -> io::Result<Expecting> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    Expecting::answer(UdpSocket::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    // An address that no other test of this process takes ports of.
    const HOST: &str = "127.77.1.1";

    #[tokio::test]
    async fn spent_ones_are_closed_at_last_and_never_too_many_are_open() {
        let far = UdpSocket::bind((HOST, 0)).expect("a socket");
        let to = far.local_addr().expect("an address");
        let sockets = Sockets::default();
        let mut ports = Vec::new();
        for _ in 0..=MOST_SPENT {
            let socket = UdpSocket::bind((HOST, 0)).expect("a socket");
            socket.set_nonblocking(true).expect("set");
            socket.connect(to).expect("connected");
            ports.push(socket.local_addr().expect("an address").port());
            sockets.put_spent(Expecting::answer(socket).expect("registered"));
        }
        let is_open = |port: &u16| UdpSocket::bind((HOST, *port)).is_err();
        assert_eq!(
            ports.iter().filter(|port| is_open(port)).count(),
            MOST_SPENT
        );
        sockets.renew();
        assert_eq!(ports.iter().filter(|port| is_open(port)).count(), 0);
    }

    #[tokio::test]
    async fn what_waits_for_a_question_has_no_port_and_is_used_once() {
        let sockets = Sockets::default();
        sockets.renew();
        assert!(sockets.lock().v4.sockets.is_empty(), "nobody has asked");
        for server in ["192.0.2.1:53", "[2001:db8::1]:53"] {
            let server: SocketAddr = server.parse().expect("an address");
            let mut held = vec![sockets.take(server).expect("a socket")];
            sockets.renew();
            sockets.renew();
            for _ in 0..READY {
                let state = sockets.lock();
                let ready = if server.is_ipv4() {
                    &state.v4
                } else {
                    &state.v6
                };
                let next = ready.sockets.last().expect("one that is ready");
                let descriptor = next.socket().as_raw_fd();
                let name = next.socket().local_addr().expect("a name");
                assert_eq!(name.port(), 0, "{server}");
                drop(state);
                let taken = sockets.take(server).expect("a socket");
                assert_eq!(taken.socket().as_raw_fd(), descriptor);
                held.push(taken);
            }
            // Beyond those that were ready they are made on the spot.
            held.push(sockets.take(server).expect("a socket"));
            let mut descriptors: Vec<i32> = held.iter().map(|s| s.socket().as_raw_fd()).collect();
            descriptors.sort_unstable();
            descriptors.dedup();
            assert_eq!(descriptors.len(), READY + 2, "each is another");
        }
    }
}
