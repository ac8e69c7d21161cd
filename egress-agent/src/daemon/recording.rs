//! Where every record goes: counted, told to who listens now, and kept.

use crate::audit::{AuditError, Recorder};
use crate::model::{Record, RecordKind};
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// Records that a listener may lag behind before it loses some. Whoever lags is
/// told how many it lost; nobody else waits for it.
const LAG: usize = 16_384;

/// Hands records to everybody. It never waits and never fails.
#[derive(Clone, Debug)]
pub struct Recording {
    store: Recorder,
    metrics: Arc<Metrics>,
    live: broadcast::Sender<Arc<Record>>,
}

impl Recording {
    pub(super) fn new(store: Recorder, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            live: broadcast::channel(LAG).0,
        }
    }

    /// Records.
    pub fn record(&self, record: Record) {
        self.tell(&record);
        self.store.record(record);
    }

    /// Decisions were made whose records follow.
    pub(super) fn note(&self, decisions: u64) {
        self.store.note(decisions);
    }

    /// Records a decision that was noted.
    pub(super) fn record_noted(&self, record: Record) {
        self.tell(&record);
        self.store.record_noted(record);
    }

    /// Keeps what the pipeline made of reports, which were noted as they came;
    /// what it says of itself was not.
    pub(super) fn record_from_reports(&self, record: Record) {
        if record.kind == RecordKind::Agent {
            return self.record(record);
        }
        self.record_noted(record);
    }

    fn tell(&self, record: &Record) {
        self.metrics.count(record);
        if self.live.receiver_count() > 0 {
            // That the last listener has just left is no loss.
            let _ = self.live.send(Arc::new(record.clone()));
        }
    }

    /// Every record from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<Record>> {
        self.live.subscribe()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until what was recorded before is in the store.
    pub async fn flush(&self, deadline: Duration) -> Result<(), AuditError> {
        self.store.flush(deadline).await
    }
}
