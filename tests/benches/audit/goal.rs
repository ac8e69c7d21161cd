//! Values beside their goals.

use std::time::Duration;

/// How long anything may take before the measurement is given up.
pub const LONG: Duration = Duration::from_secs(240);

/// One value, its goal, and whether it is met.
pub fn tell(what: &str, value: String, goal: &str, met: bool) -> bool {
    let verdict = if met { "met" } else { "MISSED" };
    println!("{what:54} {value:>12}   goal {goal:14} {verdict}");
    met
}

/// A value without a goal.
pub fn note(what: &str, value: impl std::fmt::Display) {
    println!("{what:54} {value:>12}");
}

/// A count that has to be exactly this.
pub fn exactly(what: &str, count: u64, expected: u64) -> bool {
    tell(
        what,
        count.to_string(),
        &expected.to_string(),
        count == expected,
    )
}

/// So much per second, at least `goal`.
pub fn rate(what: &str, count: u64, took: Duration, goal: u64) -> bool {
    let rate = count as f64 / took.as_secs_f64();
    tell(
        what,
        format!("{rate:.0}"),
        &format!(">= {goal}"),
        rate >= goal as f64,
    )
}

/// A field of /proc/self/status in KiB.
pub fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(u64::MAX)
}
