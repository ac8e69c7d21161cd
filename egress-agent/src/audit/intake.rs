//! What is to be written next: taken from the queue, and sealed while what comes
//! before it is on its way to the disk.

use crate::audit::hide::Hider;
use crate::audit::recorder::{Lost, Shared};
use crate::audit::seal::{Head, Links, seal};
use crate::audit::upkeep::TICK;
use crate::model::{Record, RecordKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval};

/// The queue's end.
pub(super) struct Intake {
    receiver: mpsc::Receiver<Record>,
    shared: Arc<Shared>,
    tick: Interval,
    /// Records per transaction.
    size: usize,
    /// How long a batch waits for more records.
    linger: Duration,
    hider: Option<Hider>,
}

/// What is written in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    /// In their order.
    pub records: Vec<Record>,
    /// How many of them the queue took.
    pub settled: usize,
    /// What found no place in the queue; the last of the records tells of it.
    pub lost: Option<Lost>,
    /// Whether there can be more.
    pub more: bool,
    sealing: Option<Sealing>,
}

/// Records with their places.
struct Sealing {
    before: Head,
    links: Links,
    after: Head,
}

/// Why records cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the task that prepares records ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Intake {
    pub fn new(
        receiver: mpsc::Receiver<Record>,
        shared: Arc<Shared>,
        size: usize,
        linger: Duration,
        hider: Option<Hider>,
    ) -> Self {
        Self {
            receiver,
            shared,
            tick: tokio::time::interval(TICK),
            size: size.max(1),
            linger,
            hider,
        }
    }

    /// Whether nobody records anything at the moment.
    pub fn is_idle(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Collects the next batch, and seals it as what comes after `before`.
    pub async fn next(&mut self, before: &Head) -> Batch {
        let mut batch = self.collect().await;
        if let Err(error) = self.seal(&mut batch, before).await {
            // Whoever writes the batch tries again, and tells.
            tracing::debug!(%error, "records are not sealed yet");
        }
        batch
    }

    /// Waits for records, a loss, the next tick or the end.
    async fn collect(&mut self) -> Batch {
        let mut batch = Batch::default();
        batch.more = self.receive(&mut batch.records).await;
        batch.settled = batch.records.len();
        batch.lost = self.shared.take_lost();
        batch.records.extend(batch.lost.as_ref().map(Lost::record));
        batch
    }

    /// Returns whether there can be more.
    async fn receive(&mut self, records: &mut Vec<Record>) -> bool {
        if self.shared.is_closing() {
            self.receiver.close();
        }
        tokio::select! {
            biased;
            received = self.receiver.recv_many(records, self.size) => {
                if received == 0 {
                    return false;
                }
            }
            () = self.shared.wake.notified() => return true,
            _ = self.tick.tick() => return true,
        }
        let until = Instant::now() + self.linger;
        while records.len() < self.size {
            let room = self.size - records.len();
            tokio::select! {
                biased;
                received = self.receiver.recv_many(records, room) => {
                    if received == 0 {
                        break;
                    }
                }
                // Somebody waits for what is there now, which may be more than a moment ago.
                () = self.shared.wake.notified() => {
                    while records.len() < self.size
                        && let Ok(record) = self.receiver.try_recv()
                    {
                        records.push(record);
                    }
                    break;
                }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        true
    }

    /// Gives the records of a batch their places after `before`, unless they have
    /// them already.
    pub async fn seal(&self, batch: &mut Batch, before: &Head) -> Result<(), SealError> {
        let is_sealed = |sealing: &Sealing| sealing.before == *before;
        if batch.records.is_empty() || batch.sealing.as_ref().is_some_and(is_sealed) {
            return Ok(());
        }
        batch.sealing = None;
        let (head, hider) = (before.clone(), self.hider.clone());
        let records = Arc::new(std::mem::take(&mut batch.records));
        let shared = Arc::clone(&records);
        // Hashing thousands of records would hold up whoever shares the thread.
        let sealing =
            tokio::task::spawn_blocking(move || seal(&head, &shared, hider.as_ref())).await;
        // However that ended, the records are still to be written.
        batch.records = Arc::try_unwrap(records).unwrap_or_else(|shared| shared.to_vec());
        let (links, mut after) = sealing??;
        after.settled += decisions(&batch.records);
        batch.sealing = Some(Sealing {
            before: before.clone(),
            links,
            after,
        });
        Ok(())
    }
}

impl Batch {
    /// Puts records before all others, which lose their places.
    pub fn put_first(&mut self, records: impl IntoIterator<Item = Record>) {
        let mut records = records.into_iter().peekable();
        if records.peek().is_some() {
            self.sealing = None;
            self.records.splice(0..0, records);
        }
    }

    /// The sealed records, and where the chain ends behind them; `None` before
    /// they are sealed.
    pub fn sealed(&self) -> Option<(&Links, &Head)> {
        let sealing = self.sealing.as_ref()?;
        Some((&sealing.links, &sealing.after))
    }
}

/// How many decisions records stand for; what the writer says of itself is none.
fn decisions(records: &[Record]) -> u64 {
    records
        .iter()
        .filter(|record| record.kind != RecordKind::Evidence)
        .map(|record| record.count.max(1))
        .sum()
}
