//! Keeps the names of live connections fresh: a client that has a connection asks
//! for its name no more, and may connect there again long after the grant lapsed.

use super::agent::Agent;
use crate::dns::Renewal;
use crate::enforcer::{SocketTable, boot_now};
use egress_common::{GrantKey, Port, SandboxId};
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
        let live = match SocketTable::open().and_then(|table| table.live()) {
            Ok(live) => live,
            Err(error) => {
                tracing::debug!(%error, "live connections cannot be listed");
                return BTreeSet::new();
            }
        };
        let cgroups = self.cgroups_of_sandboxes();
        let until = boot_now().saturating_add(u64::try_from(SOON.as_nanos()).unwrap_or(u64::MAX));
        let book = self.book();
        let sandboxes: BTreeMap<_, _> = book
            .members()
            .filter(|member| {
                let policy = book.policy_of(member.id);
                policy.is_some_and(|compiled| compiled.policy.dns.keep_fresh)
            })
            .map(|member| (member.cgroup, member.id))
            .collect();
        let mut due = BTreeSet::new();
        let mut counts: BTreeMap<SandboxId, usize> = BTreeMap::new();
        for connection in live {
            let sandbox = cgroups
                .get(&connection.cgroup)
                .and_then(|own| sandboxes.get(own));
            let Some(sandbox) = sandbox.copied() else {
                continue;
            };
            let to = connection.to;
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
}
