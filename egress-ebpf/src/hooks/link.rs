//! What a link needs beside connections: who has which address, and errors
//! about connections. Held to the sandbox and its gateway; nothing of it
//! crosses to anybody else.

use super::Passed;
use super::interface::{Behind, Ruling, is_known};
use super::packet::may_ask;
use crate::emit::{Seen, count};
use crate::frame::{Frame, Other};
use crate::headers::Ethernet;
use crate::lookups;
use egress_common::{Counter, Ip, Link, Mac, Reason};

const PASS: Ruling = Some(Ok(Passed::Quietly));

/// Drops an announcement that goes nowhere: any system makes some when its
/// interface comes up.
#[inline(always)]
fn chatter() -> Ruling {
    count(Counter::LinkChatter);
    None
}

/// Whether that is the sandbox's Ethernet address. Where none is assigned, the
/// first one is.
#[inline(always)]
pub fn speaks(mac: Mac, behind: &Behind) -> bool {
    if mac == Mac::NONE || mac.is_group() {
        return false;
    }
    if behind.link.mac != Mac::NONE {
        return mac == behind.link.mac;
    }
    let Some(usage) = lookups::link_use(behind.interface) else {
        return false;
    };
    if usage.mac == Mac::NONE {
        usage.mac = mac;
    }
    usage.mac == mac
}

/// ARP from the sandbox: questions for the gateway, answers about itself to it.
#[inline(always)]
pub fn arp_leaves(frame: &Frame<'_>, ethernet: &Ethernet, behind: &Behind) -> Ruling {
    let refused = Some(Err(Reason::LinkFrame));
    let Some(arp) = frame.arp() else {
        return refused;
    };
    let Some(request) = arp.is_request() else {
        return refused;
    };
    // Probes and announcements of an address concern neighbours it has not.
    if arp.sender_ip() == Ip::from_v4(0) || arp.sender_ip() == arp.target_ip() {
        return chatter();
    }
    let own = behind.link.owns(&arp.sender_ip())
        && arp.sender == ethernet.from
        && speaks(ethernet.from, behind);
    if !own {
        return Some(Err(Reason::SpoofedSource));
    }
    let to_gateway = ethernet.to == behind.link.gateway_mac;
    let good = if request {
        (to_gateway || ethernet.to == Mac::BROADCAST) && behind.link.is_gateway(&arp.target_ip())
    } else {
        to_gateway && arp.target == behind.link.gateway_mac
    };
    if !good {
        return refused;
    }
    if !may_ask(behind.id) {
        return chatter();
    }
    PASS
}

/// ARP to the sandbox: the gateway's questions about it and answers about itself.
#[inline(always)]
pub fn arp_reaches(frame: &Frame<'_>, ethernet: &Ethernet, behind: &Behind) -> Ruling {
    let Some(arp) = frame.arp() else {
        return chatter();
    };
    let gateway = ethernet.from == behind.link.gateway_mac && arp.sender == ethernet.from;
    let good = gateway
        && match arp.is_request() {
            Some(true) => behind.link.owns(&arp.target_ip()),
            Some(false) => behind.link.is_gateway(&arp.sender_ip()),
            None => false,
        };
    if good { PASS } else { chatter() }
}

/// `fe80::/10`.
#[inline(always)]
const fn is_link_local(ip: &Ip) -> bool {
    let [first, ..] = ip.words();
    u32::from_be(first) >> 22 == 0xfe80 >> 6
}

/// The hop limit of what no router has forwarded (RFC 4861 section 3.1).
const ON_LINK: u32 = 255;

mod kind {
    pub const ROUTER_SOLICITATION: u8 = 133;
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// Other transports from the sandbox: neighbour discovery with the gateway.
#[inline(always)]
pub fn other_leaves(
    frame: &Frame<'_>,
    ethernet: &Ethernet,
    other: Other,
    behind: &Behind,
    seen: &mut Seen,
) -> Ruling {
    let (from, to, on_link) = match other {
        // Membership reports tell nobody anything that is asked here.
        Other::Igmp | Other::HopByHop => return chatter(),
        Other::Icmp(to) => {
            seen.ip = to;
            seen.protocol = 1;
            return Some(Err(Reason::Unparsable));
        }
        Other::Icmp6(from, to, hops) => (from, to, hops == ON_LINK),
    };
    seen.ip = to;
    seen.protocol = 58;
    let unparsable = Some(Err(Reason::Unparsable));
    let Some(message) = frame.icmp6() else {
        return unparsable;
    };
    if !on_link {
        return unparsable;
    }
    let own = (behind.link.owns(&from) || is_link_local(&from)) && speaks(ethernet.from, behind);
    match message.kind {
        kind::NEIGHBOUR_SOLICITATION | kind::NEIGHBOUR_ADVERTISEMENT => {
            let Some((discovery, address)) = frame.discovery() else {
                return unparsable;
            };
            let asks = message.kind == kind::NEIGHBOUR_SOLICITATION;
            // Looking whether somebody has its address already, or telling all
            // that it has: it has no neighbours.
            let announces = !asks && ethernet.to.is_group();
            if (asks && from == Ip::UNSPECIFIED) || announces {
                return chatter();
            }
            let truthful = address.is_none_or(|a| !a.is_one() || a.mac == ethernet.from);
            if !own || !truthful {
                return Some(Err(Reason::SpoofedSource));
            }
            let target = discovery.target();
            let good = if asks {
                behind.link.is_gateway(&target)
            } else {
                (behind.link.owns(&target) || is_link_local(&target))
                    && ethernet.to == behind.link.gateway_mac
            };
            if !good {
                return Some(Err(Reason::LinkFrame));
            }
        }
        kind::ROUTER_SOLICITATION => {
            let permitted = behind.link.permits & Link::ROUTER_ADVERTISEMENTS != 0;
            if !permitted || !own {
                return chatter();
            }
        }
        _ => return unparsable,
    }
    if !may_ask(behind.id) {
        return chatter();
    }
    PASS
}

/// Other transports to the sandbox: neighbour discovery of the gateway, and
/// errors about connections that it has.
#[inline(always)]
pub fn other_reaches(
    frame: &Frame<'_>,
    ethernet: &Ethernet,
    other: Other,
    behind: &Behind,
) -> Ruling {
    if ethernet.from != behind.link.gateway_mac {
        return chatter();
    }
    let good = match other {
        Other::Igmp | Other::HopByHop => false,
        Other::Icmp(to) => {
            /// Unreachable (and too big), time exceeded, parameter problem.
            const ERRORS: [u8; 3] = [3, 11, 12];
            frame.icmp().is_some_and(|icmp| ERRORS.contains(&icmp.kind))
                && frame.complained_of().is_some_and(|complained| {
                    complained.0 == to && is_known(behind.interface, complained)
                })
        }
        Other::Icmp6(_, to, hops) => match frame.icmp6().map(|icmp| icmp.kind) {
            // Unreachable, too big, time exceeded, parameter problem.
            Some(1..=4) => frame.complained_of6().is_some_and(|complained| {
                complained.0 == to && is_known(behind.interface, complained)
            }),
            Some(kind::ROUTER_ADVERTISEMENT) => {
                hops == ON_LINK && behind.link.permits & Link::ROUTER_ADVERTISEMENTS != 0
            }
            Some(message @ (kind::NEIGHBOUR_SOLICITATION | kind::NEIGHBOUR_ADVERTISEMENT)) => {
                hops == ON_LINK
                    && frame.discovery().is_some_and(|(discovery, _)| {
                        let target = discovery.target();
                        if message == kind::NEIGHBOUR_SOLICITATION {
                            behind.link.owns(&target) || is_link_local(&target)
                        } else {
                            behind.link.is_gateway(&target)
                        }
                    })
            }
            Some(_) | None => false,
        },
    };
    if good { PASS } else { chatter() }
}
