//! Reading the kernel's reports.

use super::error::EnforcerError;
use aya::maps::{MapData, RingBuf};
use egress_common::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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
    pub async fn next_batch(
        &mut self,
        most: usize,
        batch: &mut Vec<Report>,
    ) -> std::io::Result<()> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            let ring = guard.get_inner_mut();
            while batch.len() < most {
                let Some(item) = ring.next() else { break };
                batch.push(parse(&item));
            }
            if batch.len() < most {
                guard.clear_ready();
            }
            if !batch.is_empty() {
                return Ok(());
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Report {
    Event::from_bytes(bytes).map_or(Report::Malformed(bytes.len()), Report::Event)
}
