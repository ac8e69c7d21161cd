//! How many connections a sandbox has open: counted at `connect`, until the last
//! `close`. A socket counts once, however often it connects, and for the sandbox
//! that connected it, whoever closes it.

use crate::context::fetch_add;
use crate::{lookups, maps};
use aya_ebpf::bindings::bpf_sock;
use egress_common::{CgroupId, Reason, Sandbox};

/// Takes a place in the sandbox's count. The kernel holds the socket's lock, so
/// that no socket is counted twice; the count itself is atomic, so that two
/// sockets do not get the last place.
#[inline(always)]
pub fn open(sk: *mut bpf_sock, cgroup: CgroupId, sandbox: &Sandbox) -> Result<(), Reason> {
    if sandbox.max_connections == 0 {
        return Ok(());
    }
    let counted = lookups::remembered(&maps::COUNTED, sk, true).ok_or(Reason::HelperFailed)?;
    if *counted != CgroupId(0) {
        return Ok(());
    }
    let open = lookups::open_connections(cgroup).ok_or(Reason::HelperFailed)?;
    if fetch_add(open, 1) >= u64::from(sandbox.max_connections) {
        fetch_add(open, LESS);
        return Err(Reason::TooManyConnections);
    }
    *counted = cgroup;
    Ok(())
}

/// `sock_release`: gives the place back.
#[inline(always)]
pub fn close(sk: *mut bpf_sock) {
    if let Some(counted) = lookups::remembered(&maps::COUNTED, sk, false)
        && *counted != CgroupId(0)
        // Without a count the sandbox has ended.
        && let Some(open) = lookups::open_connections(*counted)
        // A count that began anew does not know the socket.
        && fetch_add(open, LESS) == 0
    {
        fetch_add(open, 1);
    }
}

/// One less.
const LESS: u64 = u64::MAX;
