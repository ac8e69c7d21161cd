//! `cgroup_skb`: the gate. Nothing leaves or enters unless these say so.

use super::{Judged, Passed, identify, note, settle, stop_in_emergency};
use crate::context::{Packet, Skb, Socket};
use crate::emit::{Seen, count};
use crate::lookups::{self, AtPacket};
use crate::maps;
use egress_common::flow::ASKER_LIFETIME;
use egress_common::sandbox::QUERY_PERIOD;
use egress_common::{
    Asker, AskerKey, AskerWord, Because, CgroupId, Counter, Neighbour, Peer, Protocol, Reason,
    Sandbox, Standing, asker_word, decide,
};

/// `cgroup_skb/egress`.
#[inline(always)]
pub fn egress(skb: &Skb<'_>, seen: &mut Seen) -> Judged {
    // The destination first, so that every denial can name it.
    let packet = skb.packet();
    if let Ok(packet) = &packet {
        note(&packet.to, seen);
    }
    stop_in_emergency(|| skb.cgroup(), seen)?;
    let cgroup = skb.cgroup().ok_or(Reason::UnknownSandbox)?;
    seen.cgroup = cgroup;
    let socket = skb.socket();
    // Read before anything that a reload changes, since it is the last thing
    // that a reload changes: what is remembered of a verdict under the old
    // policy must not pass for one under the new.
    let epoch = lookups::settings().epoch;

    let mut standing = Standing::New;
    if let Ok(packet) = &packet
        && !is_misrouted(skb, packet)
    {
        // The first packet of a connection was judged here, under this sandbox.
        let goes_on = socket.is_some_and(|socket| socket.goes_on(packet.to.protocol));
        // A TCP connection is remembered long after its handshake, if at all.
        if (goes_on || packet.to.protocol == Protocol::Udp)
            && let Some(flow) = lookups::flow(socket)
            // A connection can be judged in one sandbox on a socket of another.
            && flow.cgroup == cgroup
            && let Some(peer) = flow.peer(&packet.to.ip, packet.to.port)
        {
            let lasts = peer.expires == Peer::LASTS && goes_on;
            if flow.epoch != epoch {
                if lasts {
                    standing = Standing::Live;
                }
            } else if lasts || (peer.expires != Peer::LASTS && lookups::now() < peer.expires) {
                return Ok(Passed::Quietly);
            }
        }
        if goes_on && packet.to.protocol == Protocol::Tcp {
            standing = Standing::Live;
        }
    }

    let (_, sandbox) = identify(Some(cgroup), seen)?;
    let sender = Sender {
        cgroup,
        sandbox,
        epoch,
        socket,
    };
    judge(skb, &packet?, &sender, standing, seen)
}

/// Whether a loopback address is about to leave through a real device, as
/// IP_PKTINFO, or a socket that is bound to a link-local address, can make it:
/// whose listener it would reach here says nothing about who hears it there.
#[inline(always)]
fn is_misrouted(skb: &Skb<'_>, packet: &Packet) -> bool {
    packet.to.ip.is_loopback() && !skb.is_on_loopback()
}

/// Who sends a packet, and under which policy generation it is judged.
struct Sender {
    cgroup: CgroupId,
    sandbox: Sandbox,
    epoch: u32,
    socket: Option<Socket>,
}

#[inline(always)]
fn judge(
    skb: &Skb<'_>,
    packet: &Packet,
    sender: &Sender,
    standing: Standing,
    seen: &mut Seen,
) -> Judged {
    let Sender {
        cgroup, sandbox, ..
    } = sender;
    if is_misrouted(skb, packet) {
        return Err(Reason::Misrouted);
    }
    let world = AtPacket {
        skb,
        cgroup: *cgroup,
        from: (&packet.from, packet.from_port),
    };
    let because = match settle(decide(&world, sandbox, &packet.to, standing), seen) {
        Ok(because) => because,
        // What a live connection lacks is not a rule that never was.
        Err(Reason::NoRule) if standing == Standing::Live => return Err(Reason::Revoked),
        Err(reason) => return Err(reason),
    };
    let expires = match because {
        Because::Resolver => {
            prove_asker(skb, packet, sender)?;
            return Ok(Passed::Quietly);
        }
        Because::Granted { expires, .. } => expires,
        Because::Network(_) | Because::OwnSandbox => Peer::STATIC,
    };
    let Some(socket) = sender.socket else {
        return Ok(Passed::Quietly);
    };
    match packet.to.protocol {
        Protocol::Tcp => {
            // Handshakes, acknowledgements and farewells come a few times in a
            // connection's life, and asking costs them a helper call.
            if skb.carries_data() && socket.has_sent_much() {
                remember(packet, socket, sender, Peer::LASTS);
            }
            Ok(Passed::Quietly)
        }
        // ICMP is refused before, since it is read at interfaces only.
        Protocol::Udp | Protocol::Icmp => {
            // Whoever receives a loopback datagram now may be another one the
            // next time, also on a connected socket: nothing is remembered.
            if because == Because::OwnSandbox {
                return Ok(Passed::Quietly);
            }
            let connected = socket.goes_on(Protocol::Udp);
            let expires = if connected { Peer::LASTS } else { expires };
            remember(packet, socket, sender, expires);
            // For datagrams with an address `sendmsg` has told already.
            Ok(if connected {
                Passed::Noted
            } else {
                Passed::Quietly
            })
        }
    }
}

/// Makes the socket remember an allowed peer. Without storage it is judged on
/// every packet, which is slower and no less strict.
#[inline(always)]
fn remember(packet: &Packet, socket: Socket, sender: &Sender, expires: u64) {
    let Some(flow) = lookups::remembered(&maps::FLOWS, socket.raw(), true) else {
        count(Counter::StorageFailed);
        return;
    };
    let Sender { cgroup, epoch, .. } = *sender;
    if flow.cgroup != cgroup || flow.epoch != epoch {
        *flow = egress_common::Flow {
            cgroup,
            epoch,
            ..Default::default()
        };
    }
    let [first, second, third, fourth] = &mut flow.peers;
    for known in [first, second, third, fourth] {
        if known.is(&packet.to.ip, packet.to.port) {
            known.expires = expires;
            return;
        }
    }
    flow.remember(&packet.to.ip, packet.to.port, expires);
}

/// Writes down who asks the resolver. The packet leaves only if that worked:
/// the resolver refuses whom it does not know.
#[inline(always)]
fn prove_asker(skb: &Skb<'_>, packet: &Packet, sender: &Sender) -> Result<(), Reason> {
    // Connections wait for the resolver by themselves; datagrams do not. Nobody
    // asks in datagrams that are cut from one, and each of them would take room.
    if packet.to.protocol == Protocol::Udp && (skb.is_many() || !may_ask(sender.cgroup)) {
        return Err(Reason::TooManyQueries);
    }
    // Its resolver knows it by the socket, and the same port of another
    // namespace is somebody else's.
    if sender.sandbox.has_own_network() {
        return Ok(());
    }
    let key = AskerKey::new(packet.from, packet.from_port, packet.to.protocol);
    let expires = lookups::now() + ASKER_LIFETIME;
    // Half-open connections have no socket; their next packet does.
    let origin = sender
        .socket
        .and_then(|socket| lookups::remembered(&maps::ORIGINS, socket.raw(), true));
    let process = origin.as_ref().map_or(0, |origin| origin.process);
    let is_proven = match loopback_word(&key) {
        Some(index) => {
            lookups::name_asker(index, process);
            lookups::prove_asker(index, AskerWord::new(sender.sandbox.id, expires))
        }
        None => {
            let asker = Asker {
                cgroup: sender.cgroup,
                expires,
                sandbox: sender.sandbox.id,
                process,
            };
            maps::ASKERS.insert(key, asker, 0).is_ok()
        }
    };
    if !is_proven {
        count(Counter::AskerFailed);
        return Err(Reason::HelperFailed);
    }
    // So that the proof ends with the socket.
    if let Some(origin) = origin {
        origin.asker = key;
    }
    Ok(())
}

/// The place of the word that proves who sends from there.
#[inline(always)]
pub(super) fn loopback_word(key: &AskerKey) -> Option<u32> {
    if key.protocol == Protocol::Udp.number() {
        asker_word(&key.ip, key.port)
    } else {
        None
    }
}

/// Takes one query from the sandbox's budget. As for events, two CPUs that race
/// may both take the last one.
///
/// Time alone refills nothing: while the resolver has not read what waits, which
/// may be this sandbox's, the next budget would only fill the queue that all
/// share. So however slow the agent is, one sandbox has at most two budgets there.
#[inline(always)]
pub(super) fn may_ask(cgroup: CgroupId) -> bool {
    let Some(meter) = lookups::meter(cgroup) else {
        return false;
    };
    if meter.queries == 0 {
        let (now, drained) = (lookups::now(), lookups::drained());
        if now.wrapping_sub(meter.queries_refilled) < QUERY_PERIOD || drained == meter.drained {
            // Unless another CPU has refilled it since it was found empty.
            return lookups::queries_left(meter) != 0;
        }
        let queries = lookups::settings().queries_per_period as u32;
        lookups::refill_queries(meter, queries, now, drained);
    }
    meter.queries = meter.queries.saturating_sub(1);
    true
}

/// `cgroup_skb/ingress`: only what answers.
#[inline(always)]
pub fn ingress(skb: &Skb<'_>, seen: &mut Seen) -> Judged {
    stop_in_emergency(|| skb.cgroup(), seen)?;
    let socket = skb.socket();
    let packet = skb.packet()?;
    // A connection that has a peer began with a packet that egress let pass.
    if packet.to.protocol == Protocol::Tcp && socket.is_some_and(|socket| !socket.is_listening()) {
        return Ok(Passed::Quietly);
    }

    seen.ip = packet.from;
    seen.port = packet.from_port;
    seen.protocol = packet.to.protocol.number();
    let (cgroup, sandbox) = identify(skb.cgroup(), seen)?;
    if packet.from.is_loopback() && skb.is_on_loopback() {
        let (here, there) = (
            (&packet.to.ip, packet.to.port),
            (&packet.from, packet.from_port),
        );
        match lookups::receiver(skb.raw(), cgroup, here, there, packet.to.protocol) {
            Neighbour::Own | Neighbour::Resolver => return Ok(Passed::Quietly),
            Neighbour::Other => {}
        }
    }
    if packet.to.protocol == Protocol::Udp
        && let Some(flow) = lookups::flow(socket)
        && flow.cgroup == cgroup
    {
        let is_known = flow.peer(&packet.from, packet.from_port).is_some();
        if is_known && flow.epoch == lookups::settings().epoch {
            return Ok(Passed::Quietly);
        }
        // Of a peer that was known before a change of policy, or that may have
        // been pushed out, it is asked whether it could be sent to.
        if is_known || flow.has_forgotten() {
            let to = egress_common::Destination {
                ip: packet.from,
                port: packet.from_port,
                protocol: Protocol::Udp,
            };
            let world = AtPacket {
                skb,
                cgroup,
                from: (&packet.to.ip, packet.to.port),
            };
            if settle(decide(&world, &sandbox, &to, Standing::Live), seen).is_ok() {
                return Ok(Passed::Quietly);
            }
        }
    }
    count(Counter::InboundDenied);
    Err(Reason::Inbound)
}
