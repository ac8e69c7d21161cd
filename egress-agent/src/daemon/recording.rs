//! Where every record goes: counted, and kept.

use crate::audit::{AuditError, Recorder};
use crate::model::Record;
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

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until what was recorded before is in the store.
    pub async fn flush(&self, deadline: Duration) -> Result<(), AuditError> {
        self.store.flush(deadline).await
    }
}
