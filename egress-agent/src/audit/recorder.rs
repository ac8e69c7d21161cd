//! The handle through which records reach the store, and its bookkeeping.

use crate::audit::tally::Tally;
use crate::audit::{AuditError, Health};
use crate::model::{Record, RecordKind};
use jiff::Timestamp;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Notify, watch};

/// Hands records to the store. It never waits and never fails: whoever decides
/// about packets and names must not depend on a disk.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Record>,
    shared: Arc<Shared>,
}

/// What recorders and the writer know together.
#[derive(Debug)]
pub(super) struct Shared {
    /// Records that the queue took.
    accepted: AtomicU64,
    /// Records that found no place, since the beginning.
    lost: AtomicU64,
    /// Those of them that no record tells of yet.
    untold: Mutex<Option<Lost>>,
    closing: AtomicBool,
    /// Decisions, where a killed process cannot take the count along.
    pub tally: Tally,
    /// The last place that is kept elsewhere, too: retention takes nothing beyond.
    pub shipped: AtomicI64,
    /// Why nothing is shipped at the moment.
    pub shipping: watch::Sender<Option<String>>,
    /// Wakes the writer for anything but a new record.
    pub wake: Notify,
    pub progress: watch::Sender<Progress>,
}

/// How far the writer is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Progress {
    /// Accepted records that are in the file.
    pub settled: u64,
    /// Lost records that a record in the file tells of.
    pub told: u64,
    /// Rows written, records of loss included.
    pub written: u64,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// Records that found no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lost {
    /// How many.
    pub records: u64,
    /// How many decisions they stood for.
    decisions: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Lost {
    /// The record that tells of them.
    pub fn record(&self) -> Record {
        let Self {
            records,
            decisions,
            first,
            last,
        } = self;
        Record {
            count: *decisions,
            detail: Some(format!(
                "{records} records, which stood for {decisions} decisions, found no place in the audit \
                 queue; they were from {first} to {last}"
            )),
            ..Record::new(*last, RecordKind::Loss)
        }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::default(),
            lost: AtomicU64::default(),
            untold: Mutex::default(),
            closing: AtomicBool::default(),
            tally: Tally::default(),
            // Nobody ships anything.
            shipped: AtomicI64::new(i64::MAX),
            shipping: watch::Sender::default(),
            wake: Notify::default(),
            progress: watch::Sender::default(),
        }
    }
}

impl Shared {
    fn lose(&self, record: &Record) {
        let mut untold = self.untold();
        match &mut *untold {
            Some(lost) => {
                lost.records += 1;
                lost.decisions = lost.decisions.saturating_add(record.count);
                lost.first = lost.first.min(record.time);
                lost.last = lost.last.max(record.time);
            }
            None => {
                tracing::warn!("the audit queue takes no more; records are being counted instead");
                *untold = Some(Lost {
                    records: 1,
                    decisions: record.count,
                    first: record.time,
                    last: record.time,
                });
            }
        }
        self.lost.fetch_add(1, Ordering::Release);
        drop(untold);
        self.wake.notify_one();
    }

    /// Takes over to tell of what was lost up to now.
    pub fn take_lost(&self) -> Option<Lost> {
        self.untold().take()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn untold(&self) -> MutexGuard<'_, Option<Lost>> {
        // The counts are right after every statement, so a panic elsewhere
        // cannot have left them half changed.
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    pub(super) fn new(sender: mpsc::Sender<Record>, shared: Arc<Shared>) -> Self {
        Self { sender, shared }
    }

    /// Counts decisions whose records come later, by [`Recorder::record_noted`]:
    /// what is being folded is not forgotten if the process is killed.
    pub fn note(&self, decisions: u64) {
        self.shared.tally.add(decisions);
    }

    /// Records, or counts what cannot be recorded.
    pub fn record(&self, record: Record) {
        self.note(record.count.max(1));
        self.record_noted(record);
    }

    /// Records decisions that were noted before.
    pub fn record_noted(&self, record: Record) {
        match self.sender.try_send(record) {
            Ok(()) => {
                self.shared.accepted.fetch_add(1, Ordering::Release);
            }
            Err(TrySendError::Full(record) | TrySendError::Closed(record)) => {
                self.shared.lose(&record);
            }
        }
    }

    /// Waits until everything that was recorded or lost before is in the file.
    pub async fn flush(&self, deadline: Duration) -> Result<(), AuditError> {
        let accepted = self.shared.accepted.load(Ordering::Acquire);
        let lost = self.shared.lost.load(Ordering::Acquire);
        let mut progress = self.shared.progress.subscribe();
        self.shared.wake.notify_one();
        let reached = progress.wait_for(|now| now.settled >= accepted && now.told >= lost);
        match tokio::time::timeout(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.unwritten(deadline)),
        }
    }

    /// The state of the store.
    pub fn health(&self) -> Health {
        let progress = self.shared.progress.borrow().clone();
        let accepted = self.shared.accepted.load(Ordering::Acquire);
        Health {
            queued: accepted.saturating_sub(progress.settled),
            written: progress.written,
            lost: self.shared.lost.load(Ordering::Acquire),
            error: progress.error,
            shipped: Some(self.shared.shipped.load(Ordering::Acquire))
                .filter(|shipped| *shipped != i64::MAX),
            shipping_error: self.shared.shipping.borrow().clone(),
        }
    }

    /// Records, kept or counted, that the file does not tell of.
    pub(super) fn waiting(&self) -> u64 {
        let Health { queued, lost, .. } = self.health();
        let told = self.shared.progress.borrow().told;
        queued + lost.saturating_sub(told)
    }

    pub(super) fn unwritten(&self, deadline: Duration) -> AuditError {
        AuditError::Unwritten {
            waiting: self.waiting(),
            deadline,
            last_error: self.health().error,
        }
    }

    pub(super) fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }
}
