//! Keeps the names of live connections fresh: a client that has a connection asks
//! for its name no more, and may connect there again long after the grant lapsed.

use super::agent::Agent;
use super::book::Member;
use crate::dns::Renewal;
use crate::enforcer::{SocketTable, boot_now};
use egress_common::{Destination, GrantKey, Port, Protocol, SandboxId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Grants that lapse within this time are renewed; a look comes every ten seconds.
const SOON: Duration = Duration::from_secs(30);
/// Names that are asked for at one look, of each sandbox.
const NAMES: usize = 32;

impl Agent {
    /// Has the names asked for that live connections rely on, shortly before their
    /// grants lapse. What the upstreams no longer say lapses at its time.
    pub(super) fn keep_fresh(&self) {
        let Some(renewals) = self.renewals() else {
            return;
        };
        if self.book().ledger().is_empty() {
            return;
        }
        for renewal in self.due_renewals() {
            // A full queue has enough to do until the next look.
            if renewals.try_send(renewal).is_err() {
                return;
            }
        }
    }

    fn due_renewals(&self) -> BTreeSet<Renewal> {
        let peers = self.live_peers();
        let until = boot_now().saturating_add(u64::try_from(SOON.as_nanos()).unwrap_or(u64::MAX));
        let book = self.book();
        let mut due = BTreeSet::new();
        let mut counts: BTreeMap<SandboxId, usize> = BTreeMap::new();
        for (sandbox, to) in peers {
            for port in [to.port, Port::ANY] {
                let key = GrantKey::new(sandbox, &to, port);
                let Some(held) = book.ledger().held(&key) else {
                    continue;
                };
                // What lapsed is over: who wants it again has to ask.
                if held.grant.expires > until || held.grant.expires < boot_now() {
                    continue;
                }
                for name in held.names {
                    let count = counts.entry(sandbox).or_default();
                    let renewal = Renewal {
                        sandbox,
                        name,
                        is_v6: !to.ip.is_v4(),
                    };
                    if *count < NAMES && due.insert(renewal) {
                        *count += 1;
                    }
                }
            }
        }
        due
    }

    /// To whom sandboxes whose policy wants it are connected, through sockets of the host and
    /// through interfaces. What cannot be listed is left out, and lapses at its time.
    fn live_peers(&self) -> Vec<(SandboxId, Destination)> {
        let sockets = SocketTable::open().and_then(|table| table.live());
        let sockets = sockets.unwrap_or_else(|error| {
            tracing::debug!(%error, "live connections cannot be listed");
            Vec::new()
        });
        let connections = self.enforcer().connections().unwrap_or_else(|error| {
            tracing::debug!(%error, "the connections of interfaces cannot be listed");
            Vec::new()
        });
        let cgroups = self.cgroups_of_sandboxes();
        let (mut by_cgroup, mut by_interface) = (BTreeMap::new(), BTreeMap::new());
        {
            let book = self.book();
            let wants_it = |member: &&Member| {
                let policy = book.policy_of(member.id);
                policy.is_some_and(|compiled| compiled.policy.dns.keep_fresh)
            };
            for member in book.members().filter(wants_it) {
                by_cgroup.insert(member.cgroup, member.id);
                by_interface.extend(member.interface().map(|index| (index, member.id)));
            }
        }
        let of_sockets = sockets.into_iter().filter_map(|connection| {
            let own = cgroups.get(&connection.cgroup)?;
            Some((*by_cgroup.get(own)?, connection.to))
        });
        let of_interfaces = connections.into_iter().filter_map(|(key, connection)| {
            let to = Destination {
                ip: key.there,
                port: key.there_port,
                protocol: Protocol::from_key(key.protocol)?,
            };
            let sandbox = *by_interface.get(&key.interface)?;
            (!connection.has_ended()).then_some((sandbox, to))
        });
        of_sockets.chain(of_interfaces).collect()
    }
}
