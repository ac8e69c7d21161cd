//! The way from report to record, in one place.

use crate::events::clock::Clock;
use crate::events::enrich::enrich;
use crate::events::fold::Folds;
use crate::events::loss::Losses;
use crate::events::{Bounds, Context, Malformed, Moment, Report, Source};
use crate::model::{Record, RecordKind};
use egress_common::{Event, SandboxId};
use std::vec::Drain;

/// Makes records out of reports and counters.
///
/// Every method hands out the records that are due; what is not consumed is
/// gone, so callers pass all of them on. Call [`Pipeline::tick`] at
/// [`Pipeline::next_tick`] or every second, whichever is simpler.
#[derive(Debug)]
pub struct Pipeline<C> {
    context: C,
    clock: Clock,
    folds: Folds,
    losses: Losses,
    malformed: u64,
    out: Vec<Record>,
}

impl<C: Context> Pipeline<C> {
    /// A pipeline that has seen nothing.
    pub fn new(context: C, bounds: Bounds) -> Self {
        Self {
            context,
            clock: Clock::default(),
            folds: Folds::new(bounds),
            losses: Losses::default(),
            malformed: 0,
            out: Vec::new(),
        }
    }

    /// Takes one entry of the ring buffer.
    #[must_use = "records that are not consumed are lost"]
    pub fn take_bytes(&mut self, bytes: &[u8], now: Moment) -> Drain<'_, Record> {
        self.accept(Report::read(bytes), now)
    }

    /// Takes one event.
    #[must_use = "records that are not consumed are lost"]
    pub fn take(&mut self, event: &Event, now: Moment) -> Drain<'_, Record> {
        self.accept(Report::new(event), now)
    }

    fn accept(&mut self, report: Result<Report, Malformed>, now: Moment) -> Drain<'_, Record> {
        self.advance(now);
        match report {
            Ok(report) => self.judge(&report, now),
            Err(error) => {
                // The count becomes a record at the next tick: a stream of
                // nonsense must not become a stream of records.
                self.malformed += 1;
                tracing::debug!(%error, "malformed report");
            }
        }
        self.out.drain(..)
    }

    fn judge(&mut self, report: &Report, now: Moment) {
        let time = self.clock.wall(report.event.time, now);
        if self.folds.absorb(report, time) {
            return;
        }
        let record = enrich(report, time, &self.context);
        self.folds.begin(report, &record, now.boot, &mut self.out);
        self.out.push(record);
    }

    /// Records what is due at `now`: closed windows, malformed reports, a
    /// stepped clock.
    #[must_use = "records that are not consumed are lost"]
    pub fn tick(&mut self, now: Moment) -> Drain<'_, Record> {
        self.advance(now);
        self.tell_malformed(now);
        self.out.drain(..)
    }

    /// Takes a reading of a kernel counter, and records by how much it grew.
    #[must_use = "records that are not consumed are lost"]
    pub fn lost(&mut self, source: Source, total: u64, now: Moment) -> Drain<'_, Record> {
        let record = self.losses.read(source, total, now, &self.context);
        self.out.extend(record);
        self.out.drain(..)
    }

    /// Says that `total` of a counter was recorded by an earlier agent.
    pub fn resume(&mut self, source: Source, total: u64) {
        self.losses.resume(source, total);
    }

    /// Forgets the counters of a sandbox that is gone; read them one last time before.
    pub fn forget(&mut self, sandbox: SandboxId) {
        self.losses.forget(sandbox);
    }

    /// When [`Pipeline::tick`] next has something to do, in boot-time nanoseconds.
    pub fn next_tick(&self) -> Option<u64> {
        self.folds.next_deadline()
    }

    /// Records everything that is still counted. The pipeline can go on afterwards.
    #[must_use = "records that are not consumed are lost"]
    pub fn finish(&mut self, now: Moment) -> Drain<'_, Record> {
        self.folds.close_all(&mut self.out);
        self.tell_malformed(now);
        self.out.drain(..)
    }

    /// Brings clock and windows to `now`, so that a late tick cannot stretch a window.
    fn advance(&mut self, now: Moment) {
        if let Some(jump) = self.clock.observe(now) {
            self.out.push(Record {
                detail: Some(format!(
                    "the wall clock was set by {:+.3} s; earlier records were told on the old clock",
                    jump.as_secs_f64()
                )),
                ..Record::new(now.wall, RecordKind::Agent)
            });
        }
        self.folds.close_due(now.boot, &mut self.out);
    }

    fn tell_malformed(&mut self, now: Moment) {
        let record = self
            .losses
            .read(Source::Malformed, self.malformed, now, &self.context);
        self.out.extend(record);
    }

    #[cfg(test)]
    pub(super) fn fold_sizes(&self) -> [usize; 5] {
        self.folds.sizes()
    }
}

#[cfg(test)]
mod tests;
