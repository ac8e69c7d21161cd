//! What each hook does. Every function here returns why it refuses, and leaves
//! what it found out in [`crate::emit::Seen`]; `main` turns that into codes.

pub mod call;
pub mod connections;
pub mod interface;
mod link;
pub mod packet;
pub mod redirect;
pub mod socket;
pub mod traffic;

use crate::emit::Seen;
use crate::lookups;
use egress_common::{CgroupId, Destination, Reason, Sandbox, Verdict};

/// How something passed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// Nothing to tell: decided before, or another hook tells.
    Quietly,
    /// The first of its flow: worth a record.
    Noted,
}

/// A hook's result.
pub type Judged = Result<Passed, Reason>;

/// Refuses everything while the emergency block is in force. Every hook that
/// could let something leave or enter asks this first, before what a socket
/// remembers, before DNS and loopback, and whatever the mode of the policy.
#[inline(always)]
fn stop_in_emergency(
    cgroup: impl FnOnce() -> Option<CgroupId>,
    seen: &mut Seen,
) -> Result<(), Reason> {
    let admitted = lookups::emergency().admit();
    if admitted.is_err() {
        // So that the record can name the sandbox; what is in none is stopped too.
        let _ = identify(cgroup(), seen);
    }
    admitted
}

/// Finds the sandbox of a cgroup and notes it; refuses one that is blocked.
#[inline(always)]
fn identify(cgroup: Option<CgroupId>, seen: &mut Seen) -> Result<(CgroupId, Sandbox), Reason> {
    let cgroup = cgroup.ok_or(Reason::UnknownSandbox)?;
    seen.cgroup = cgroup;
    let sandbox = lookups::sandbox(cgroup).ok_or(Reason::UnknownSandbox)?;
    seen.sandbox = sandbox.id;
    // Before its mode: no mode opens what is blocked.
    sandbox.admit()?;
    seen.shadow = sandbox.is_shadow();
    Ok((cgroup, sandbox))
}

/// Notes the other end.
#[inline(always)]
fn note(to: &Destination, seen: &mut Seen) {
    seen.ip = to.ip;
    seen.port = to.port;
    seen.protocol = to.protocol.number();
}

/// Notes what decided, and unwraps the verdict. A redirect that arrives here
/// could not be carried out.
#[inline(always)]
fn settle(verdict: Verdict, seen: &mut Seen) -> Result<egress_common::Because, Reason> {
    match verdict {
        Verdict::Allow(because) => {
            seen.rule = because.rule();
            seen.name = because.name();
            Ok(because)
        }
        Verdict::Deny(reason) => Err(reason),
        Verdict::Redirect => Err(Reason::OtherResolver),
    }
}
