//! Asking for a name again because its connections live on.
//!
//! A client that holds a connection asks for the name no more, and may connect to
//! the same address again much later. As long as the upstreams still say that
//! the name has it, its grant is renewed; nobody is answered.

use super::cache::Key;
use super::chain::Learned;
use super::counters::count;
use super::gate::Gate;
use super::hosts::Hosts;
use super::question::{Envelope, Question};
use super::resolver::Resolver;
use super::server::{Shared, reap};
use crate::model::DomainName;
use egress_common::SandboxId;
use hickory_proto::op::{OpCode, Query};
use hickory_proto::rr::RecordType;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A name of which a sandbox has a live connection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Renewal {
    /// Whose.
    pub sandbox: SandboxId,
    /// The name.
    pub name: DomainName,
    /// Whether the connection is over IPv6.
    pub is_v6: bool,
}

/// Renewals that wait; further ones are left out, and come again with the next look.
pub(super) const WAITING: usize = 256;
/// Renewals that are asked for at a time: those who wait for an answer come first.
const AT_A_TIME: usize = 8;

/// Asks for what comes until the resolver stops.
pub(super) async fn renewals<G: Gate>(
    shared: Arc<Shared<G>>,
    mut wanted: mpsc::Receiver<Renewal>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let next = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            next = wanted.recv() => next,
        };
        let Some(Renewal {
            sandbox,
            name,
            is_v6,
        }) = next
        else {
            return;
        };
        if tasks.len() >= AT_A_TIME {
            tasks.join_next().await;
        }
        reap(&mut tasks);
        let shared = Arc::clone(&shared);
        let query_type = if is_v6 {
            RecordType::AAAA
        } else {
            RecordType::A
        };
        tasks.spawn(async move { shared.resolver.renew(sandbox, name, query_type).await });
    }
}

impl<G: Gate> Resolver<G> {
    /// Asks upstreams for a name of which the sandbox has a connection, and opens
    /// what they say as if it had asked. What policy refuses by now is not asked.
    pub(super) async fn renew(&self, sandbox: SandboxId, name: DomainName, query_type: RecordType) {
        let Some(wire) = super::name::wire(&name) else {
            return;
        };
        let question = Question {
            envelope: Envelope {
                id: 0,
                op_code: OpCode::Query,
                recursion_desired: true,
                checking_disabled: false,
                query: Some(Query::query(wire, query_type)),
                edns: false,
                payload: super::question::MAX_UDP,
            },
            name,
            query_type,
        };
        let Ok(admitted) = self.admit(sandbox, &question) else {
            return;
        };
        let sources = self.gate.sources(sandbox, &question.name);
        let key = Key {
            name: question.name.clone(),
            query_type,
            view: sources.view,
        };
        let now = Instant::now();
        let own = sources
            .addresses
            .and_then(|own| Hosts::answer(&own, &key, "hosts of the policy", now));
        let own = own.or_else(|| self.lookups.own(&key, admitted.is_named(), now));
        let lookup = match own {
            Some(own) => own,
            None => match self.lookups.ask_anew(&key).await {
                Ok(lookup) => lookup,
                // Silence takes nothing away: the grant lapses at its time.
                Err(_) => return,
            },
        };
        // Asked again: the policy may have changed while the upstream thought.
        let Ok(admitted) = self.admit(sandbox, &question) else {
            return;
        };
        if let Learned::Records(chain) = &lookup.learned {
            count(&self.counters.kept_fresh);
            let told = (Arc::as_ref(&lookup), chain);
            let _ = self.hand_out(sandbox, &question, &admitted, told);
        }
    }
}
