//! Decisions at an even rate, from the report of the kernel to the disk.

use crate::goal::{LONG, exactly, memory, note, tell};
use crate::load::{SANDBOXES, Words, allowed, denied};
use egress_agent::audit::{Options, Recorder, Store};
use egress_agent::events::{Bounds, Moment, Pipeline};
use std::path::Path;
use std::time::{Duration, Instant};

/// Decisions per second that have to be sustained.
const RATE: u32 = 50_000;

/// The most memory of the process, in MiB.
const MOST_MEMORY: u64 = 200;

/// Nine in ten are allowed; each denial goes to another place, so that none is folded.
fn feed(recorder: &Recorder, total: u32) {
    let mut pipeline = Pipeline::new(Words::new(), Bounds::default());
    let begun = Instant::now();
    let mut sent = 0;
    while sent < total {
        let due = (begun.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        let due = due.min(total);
        let now = Moment::now();
        recorder.note(u64::from(due.saturating_sub(sent)));
        while sent < due {
            let event = if sent % 10 == 0 {
                denied(sent / 10 % SANDBOXES + 1, sent, now)
            } else {
                allowed(sent, now)
            };
            for record in pipeline.take(&event, now) {
                recorder.record_noted(record);
            }
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for record in pipeline.finish(Moment::now()) {
        recorder.record_noted(record);
    }
}

pub async fn measure(path: &Path, seconds: u32) -> bool {
    let total = RATE * seconds;
    let store = Store::open_with(path, Options::default())
        .await
        .expect("a store");
    let recorder = store.recorder();
    let begun = Instant::now();
    let feeder = std::thread::spawn(move || feed(&recorder, total));
    let mut deepest = 0;
    while !feeder.is_finished() {
        deepest = deepest.max(store.health().queued);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let fed = begun.elapsed();
    store.recorder().flush(LONG).await.expect("written");
    let took = begun.elapsed();
    let health = store.health();
    store.close(LONG).await.expect("closed");
    let peak = memory("VmHWM:") / 1024;
    let offered = f64::from(total) / fed.as_secs_f64();
    let mut met = tell(
        &format!("decisions offered per second for {seconds} s"),
        format!("{offered:.0}"),
        ">= 49500",
        offered >= 49_500.0,
    );
    met &= exactly("decisions lost", health.lost, 0);
    met &= exactly("records in the file", health.written, u64::from(total));
    // A queue that only grows would be a rate that is not sustained.
    let behind = took - fed;
    met &= tell(
        "seconds until the last was on the disk",
        format!("{:.2}", behind.as_secs_f64()),
        "< 1",
        behind < Duration::from_secs(1),
    );
    note("records that waited at most", deepest);
    met &= tell(
        "peak memory of the process, MiB",
        peak.to_string(),
        &format!("< {MOST_MEMORY}"),
        peak < MOST_MEMORY,
    );
    let size = path.metadata().map_or(0, |metadata| metadata.len());
    note(
        "bytes of the file per record",
        size / u64::from(total.max(1)),
    );
    met
}
