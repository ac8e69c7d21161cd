//! The clocks that grants expire by, and that connections are silent by.

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME` in nanoseconds: what `bpf_ktime_get_boot_ns` gives. It goes
/// on while the machine sleeps, so that sleeping does not prolong a grant.
pub fn boot_now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Time since boot is never negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: what `bpf_ktime_get_coarse_ns` gives.
pub fn coarse_now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
