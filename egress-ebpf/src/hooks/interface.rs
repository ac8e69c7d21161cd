//! `tcx` or `clsact` on the host's side of an interface: the gate of a sandbox
//! that has a network stack of its own. Nothing crosses unless these say so.
//!
//! [`leaves`] sees what the sandbox sends, [`reaches`] what comes to it. No
//! process and no socket is known here, so connections are kept in a table.

use super::{Judged, Passed, link, note, packet::may_ask, settle};
use crate::emit::{Seen, count};
use crate::frame::{Content, Frame, Packet, Way};
use crate::headers::{Ethernet, Segment};
use crate::lookups::{self, AtInterface};
use crate::maps;
use egress_common::flow::ASKER_LIFETIME;
use egress_common::interface::{CONNECTIONS_PER_LINK, UDP_IDLE};
use egress_common::{
    Asked, Asker, AskerKey, CgroupId, Connection, ConnectionKey, Counter, Destination, Link, Mac,
    Port, Protocol, Reason, Sandbox, Standing, decide,
};

/// `None` for what is dropped without being worth a record.
pub type Ruling = Option<Judged>;

/// The interface's sandbox.
pub struct Behind {
    /// The interface's index.
    pub interface: u32,
    /// What takes a cgroup's place.
    pub id: CgroupId,
    /// The sandbox.
    pub sandbox: Sandbox,
    /// What is on the link.
    pub link: &'static Link,
}

/// Finds the sandbox behind an interface and notes it.
#[inline(always)]
fn identify(interface: u32, seen: &mut Seen) -> Result<Behind, Reason> {
    let (id, sandbox) = super::identify(Some(CgroupId::of_interface(interface)), seen)?;
    // The agent writes the link first, so that an interface that is half known
    // is an unknown one.
    let link = lookups::link(interface).ok_or(Reason::UnknownSandbox)?;
    Ok(Behind {
        interface,
        id,
        sandbox,
        link,
    })
}

/// What the sandbox sends.
#[inline(always)]
pub fn leaves(frame: &Frame<'_>, seen: &mut Seen) -> Ruling {
    let interface = frame.interface();
    if let Err(emergency) = lookups::emergency().admit() {
        return refuse(interface, emergency, seen);
    }
    let Some(ethernet) = frame.ethernet() else {
        return refuse(interface, Reason::LinkFrame, seen);
    };
    // As at the cgroup's gate: read before anything that a reload changes.
    let epoch = lookups::settings().epoch;
    match frame.content(ethernet.kind, Way::Leaves) {
        Ok(Content::Packet(packet)) => {
            note(&packet.to, seen);
            Some(packet_leaves(
                frame, &ethernet, &packet, interface, epoch, seen,
            ))
        }
        Ok(Content::Other(other)) => match identify(interface, seen) {
            Ok(behind) => link::other_leaves(frame, &ethernet, other, &behind, seen),
            Err(reason) => Some(Err(reason)),
        },
        Ok(Content::Arp) => match identify(interface, seen) {
            Ok(behind) => link::arp_leaves(frame, &ethernet, &behind),
            Err(reason) => Some(Err(reason)),
        },
        Err(reason) => refuse(interface, reason, seen),
    }
}

/// Refuses what could not be read, or everything; in the name of the sandbox,
/// if there is one.
#[inline(always)]
fn refuse(interface: u32, reason: Reason, seen: &mut Seen) -> Ruling {
    Some(Err(match (identify(interface, seen), reason) {
        (Ok(_), reason) | (Err(_), reason @ Reason::Emergency) => reason,
        (Err(unknown), _) => unknown,
    }))
}

#[inline(always)]
fn packet_leaves(
    frame: &Frame<'_>,
    ethernet: &Ethernet,
    packet: &Packet,
    interface: u32,
    epoch: u32,
    seen: &mut Seen,
) -> Judged {
    let key = ConnectionKey::new(interface, (packet.from, packet.from_port), &packet.to);
    let begins = packet.segment.is_some_and(|segment| segment.begins());
    let mut known = None;
    if !begins
        && let Some(live) = lookups::connection_mut(&key)
        && !has_lapsed(live, packet.to.protocol)
    {
        // Also of one that is then refused: what it acknowledged last is what
        // it can be reset with.
        here_says(live, packet.segment.as_ref());
        let same_stations = live.mac == ethernet.from && live.gateway_mac == ethernet.to;
        if live.epoch == epoch && same_stations {
            return Ok(Passed::Quietly);
        }
        known = Some(live);
    }

    let behind = identify(interface, seen)?;
    if packet.to.port == Port::DNS {
        return ask(frame, ethernet, packet, &behind);
    }
    let standing = if known.is_some() {
        Standing::Live
    } else {
        Standing::New
    };
    if standing == Standing::New && packet.to.protocol == Protocol::Tcp && !begins {
        return Err(Reason::NoConnection);
    }
    if is_dhcp(frame, ethernet, packet, &behind) {
        return Ok(Passed::Quietly);
    }
    is_own(ethernet, packet, &behind)?;
    judge(&behind.sandbox, &packet.to, standing, seen)?;
    // Last, so that what policy refuses is told as that.
    if ethernet.to != behind.link.gateway_mac {
        return Err(Reason::LinkFrame);
    }
    if let Some(live) = known {
        live.epoch = epoch;
        live.mac = ethernet.from;
        live.gateway_mac = ethernet.to;
        return Ok(Passed::Quietly);
    }
    begin(&key, ethernet, packet, &behind, epoch)?;
    Ok(Passed::Noted)
}

/// Asks the shared decision. Whose listener a loopback address would reach on
/// the other side of a link says nothing about who hears it here.
#[inline(always)]
fn judge(
    sandbox: &Sandbox,
    to: &Destination,
    standing: Standing,
    seen: &mut Seen,
) -> Result<(), Reason> {
    if to.ip.is_loopback() {
        return Err(Reason::Misrouted);
    }
    match settle(decide(&AtInterface, sandbox, to, standing), seen) {
        Ok(_) => Ok(()),
        Err(Reason::NoRule) if standing == Standing::Live => Err(Reason::Revoked),
        Err(reason) => Err(reason),
    }
}

/// Whether the packet comes from where the sandbox was told to be.
#[inline(always)]
fn is_own(ethernet: &Ethernet, packet: &Packet, behind: &Behind) -> Result<(), Reason> {
    if behind.link.owns(&packet.from) && link::speaks(ethernet.from, behind) {
        Ok(())
    } else {
        Err(Reason::SpoofedSource)
    }
}

/// Whether UDP or an echo has been silent for so long that it is no connection any more.
#[inline(always)]
fn has_lapsed(known: &Connection, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => false,
        Protocol::Udp | Protocol::Icmp => lookups::coarse_now().wrapping_sub(known.seen) > UDP_IDLE,
    }
}

/// Notes what a packet of the sandbox changes.
#[inline(always)]
fn here_says(known: &mut Connection, segment: Option<&Segment>) {
    known.seen = lookups::coarse_now();
    let Some(segment) = segment else { return };
    if segment.acknowledges() {
        known.acknowledged_here = segment.acknowledgement;
        known.state |= Connection::NUMBERED;
    }
    if segment.ends() {
        known.state |= Connection::ENDED_HERE;
    }
    if segment.resets() {
        known.state |= Connection::RESET;
    }
}

/// Puts a connection into the table.
#[inline(always)]
fn begin(
    key: &ConnectionKey,
    ethernet: &Ethernet,
    packet: &Packet,
    behind: &Behind,
    epoch: u32,
) -> Result<(), Reason> {
    let mut connection = Connection {
        epoch,
        mac: ethernet.from,
        gateway_mac: ethernet.to,
        ..Connection::default()
    };
    here_says(&mut connection, packet.segment.as_ref());
    // The same ports again, by a new SYN or after a silence, are the same entry.
    if let Some(there) = lookups::connection_mut(key) {
        *there = connection;
        return Ok(());
    }
    const BPF_NOEXIST: u64 = 1;
    let full = Err(Reason::ConnectionsFull);
    let Some(usage) = lookups::link_use(behind.interface) else {
        return full;
    };
    let in_table = usage.begun.wrapping_sub(behind.link.swept);
    if in_table >= CONNECTIONS_PER_LINK
        || maps::CONNECTIONS
            .insert(key, connection, BPF_NOEXIST)
            .is_err()
    {
        count(Counter::ConnectionsFull);
        return full;
    }
    lookups::begun(usage);
    Ok(())
}

/// Brings a DNS packet to the resolver on the gateway's address, and writes
/// down who asked whom. The packet leaves only if that worked.
#[inline(always)]
fn ask(frame: &Frame<'_>, ethernet: &Ethernet, packet: &Packet, behind: &Behind) -> Judged {
    is_own(ethernet, packet, behind)?;
    if ethernet.to != behind.link.gateway_mac {
        return Err(Reason::LinkFrame);
    }
    let (ip, port) = behind
        .link
        .resolver_for(&packet.to.ip)
        .ok_or(Reason::NoResolver)?;
    let key = AskerKey::new(packet.from, packet.from_port, packet.to.protocol);
    let asked = Asked {
        ip: packet.to.ip,
        interface: behind.interface,
        reserved: 0,
    };
    match packet.segment {
        // What goes on must be what began: its answers come from one address.
        Some(segment) if !segment.begins() => {
            if lookups::asked(&key) != Some(asked) {
                return Err(Reason::NoConnection);
            }
        }
        Some(_) | None => {
            if !may_ask(behind.id) {
                return Err(Reason::TooManyQueries);
            }
            if maps::ASKED.insert(key, asked, 0).is_err() {
                count(Counter::AskerFailed);
                return Err(Reason::HelperFailed);
            }
        }
    }
    let asker = Asker {
        cgroup: behind.id,
        expires: lookups::now() + ASKER_LIFETIME,
        sandbox: behind.sandbox.id,
        process: 0,
    };
    if maps::ASKERS.insert(key, asker, 0).is_err() {
        count(Counter::AskerFailed);
        return Err(Reason::HelperFailed);
    }
    let (old, new) = ((&packet.to.ip, packet.to.port), (&ip, port));
    frame.readdress(packet.to.protocol, false, old, new)?;
    count(Counter::Redirected);
    Ok(Passed::Quietly)
}

/// Whether it is a DHCP request that policy lets pass: from the sandbox's own
/// Ethernet address, in the frame and in the request, so that one sandbox
/// cannot ask for the addresses of many.
#[inline(always)]
fn is_dhcp(frame: &Frame<'_>, ethernet: &Ethernet, packet: &Packet, behind: &Behind) -> bool {
    let link = behind.link;
    let ports = packet.from_port == Port::from_host(68) && packet.to.port == Port::from_host(67);
    if link.permits & Link::DHCP == 0 || !ports || packet.to.protocol != Protocol::Udp {
        return false;
    }
    let from = packet.from.v4() == Some(0) || link.owns(&packet.from);
    let to = packet.to.ip.v4() == Some(u32::MAX) || link.is_gateway(&packet.to.ip);
    let stations = ethernet.to == Mac::BROADCAST || ethernet.to == link.gateway_mac;
    from && to
        && stations
        && link::speaks(ethernet.from, behind)
        && frame.dhcp_client() == Some(ethernet.from)
        && may_ask(behind.id)
}

/// What would reach the sandbox: only what answers.
#[inline(always)]
pub fn reaches(frame: &Frame<'_>, seen: &mut Seen) -> Ruling {
    let interface = frame.interface();
    if let Err(emergency) = lookups::emergency().admit() {
        return refuse(interface, emergency, seen);
    }
    let Some(ethernet) = frame.ethernet() else {
        return refuse(interface, Reason::LinkFrame, seen);
    };
    let epoch = lookups::settings().epoch;
    match frame.content(ethernet.kind, Way::Reaches) {
        Ok(Content::Packet(packet)) => {
            seen.ip = packet.from;
            seen.port = packet.from_port;
            seen.protocol = packet.to.protocol.number();
            Some(packet_reaches(
                frame, &ethernet, &packet, interface, epoch, seen,
            ))
        }
        Ok(Content::Other(other)) => match identify(interface, seen) {
            Ok(behind) => link::other_reaches(frame, &ethernet, other, &behind),
            Err(reason) => Some(Err(reason)),
        },
        Ok(Content::Arp) => match identify(interface, seen) {
            Ok(behind) => link::arp_reaches(frame, &ethernet, &behind),
            Err(reason) => Some(Err(reason)),
        },
        Err(reason) => refuse(interface, reason, seen),
    }
}

#[inline(always)]
fn packet_reaches(
    frame: &Frame<'_>,
    ethernet: &Ethernet,
    packet: &Packet,
    interface: u32,
    epoch: u32,
    seen: &mut Seen,
) -> Judged {
    let there = Destination {
        ip: packet.from,
        port: packet.from_port,
        protocol: packet.to.protocol,
    };
    let key = ConnectionKey::new(interface, (packet.to.ip, packet.to.port), &there);
    if let Some(known) = lookups::connection_mut(&key)
        && !has_lapsed(known, there.protocol)
        && known.gateway_mac == ethernet.from
    {
        // What has not been judged under this policy yet is judged now; a reset
        // may always pass, since it can only close.
        let resets = packet.segment.is_some_and(|segment| segment.resets());
        there_says(known, packet.segment.as_ref());
        if known.epoch != epoch && !resets {
            let behind = identify(interface, seen)?;
            judge(&behind.sandbox, &there, Standing::Live, seen)?;
        }
        return Ok(Passed::Quietly);
    }

    let behind = identify(interface, seen)?;
    let link = behind.link;
    if ethernet.from == link.gateway_mac {
        if let Some((ip, port)) = link.resolver_for(&there.ip)
            && port == there.port
            && ip == there.ip
        {
            let key = AskerKey::new(packet.to.ip, packet.to.port, there.protocol);
            if let Some(asked) = lookups::asked(&key)
                && asked.interface == interface
            {
                let (old, new) = ((&there.ip, there.port), (&asked.ip, Port::DNS));
                frame.readdress(there.protocol, true, old, new)?;
                return Ok(Passed::Quietly);
            }
        }
        let dhcp = there.protocol == Protocol::Udp
            && there.port == Port::from_host(67)
            && packet.to.port == Port::from_host(68)
            && link.permits & Link::DHCP != 0;
        if dhcp {
            return Ok(Passed::Quietly);
        }
    }
    count(Counter::InboundDenied);
    Err(Reason::Inbound)
}

/// Notes what a packet of the other end changes.
#[inline(always)]
fn there_says(known: &mut Connection, segment: Option<&Segment>) {
    known.seen = lookups::coarse_now();
    known.state |= Connection::ANSWERED;
    let Some(segment) = segment else { return };
    if segment.acknowledges() {
        known.acknowledged_there = segment.acknowledgement;
    }
    if segment.ends() {
        known.state |= Connection::ENDED_THERE;
    }
    // Only the number that the sandbox waits for is believed, as by itself.
    let expected =
        known.state & Connection::NUMBERED == 0 || segment.sequence == known.acknowledged_here;
    if segment.resets() && expected {
        known.state |= Connection::RESET;
    }
}

/// Whether the connection that an ICMP error complains of is one of this link's.
#[inline(always)]
pub fn is_known(interface: u32, complained: (egress_common::Ip, Port, Destination)) -> bool {
    let (here, port, there) = complained;
    lookups::connection(&ConnectionKey::new(interface, (here, port), &there)).is_some()
}
