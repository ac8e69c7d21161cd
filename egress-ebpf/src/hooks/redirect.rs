//! DNS to any address is brought to the agent's resolver, and the client keeps
//! seeing the address that it asked.

use super::{Judged, Passed, packet};
use crate::context::{Address, Family};
use crate::emit::{count, current_process};
use crate::{lookups, maps};
use aya_ebpf::bindings::bpf_sock;
use egress_common::{AskerKey, AskerWord, Counter, Destination, Reason};

/// Rewrites the destination of a DNS query and remembers the original.
///
/// One original per socket: where an unconnected socket asks two servers at
/// once, both answers come from the one asked last.
#[inline(always)]
pub fn to_resolver<F: Family>(address: &Address<'_>, to: &Destination) -> Judged {
    let (ip, port) = lookups::resolver_for(&to.ip).ok_or(Reason::NoResolver)?;
    let origin =
        lookups::remembered(&maps::ORIGINS, address.socket(), true).ok_or(Reason::HelperFailed)?;
    origin.ip = to.ip;
    origin.port = to.port;
    // These hooks run in the process that asks; the gate may run in any other.
    origin.process = current_process();
    // An IPv4-mapped destination stays IPv4: the resolver's address for its
    // family is `127.0.0.1`, which is stored mapped.
    address.rewrite::<F>(&ip, port);
    count(Counter::Redirected);
    Ok(Passed::Quietly)
}

/// `recvmsg` and `getpeername`: puts the original back.
#[inline(always)]
pub fn from_resolver<F: Family>(address: &Address<'_>) {
    let (ip, port) = address.endpoint::<F>();
    if !lookups::is_resolver(&ip, port) {
        return;
    }
    if let Some(origin) = lookups::remembered(&maps::ORIGINS, address.socket(), false)
        && origin.port.network() != 0
    {
        address.rewrite::<F>(&origin.ip, origin.port);
    }
}

/// `sock_release`: the proof of who asks ends with the socket.
#[inline(always)]
pub fn forget(sk: *mut bpf_sock) {
    if let Some(origin) = lookups::remembered(&maps::ORIGINS, sk, false)
        && origin.asker != AskerKey::default()
    {
        match packet::loopback_word(&origin.asker) {
            Some(index) => {
                lookups::prove_asker(index, AskerWord::NONE);
            }
            None => {
                // Absent is as good as removed.
                let _ = maps::ASKERS.remove(origin.asker);
            }
        }
    }
}
