//! Reading the kernel's reports.

use super::error::EnforcerError;
use aya::maps::{MapData, RingBuf};
use egress_common::Event;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long a report may stay unread for which nobody was woken.
const LOOK: Duration = Duration::from_millis(100);

/// The stream of events. There is one per enforcer.
pub struct Reports {
    ring: AsyncFd<RingBuf<MapData>>,
}

/// What the ring held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// An event.
    Event(Event),
    /// Bytes of another length than an event: from programs of another version.
    Malformed(usize),
}

impl Reports {
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, EnforcerError> {
        #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
        // SAFETY: the ring owns its descriptor and gives the same one until it
        // is dropped, and the `AsyncFd` that owns the ring deregisters first.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(
            |error| EnforcerError::Object(format!("the event ring cannot be watched: {error}")),
        )?;
        Ok(Self { ring })
    }

    /// Waits until something is there, then takes up to `most` reports at once.
    ///
    /// The programs wake the agent for denials; what was allowed waits in the
    /// ring until then, at most for `LOOK`.
    pub async fn next_batch(
        &mut self,
        most: usize,
        batch: &mut Vec<Report>,
    ) -> std::io::Result<()> {
        loop {
            let ring = self.ring.get_mut();
            while batch.len() < most {
                let Some(item) = ring.next() else { break };
                batch.push(parse(&item));
            }
            if !batch.is_empty() {
                return Ok(());
            }
            // Cleared before the ring is looked into again, so that a wake-up
            // in between is not lost.
            if let Ok(guard) = timeout(LOOK, self.ring.readable_mut()).await {
                guard?.clear_ready();
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Report {
    Event::from_bytes(bytes).map_or(Report::Malformed(bytes.len()), Report::Event)
}
