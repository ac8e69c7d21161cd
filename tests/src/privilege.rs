//! Honest skips: a test that cannot run says so, and why.

use std::io::Write;

/// The variable by which `cargo xtask test` forbids skipping: where everything
/// is there, a skip is a failure.
pub const MUST_RUN: &str = "EGRESS_TESTS_MUST_RUN";

/// What the summary of `cargo xtask test` looks for.
pub const SKIP_MARK: &str = "egress-tests: skipped";

/// Says whether privileged tests can run; if not, prints that `test` is
/// skipped and why, past the capturing of the test framework.
///
/// # Panics
///
/// If [`MUST_RUN`] is set and something is missing.
pub fn granted(test: &str) -> bool {
    let Some(reason) = missing() else { return true };
    assert!(
        std::env::var_os(MUST_RUN).is_none(),
        "{test} has to run here, but {reason}"
    );
    tell_skip(test, reason);
    false
}

/// Prints that a test is skipped. The only way to skip, beside [`granted`], is
/// [`crate::feature::granted`].
pub(crate) fn tell_skip(test: &str, reason: &str) {
    // The capture only takes what the print macros write; where stderr is closed
    // nobody counts skips.
    let _ = writeln!(std::io::stderr(), "{SKIP_MARK} {test}: {reason}");
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root for network namespaces and cgroups");
    }
    if crate::cgroup::mount().is_none() {
        return Some("it needs a cgroup2 mount, and /proc/self/mountinfo has none");
    }
    None
}
