//! Sockets towards upstreams, before their question and after their answer.
//!
//! To make one and to close one takes the kernel some microseconds, for which nobody who
//! asked has to wait: some are made before they are needed, and those from which nothing is
//! read any more are closed when the reply has left. What waits here for a question has no
//! port, which somebody could look for: it gets one, at random, when it is connected.
//!
//! Each thread that reads questions has its own, which its reactor knows; those of all other
//! threads are shared.

use super::expecting::{Expecting, Unasked};
use super::reactor::{Reactor, Registered};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::cell::RefCell;
use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Spent ones that are kept open at most. Further ones are closed by whoever brings them.
const MOST_SPENT: usize = 64;
/// What is kept ready for each address family in which questions were asked.
const READY: usize = 8;

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// What belongs to one thread.
struct Own {
    reactor: Arc<Reactor>,
    state: State,
}

/// Has the calling thread use sockets of its own from now on, which this reactor waits for.
pub(super) fn belong_to(reactor: Arc<Reactor>) {
    let state = State::default();
    OWN.set(Some(Own { reactor, state }));
}

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
    sockets: Vec<Unasked>,
}

impl Sockets {
    /// A socket for one question to `server`, not connected.
    pub(super) fn take(&self, server: SocketAddr) -> io::Result<Unasked> {
        let family = match server {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let taken = self.with(|state| {
            let ready = state.ready(family);
            ready.is_used = true;
            ready.sockets.pop()
        });
        taken.map_or_else(|| make(family), Ok)
    }

    /// Takes a socket from which nothing is read any more.
    pub(super) fn put_spent(&self, mut socket: Expecting) {
        socket.end();
        let too_many = self.with(|state| {
            if state.spent.len() >= MOST_SPENT {
                return Some(socket);
            }
            state.spent.push(socket);
            None
        });
        // Closed here, after the lock is let go of.
        drop(too_many);
    }

    /// Closes what is spent, and makes one for a question to come in each family that has
    /// room for it. The calling thread must be in the network namespace of the agent, which
    /// the socket then belongs to.
    pub(super) fn renew(&self) {
        let spent = self.with(|state| mem::take(&mut state.spent));
        // The kernel closes and makes them without the lock.
        drop(spent);
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            if !self.with(|state| state.ready(family).has_room()) {
                continue;
            }
            // Whoever needs one tries again, and says why if there is none.
            let Ok(socket) = make(family) else { return };
            self.with(|state| {
                let ready = state.ready(family);
                // Another thread may have made the last meanwhile.
                if ready.has_room() {
                    ready.sockets.push(socket);
                }
            });
        }
    }

    /// Uses what belongs to the calling thread, or what is shared.
    fn with<R>(&self, use_it: impl FnOnce(&mut State) -> R) -> R {
        OWN.with_borrow_mut(|own| match own {
            Some(own) => use_it(&mut own.state),
            None => use_it(&mut self.lock()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ready(&mut self, family: AddressFamily) -> &mut Ready {
        match family {
            AddressFamily::INET6 => &mut self.v6,
            _ => &mut self.v4,
        }
    }
}

impl Ready {
    fn has_room(&self) -> bool {
        self.is_used && self.sockets.len() < READY
    }
}

/// A socket of the calling thread.
fn make(family: AddressFamily) -> io::Result<Unasked> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = UdpSocket::from(socket_with(family, SocketType::DGRAM, flags, None)?);
    OWN.with_borrow(|own| match own {
        Some(own) => Ok(Unasked::Reader(Registered::new(&own.reactor, socket)?)),
        None => Ok(Unasked::Runtime(socket)),
    })
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
            let family = match server {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            for made in 1..=READY + 1 {
                sockets.renew();
                let ready = sockets.lock().ready(family).sockets.len();
                assert_eq!(ready, made.min(READY), "{server}");
            }
            for _ in 0..READY {
                let mut state = sockets.lock();
                let next = state
                    .ready(family)
                    .sockets
                    .last()
                    .expect("one that is ready");
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
