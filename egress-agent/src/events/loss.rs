//! Turns counters that only grow into records of what was lost.

use crate::events::{Context, Moment};
use crate::model::{Record, RecordKind};
use egress_common::SandboxId;
use std::collections::BTreeMap;

/// A counter of reports that were not made, or could not be read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// [`egress_common::Meter::lost`] of one sandbox.
    Sandbox(SandboxId),
    /// [`egress_common::Counter::RingFull`].
    RingFull,
    /// [`egress_common::Meter::lost`] of cgroup 0, which pays for what is in no
    /// known sandbox.
    NoSandbox,
    /// Reports that were no [`crate::events::Report`].
    Malformed,
}

impl Source {
    fn sentence(self) -> &'static str {
        match self {
            Self::Sandbox(_) => "reports beyond the sandbox's events per second",
            Self::RingFull => "reports that found the ring buffer full",
            Self::NoSandbox => {
                "reports from outside every known sandbox, beyond their events per second"
            }
            Self::Malformed => "reports that this agent cannot read",
        }
    }
}

/// What of each counter is recorded already.
#[derive(Debug, Default)]
pub(super) struct Losses {
    recorded: BTreeMap<Source, u64>,
}

impl Losses {
    /// Says that `total` is recorded already, by a predecessor.
    pub fn resume(&mut self, source: Source, total: u64) {
        self.recorded.insert(source, total);
    }

    /// Forgets a sandbox that is gone.
    pub fn forget(&mut self, sandbox: SandboxId) {
        self.recorded.remove(&Source::Sandbox(sandbox));
    }

    /// Takes a reading. A counter that went backwards was made anew, so all of
    /// it is new.
    pub fn read(
        &mut self,
        source: Source,
        total: u64,
        now: Moment,
        context: &impl Context,
    ) -> Option<Record> {
        let recorded = self.recorded.insert(source, total).unwrap_or(0);
        let lost = total.checked_sub(recorded).unwrap_or(total);
        if lost == 0 {
            return None;
        }
        let mut record = Record::new(now.wall, RecordKind::Loss);
        if let Source::Sandbox(id) = source {
            record.sandbox_id = Some(id);
            if let Some(facts) = context.sandbox(id) {
                record.sandbox = Some(facts.name);
                record.policy = Some(facts.policy);
                record.attribution = facts.attribution;
            }
        }
        record.count = lost;
        record.detail = Some(format!("{}; {total} in all", source.sentence()));
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::enrich::tests::World;
    use jiff::Timestamp;

    const NOW: Moment = Moment {
        boot: 1,
        wall: Timestamp::UNIX_EPOCH,
    };

    fn counts(losses: &mut Losses, source: Source, readings: &[u64]) -> Vec<u64> {
        readings
            .iter()
            .filter_map(|total| losses.read(source, *total, NOW, &World))
            .map(|record| record.count)
            .collect()
    }

    #[test]
    fn each_record_holds_exactly_what_came_since_the_last() {
        let mut losses = Losses::default();
        let counts = counts(&mut losses, Source::RingFull, &[0, 5, 5, 12]);
        assert_eq!(counts, [5, 7]);
    }

    #[test]
    fn a_counter_that_was_made_anew_is_new_as_a_whole() {
        let mut losses = Losses::default();
        assert_eq!(counts(&mut losses, Source::RingFull, &[9, 4]), [9, 4]);
    }

    #[test]
    fn what_a_predecessor_recorded_is_not_recorded_again() {
        let mut losses = Losses::default();
        let source = Source::Sandbox(SandboxId(3));
        losses.resume(source, 100);
        assert_eq!(counts(&mut losses, source, &[100, 103]), [3]);
    }

    #[test]
    fn the_record_names_whose_reports_are_missing() {
        let mut losses = Losses::default();
        let source = Source::Sandbox(SandboxId(3));
        let record = losses.read(source, 4, NOW, &World).expect("a record");
        assert_eq!(record.kind, RecordKind::Loss);
        assert_eq!(record.sandbox.as_deref(), Some("build"));
        assert_eq!(
            record.detail.as_deref(),
            Some("reports beyond the sandbox's events per second; 4 in all")
        );
    }

    #[test]
    fn a_sandbox_that_is_gone_leaves_nothing_behind() {
        let mut losses = Losses::default();
        let source = Source::Sandbox(SandboxId(3));
        counts(&mut losses, source, &[4]);
        losses.forget(SandboxId(3));
        assert!(losses.recorded.is_empty());
    }
}
