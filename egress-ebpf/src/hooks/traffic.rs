//! How much a sandbox sends and receives, for its closing record. It costs each
//! packet some map look-ups, so it is counted only where the agent wants it.

use crate::context::{Skb, add};
use crate::lookups;
use egress_common::Traffic;

/// Counts a packet that leaves.
#[inline(always)]
pub fn sent(skb: &Skb<'_>) {
    if let Some(traffic) = counted(skb) {
        add(&mut traffic.sent, u64::from(skb.length()));
    }
}

/// Counts a packet that enters.
#[inline(always)]
pub fn received(skb: &Skb<'_>) {
    if let Some(traffic) = counted(skb) {
        add(&mut traffic.received, u64::from(skb.length()));
    }
}

#[inline(always)]
fn counted(skb: &Skb<'_>) -> Option<&'static mut Traffic> {
    if lookups::settings().count_bytes == 0 {
        return None;
    }
    lookups::traffic(skb.cgroup()?)
}
