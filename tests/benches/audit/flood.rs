//! Denials of one sandbox, beside what others do.
//!
//! Above its share of reports per second the kernel programs only count what a
//! sandbox does. This measures what the agent could take if they did not: every
//! denial of the flood comes as a report of its own.

use crate::goal::{LONG, exactly, rate, tell};
use crate::load::{Words, allowed, denied};
use egress_agent::audit::{GroupField, Options, Query, Reader, Store};
use egress_agent::events::{Bounds, Moment, Pipeline};
use egress_common::Outcome;
use std::path::Path;
use std::time::{Duration, Instant};

/// Denials of the flood, and places that it goes to in turn.
const DENIALS: u64 = 5_000_000;
const PLACES: u32 = 200;
/// One decision of the others to so many of the flood.
const EVERY: u64 = 100;
/// The sandbox that floods; the others are all the same to it.
const FLOODING: u32 = 3;

/// The time that the decisions of the others take, alone.
fn alone(count: u32) -> Duration {
    let mut pipeline = Pipeline::new(Words::new(), Bounds::default());
    let now = Moment::now();
    let begun = Instant::now();
    let told: usize = (0..count)
        .map(|n| pipeline.take(&allowed(n, now), now).count())
        .sum();
    assert_eq!(told, count as usize, "each is a record");
    begun.elapsed()
}

pub async fn measure(path: &Path) -> bool {
    let store = Store::open_with(path, Options::default())
        .await
        .expect("a store");
    let recorder = store.recorder();
    let others = (DENIALS / EVERY) as u32;
    let alone = alone(others);
    let flood = std::thread::spawn(move || {
        let mut pipeline = Pipeline::new(Words::new(), Bounds::default());
        let mut beside = Duration::ZERO;
        let begun = Instant::now();
        for n in 0..DENIALS {
            // As the agent does, which looks at the clock once a batch.
            let now = Moment::now();
            let event = denied(FLOODING, n as u32 % PLACES, now);
            recorder.note(1);
            for record in pipeline.take(&event, now) {
                recorder.record_noted(record);
            }
            if n % EVERY == 0 {
                recorder.note(1);
                let event = allowed((n / EVERY) as u32, now);
                let begun = Instant::now();
                let records = pipeline.take(&event, now);
                records.for_each(|record| recorder.record_noted(record));
                beside += begun.elapsed();
            }
        }
        let took = begun.elapsed();
        for record in pipeline.finish(Moment::now()) {
            recorder.record_noted(record);
        }
        (took, beside)
    });
    let (took, beside) = flood.join().expect("no panic");
    store.recorder().flush(LONG).await.expect("written");
    let lost = store.health().lost;
    store.close(LONG).await.expect("closed");

    let reader = Reader::open(path).await.expect("readable");
    let by = [GroupField::Sandbox, GroupField::Verdict];
    let groups = reader
        .groups(&Query::default(), &by)
        .await
        .expect("answered");
    reader.close().await;
    let of = |verdict: Outcome| {
        let mut of_verdict = groups
            .iter()
            .filter(|group| group.values[1].as_deref() == Some(verdict.name()))
            .map(|group| (group.count, group.records))
            .collect::<Vec<_>>();
        of_verdict.sort_unstable();
        of_verdict
    };
    let denials = of(Outcome::Denied);
    let allowances = of(Outcome::Allowed);
    let mut met = rate(
        "denials of one sandbox taken per second",
        DENIALS,
        took,
        500_000,
    );
    met &= exactly(
        "denials told of them",
        denials.iter().map(|it| it.0).sum(),
        DENIALS,
    );
    let records: u64 = denials.iter().map(|it| it.1).sum();
    met &= tell(
        "records that tell of them",
        records.to_string(),
        "< 5000",
        records < 5_000,
    );
    met &= exactly(
        "decisions of others beside, each a record",
        allowances.iter().map(|it| it.1).sum(),
        u64::from(others),
    );
    met &= exactly("records lost", lost, 0);
    let each = |time: Duration| time.as_nanos() as f64 / f64::from(others);
    met & tell(
        &format!(
            "a decision of others beside it, ns (alone {:.0})",
            each(alone)
        ),
        format!("{:.0}", each(beside)),
        "< 20000",
        each(beside) < 20_000.0,
    )
}
