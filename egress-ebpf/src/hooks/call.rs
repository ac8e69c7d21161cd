//! `connect` and `sendmsg`: the courtesy. They give an errno at once, and know
//! the process; what they let pass is judged again by the packet hook.

use super::{Judged, Passed, connections, identify, note, redirect, settle, stop_in_emergency};
use crate::context::{Address, Family, current_cgroup, option};
use crate::emit::Seen;
use crate::lookups::{self, AtCall};
use crate::maps;
use egress_common::{
    Because, CgroupId, Destination, Flow, Peer, Port, Protocol, Reason, Sandbox, Standing, decide,
};

/// The transports that reach an address hook.
#[inline(always)]
fn transport(address: &Address<'_>, seen: &mut Seen) -> Result<Protocol, Reason> {
    let number = address.protocol();
    seen.protocol = number as u8;
    u8::try_from(number)
        .ok()
        .and_then(Protocol::from_number)
        .ok_or(Reason::SocketKind)
}

/// `connect4` and `connect6`.
#[inline(always)]
pub fn connect<F: Family>(address: &Address<'_>, seen: &mut Seen) -> Judged {
    let (ip, port) = address.endpoint::<F>();
    seen.ip = ip;
    seen.port = port;
    stop_in_emergency(current_cgroup, seen)?;
    let protocol = transport(address, seen)?;
    let to = Destination { ip, port, protocol };
    if port == Port::DNS {
        return redirect::to_resolver::<F>(address, &to);
    }
    // Resolvers sort addresses by connecting a UDP socket to each of them
    // without sending (RFC 6724 in glibc), so connecting is no offence. What
    // the socket sends is judged as a packet, with EPERM for the sender.
    if protocol == Protocol::Udp {
        // What was remembered of an earlier connection ended with it.
        if let Some(flow) = lookups::remembered(&maps::FLOWS, address.socket(), false) {
            *flow = Flow::default();
        }
        return Ok(Passed::Quietly);
    }
    let (passed, cgroup, sandbox) = judge(address, &to, seen)?;
    connections::open(address.socket(), cgroup, &sandbox)?;
    if sandbox.send_buffer != 0 {
        option::fix_send_buffer(address, sandbox.send_buffer)?;
    }
    Ok(passed)
}

/// `sendmsg4` and `sendmsg6`: datagrams with an address of their own.
#[inline(always)]
pub fn sendmsg<F: Family>(address: &Address<'_>, seen: &mut Seen) -> Judged {
    let (ip, port) = address.endpoint::<F>();
    seen.ip = ip;
    seen.port = port;
    stop_in_emergency(current_cgroup, seen)?;
    let protocol = transport(address, seen)?;
    let to = Destination { ip, port, protocol };
    if port == Port::DNS {
        return redirect::to_resolver::<F>(address, &to);
    }
    // Whose the receiver is on loopback is known exactly only to the packet
    // hook, and a datagram's sender gets the same EPERM from there.
    if ip.is_loopback() {
        return Ok(Passed::Quietly);
    }
    if let Some(flow) = lookups::remembered(&maps::FLOWS, address.socket(), false)
        && current_cgroup() == Some(flow.cgroup)
        && flow.epoch == lookups::settings().epoch
        && let Some(peer) = flow.peer(&ip, port)
        // A connection's peer counts only for what is sent without an address.
        && peer.expires != Peer::LASTS
        && lookups::now() < peer.expires
    {
        return Ok(Passed::Quietly);
    }
    judge(address, &to, seen).map(|(passed, ..)| passed)
}

/// How it passes, and who is judged.
#[inline(always)]
fn judge(
    address: &Address<'_>,
    to: &Destination,
    seen: &mut Seen,
) -> Result<(Passed, CgroupId, Sandbox), Reason> {
    note(to, seen);
    let (cgroup, sandbox) = identify(current_cgroup(), seen)?;
    let verdict = decide(&AtCall { address, cgroup }, &sandbox, to, Standing::New);
    let passed = match settle(verdict, seen)? {
        Because::Granted { .. } | Because::Network(_) => Passed::Noted,
        Because::Resolver | Because::OwnSandbox => Passed::Quietly,
    };
    Ok((passed, cgroup, sandbox))
}
