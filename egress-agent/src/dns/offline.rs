//! The message path without sockets, for fuzzing and replay.

use super::cache::{Cache, Key, Lookup};
use super::chain::follow;
use super::coalesce::InFlight;
use super::counters::Counters;
use super::desk::{Bounds, Desks};
use super::gate::Gate;
use super::hosts::Hosts;
use super::lookups::Lookups;
use super::query::QuestionKey;
use super::question::{self, MAX_UDP};
use super::resolver::Resolver;
use super::trace::Asked;
use super::upstream::{Patience, Strategy, Upstreams};
use super::worker::quick;
use egress_common::{Protocol, SandboxId};
use hickory_proto::op::Message;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client hears.
#[derive(Debug)]
pub struct Answers {
    /// The answer.
    pub first: Vec<u8>,
    /// The answer to the same datagram right after it, if it takes the short way.
    pub again: Option<Vec<u8>>,
}

/// Answers the query of a sandbox as the resolver does, with `upstream` as what
/// the only upstream has said about it. `None` if the query deserves no answer.
///
/// What the upstream says is taken as having passed the comparison with the
/// question (id, name and type), so that every message reaches what follows.
pub async fn answer<G: Gate>(
    gate: Arc<G>,
    sandbox: SandboxId,
    protocol: Protocol,
    query: &[u8],
    upstream: &[u8],
) -> Option<Answers> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
    let counters = Arc::new(Counters::default());
    let patience = Patience {
        attempt: Duration::ZERO,
        total: Duration::from_secs(1),
    };
    let resolver = Resolver {
        gate,
        desks: Desks::new(Bounds {
            per_sandbox: 1,
            total: 1,
            records_per_second: u32::MAX,
        }),
        lookups: Arc::new(Lookups {
            hosts: Hosts::default(),
            cache: Cache::new(1, Duration::ZERO),
            in_flight: InFlight::default(),
            upstreams: Upstreams::new(&[], (Strategy::Order, false), patience, 1, counters.clone())
                .ok()?,
            prefetch: false,
            counters: Arc::clone(&counters),
        }),
        counters,
    };
    if let (Ok(question), Ok(message)) = (question::read(query), Message::from_vec(upstream))
        && let Ok(learned) = follow(&question.name, question.query_type, &message)
    {
        let now = Instant::now();
        let lookup = Lookup {
            learned,
            received: now,
            upstream: "an upstream".into(),
            is_stale: false,
        };
        let key = Key {
            view: None,
            name: question.name,
            query_type: question.query_type,
        };
        resolver.lookups.cache.keep(key, Arc::new(lookup), now);
    }
    let asked = Asked {
        from: address,
        protocol,
        sandbox: Some(sandbox),
        process: None,
    };
    let first = resolver.answer(asked, query).await?;
    let mut room = [0; MAX_UDP as usize];
    let moment = (resolver.gate.now(), resolver.gate.generation());
    let mut key = QuestionKey::new();
    let again = match protocol {
        // Nobody asks by ICMP.
        Protocol::Udp | Protocol::Icmp => {
            quick(&resolver, (address, query), &mut key, moment, &mut room)
        }
        Protocol::Tcp => None,
    };
    let again = again.and_then(|length| Some(room.get(..length)?.to_vec()));
    Some(Answers { first, again })
}
