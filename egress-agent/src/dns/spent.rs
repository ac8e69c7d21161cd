//! Sockets whose answer has come.
//!
//! To close one takes the kernel some microseconds, for which nobody who asked has to
//! wait: they are put here, and closed when the reply has left.

use super::expecting::Expecting;
use std::mem;
use std::sync::{Mutex, PoisonError};

/// What is kept open at most. Further ones are closed by whoever brings them.
const MOST: usize = 64;

/// Sockets that are to be closed.
#[derive(Debug, Default)]
pub(super) struct Spent(Mutex<Vec<Expecting>>);

impl Spent {
    /// Takes a socket from which nothing is read any more.
    pub(super) fn put(&self, socket: Expecting) {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.len() < MOST {
            sockets.push(socket);
        }
        // Otherwise it is closed on return, after the lock is let go of.
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        let taken = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Closed without the lock, which was held for that statement only.
        drop(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[tokio::test]
    async fn they_are_closed_at_last_and_never_too_many_are_open() {
        // An address that no other test of this process takes ports of.
        const HOST: &str = "127.77.1.1";
        let far = UdpSocket::bind((HOST, 0)).expect("a socket");
        let to = far.local_addr().expect("an address");
        let spent = Spent::default();
        let mut ports = Vec::new();
        for _ in 0..=MOST {
            let socket = UdpSocket::bind((HOST, 0)).expect("a socket");
            socket.set_nonblocking(true).expect("set");
            socket.connect(to).expect("connected");
            ports.push(socket.local_addr().expect("an address").port());
            spent.put(Expecting::answer(socket).expect("registered"));
        }
        let is_open = |port: &u16| UdpSocket::bind((HOST, *port)).is_err();
        assert_eq!(ports.iter().filter(|port| is_open(port)).count(), MOST);
        spent.close();
        assert_eq!(ports.iter().filter(|port| is_open(port)).count(), 0);
    }
}
