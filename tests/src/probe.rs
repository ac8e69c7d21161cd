//! What `egress-probe` reports from inside a sandbox.
//!
//! The probe gets steps as arguments (`"tcp-exchange 203.0.113.66:443 hello"`),
//! does them in order and prints one JSON object for each. Its verbs are
//! documented in `src/bin/egress-probe/main.rs`.

use crate::process::Running;
use serde_json::Value;
use std::net::IpAddr;

/// The name of the probe's binary.
pub const PROGRAM: &str = "egress-probe";

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The step, as it was asked for.
    pub step: String,
    /// It did what it should.
    pub ok: bool,
    /// The error number of the system call that failed, if one failed.
    pub errno: Option<i32>,
    /// What it got, or how it failed, as text.
    pub detail: String,
}

impl Attempt {
    /// Reads a line that the probe printed.
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            step: value["step"].as_str()?.to_owned(),
            ok: value["ok"].as_bool()?,
            errno: value["errno"]
                .as_i64()
                .and_then(|number| i32::try_from(number).ok()),
            detail: value["detail"].as_str()?.to_owned(),
        })
    }

    /// Asserts that it did what it should, and returns what it got.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert!(self.ok, "should succeed: {self:?}");
        &self.detail
    }

    /// Asserts that it failed, whatever with.
    #[track_caller]
    pub fn failed(&self) -> &str {
        assert!(!self.ok, "should fail: {self:?}");
        &self.detail
    }

    /// Asserts that the system call was refused with this error at once.
    #[track_caller]
    pub fn refused_with(&self, errno: i32) {
        let refused = !self.ok && self.errno == Some(errno);
        assert!(refused, "should be refused with errno {errno}: {self:?}");
    }

    /// Asserts that the system call was refused with EPERM, which is how the
    /// enforcer says no.
    #[track_caller]
    pub fn refused(&self) {
        self.refused_with(libc::EPERM);
    }

    /// The addresses that a resolving step got.
    #[track_caller]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.succeeded().split_whitespace();
        addresses.filter_map(|text| text.parse().ok()).collect()
    }
}

/// Reads a probe's reports up to the one of its next `pause`.
///
/// # Panics
///
/// If it ends before.
#[track_caller]
pub fn until_pause(run: &mut Running) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while let Some(line) = run.line() {
        let Some(attempt) = Attempt::parse(&line) else {
            continue;
        };
        if attempt.step == "pause" {
            return attempts;
        }
        attempts.push(attempt);
    }
    panic!("the probe ended before its pause: {attempts:#?}");
}

/// Lets a waiting probe go on to its next `pause`.
#[track_caller]
pub fn go_on(run: &mut Running) -> Vec<Attempt> {
    run.say("go on").expect("the probe waits");
    until_pause(run)
}

/// Lets a waiting probe go on to its end.
pub fn rest(mut run: Running) -> Vec<Attempt> {
    run.say("go on").expect("the probe waits");
    let (_, lines, _) = run.finish();
    lines
        .iter()
        .filter_map(|line| Attempt::parse(line))
        .collect()
}
