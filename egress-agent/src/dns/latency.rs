//! How long answers take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds; what takes longer is counted behind them. From
/// a cached answer to the longest that an upstream is waited for.
const BOUNDS: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
    5_000_000,
];

/// A running distribution.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Latency {
    /// Counts one answer.
    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// The sum of all, and the buckets: each upper bound, the last infinite,
    /// with how many were at most so long and longer than the bound before. Seconds.
    pub fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bounds = BOUNDS
            .iter()
            .map(|bound| seconds(*bound))
            .chain([f64::INFINITY]);
        let counts = self
            .buckets
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        (
            seconds(self.sum.load(Ordering::Relaxed)),
            bounds.zip(counts).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_one_bucket_and_bounds_are_included() {
        let latency = Latency::default();
        for micros in [0, 50, 51, 5_000_000, 5_000_001, u64::MAX / 4] {
            latency.observe(Duration::from_micros(micros));
        }
        let (sum, buckets) = latency.read();
        let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(buckets.last().map(|(bound, _)| *bound), Some(f64::INFINITY));
        assert!(sum > 10.0);
    }
}
