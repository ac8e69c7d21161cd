//! What the kernel could not report: its counters, read once a second, become
//! records of loss with the exact difference, across the end of a sandbox and
//! the restart of the agent.

use super::agent::Agent;
use crate::events::{Moment, Pipeline, Source};
use egress_common::{CgroupId, Counter, SandboxId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The last readings of sandboxes that ended: their counters go with them.
pub(super) type LastReadings = Vec<(SandboxId, u64)>;

/// The key of a counter in the runtime directory.
fn key(source: Source) -> Option<String> {
    match source {
        Source::Sandbox(id) => Some(format!("sandbox-{}", id.0)),
        Source::RingFull => Some("ring-full".into()),
        Source::NoSandbox => Some("no-sandbox".into()),
        // It is the pipeline's own and begins with it.
        Source::Malformed => None,
    }
}

impl Agent {
    /// Reads every counter, records by how much it grew, and notes that.
    pub(super) fn read_losses(&self, pipeline: &mut Pipeline<Arc<Self>>) {
        let now = Moment::now();
        let recorder = self.recorder();
        let mut recorded = BTreeMap::new();
        for (source, total) in self.readings() {
            pipeline
                .lost(source, total, now)
                .for_each(|record| recorder.record(record));
            recorded.extend(key(source).map(|key| (key, total)));
        }
        for (id, total) in self.take_last_readings() {
            let source = Source::Sandbox(id);
            pipeline
                .lost(source, total, now)
                .for_each(|record| recorder.record(record));
            pipeline.forget(id);
        }
        let runtime = self.runtime();
        if recorded != runtime.losses()
            && let Err(error) = runtime.remember_losses(&recorded)
        {
            tracing::warn!(%error, "after a restart these losses would be recorded again");
        }
    }

    /// Tells a new pipeline what an earlier agent has recorded.
    pub(super) fn resume_losses(&self, pipeline: &mut Pipeline<Arc<Self>>) {
        let recorded = self.runtime().losses();
        for (source, _) in self.readings() {
            if let Some(total) = key(source).and_then(|key| recorded.get(&key)) {
                pipeline.resume(source, *total);
            }
        }
    }

    fn readings(&self) -> Vec<(Source, u64)> {
        let owners: BTreeMap<CgroupId, SandboxId> = self
            .book()
            .members()
            .map(|member| (member.cgroup, member.id))
            .collect();
        let meters = self.enforcer().meters().unwrap_or_default().into_iter();
        let mut readings: Vec<_> = meters
            .filter_map(|(cgroup, meter)| {
                let source = match owners.get(&cgroup) {
                    Some(id) => Source::Sandbox(*id),
                    None if cgroup == CgroupId(0) => Source::NoSandbox,
                    None => return None,
                };
                Some((source, meter.lost))
            })
            .collect();
        readings.extend(
            self.enforcer()
                .counter(Counter::RingFull)
                .ok()
                .map(|total| (Source::RingFull, total)),
        );
        readings
    }
}
