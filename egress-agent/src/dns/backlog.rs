//! Whether datagrams wait that nobody has read.
//!
//! All sandboxes share the queues of the resolver's sockets. The gate lets each
//! send so many datagrams, and as many again only when everything has been read
//! meanwhile ([`Gate::drained`]): so what waits of one sandbox is bounded by its
//! budget, and not by how fast the agent is.
//!
//! [`Gate::drained`]: super::gate::Gate::drained

use std::sync::atomic::{AtomicBool, Ordering};

/// The sockets that datagrams are read from.
const SOCKETS: usize = 2;

/// Which sockets may hold more than was read.
#[derive(Debug, Default)]
pub(super) struct Backlog([AtomicBool; SOCKETS]);

/// One of the sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Queue {
    V4,
    V6,
}

impl Backlog {
    /// As much was read as is read at once: there may be more. Whoever says so
    /// has to come back with [`Backlog::read_all`].
    pub(super) fn may_hold_more(&self, queue: Queue) {
        self.0[queue as usize].store(true, Ordering::SeqCst);
    }

    /// Everything was read from this one; whether that is so of all of them.
    pub(super) fn read_all(&self, queue: Queue) -> bool {
        // Sequentially consistent: of two that become empty at one time, at least
        // one has to see both empty.
        let own = &self.0[queue as usize];
        if own.load(Ordering::SeqCst) {
            own.store(false, Ordering::SeqCst);
        }
        self.is_empty()
    }

    /// Whether nothing waits as far as anybody knows.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|queue| !queue.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read_when_the_last_queue_is() {
        let backlog = Backlog::default();
        assert!(backlog.read_all(Queue::V4));
        backlog.may_hold_more(Queue::V4);
        assert!(!backlog.is_empty());
        assert!(!backlog.read_all(Queue::V6), "the other one holds more");
        backlog.may_hold_more(Queue::V6);
        assert!(!backlog.read_all(Queue::V4));
        assert!(backlog.read_all(Queue::V6));
    }
}
