//! Where every record goes: counted, and kept.

use crate::audit::{AuditError, Recorder};
use crate::model::{Record, RecordKind};
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// Hands records to everybody. It never waits and never fails.
#[derive(Clone, Debug)]
pub struct Recording {
    store: Recorder,
    metrics: Arc<Metrics>,
}

impl Recording {
    pub(super) fn new(store: Recorder, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// Records.
    pub fn record(&self, record: Record) {
        self.metrics.count(&record);
        self.store.record(record);
    }

    /// Reports of the kernel came in; the records made of them follow.
    pub(super) fn note(&self, events: u64) {
        self.store.note(events);
    }

    /// Keeps what the pipeline made of reports, which were noted as they came;
    /// what it says of itself was not.
    pub(super) fn record_from_reports(&self, record: Record) {
        self.metrics.count(&record);
        if record.kind == RecordKind::Agent {
            self.store.record(record);
        } else {
            self.store.record_noted(record);
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until what was recorded before is in the store.
    pub async fn flush(&self, deadline: Duration) -> Result<(), AuditError> {
        self.store.flush(deadline).await
    }
}
