//! Whether an offer fits, and what must make room for it.

use super::ledger::Ledger;
use super::offer::Offer;
use super::quota::Full;
use egress_common::{GrantKey, Ip, RuleId};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that taking an offer will change. Made before anything is
/// changed, so that a refused offer changes nothing.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What to open.
    pub(super) keys: BTreeMap<GrantKey, RuleId>,
    /// Lapsed entries on which the name itself is forgotten.
    pub(super) forget: BTreeSet<GrantKey>,
    /// Lapsed entries that go altogether.
    pub(super) evict: BTreeSet<GrantKey>,
}

impl Ledger {
    /// Finds room for an offer.
    pub(super) fn plan(&self, now: u64, offer: &Offer<'_>) -> Result<Plan, Full> {
        let held = self.holdings(offer.sandbox).map_or(0, |s| s.entries.len());
        let bound = self.bounds.entries_per_sandbox;
        // Counted before it is expanded, so that a rule with wide port ranges
        // cannot make the agent build a million keys first.
        if offer.size() > bound {
            return Err(Full::Sandbox {
                sandbox: offer.sandbox,
                held,
                wanted: offer.size(),
                bound,
            });
        }
        let mut plan = Plan {
            keys: offer.keys(),
            ..Plan::default()
        };
        self.room_under_name(now, offer, &mut plan)?;
        self.room_for_entries(now, offer, &mut plan)?;
        Ok(plan)
    }

    /// The bound on addresses per name: the name's oldest lapsed addresses go.
    fn room_under_name(&self, now: u64, offer: &Offer<'_>, plan: &mut Plan) -> Result<(), Full> {
        let bound = self.bounds.addresses_per_name;
        // A new name, as nearly all are: nothing is remembered under it.
        if self.id(offer.name).is_none() && plan.keys.len() <= bound {
            return Ok(());
        }
        let wanted: BTreeSet<Ip> = plan.keys.keys().map(|key| key.ip).collect();
        let full = || Full::Name {
            name: offer.name.clone(),
            bound,
        };
        if wanted.len() > bound {
            return Err(full());
        }
        let (Some(id), Some(holdings)) = (self.id(offer.name), self.holdings(offer.sandbox)) else {
            return Ok(());
        };
        // Per remembered address the latest expiry of this name's claims on it.
        let mut remembered: BTreeMap<Ip, u64> = BTreeMap::new();
        for key in holdings.by_name.get(&id).into_iter().flatten() {
            let hold = holdings.entries.get(key).and_then(|e| e.hold_of(id));
            let latest = remembered.entry(key.ip).or_default();
            *latest = (*latest).max(hold.map_or(0, |h| h.expires));
        }
        let others = remembered.keys().filter(|ip| !wanted.contains(ip)).count();
        let excess = (others + wanted.len()).saturating_sub(bound);
        if excess == 0 {
            return Ok(());
        }
        let mut lapsed: Vec<(u64, Ip)> = remembered
            .into_iter()
            .filter(|(ip, expires)| *expires <= now && !wanted.contains(ip))
            .map(|(ip, expires)| (expires, ip))
            .collect();
        lapsed.sort_unstable();
        if lapsed.len() < excess {
            return Err(full());
        }
        let going: BTreeSet<Ip> = lapsed.into_iter().take(excess).map(|(_, ip)| ip).collect();
        let keys = holdings.by_name.get(&id).into_iter().flatten();
        plan.forget = keys
            .filter(|key| going.contains(&key.ip))
            .copied()
            .collect();
        Ok(())
    }

    /// The bounds on entries: the sandbox's own lapsed entries go first, then
    /// anybody's.
    fn room_for_entries(&self, now: u64, offer: &Offer<'_>, plan: &mut Plan) -> Result<(), Full> {
        let holdings = self.holdings(offer.sandbox);
        let held = holdings.map_or(0, |s| s.entries.len());
        let exists = |key: &GrantKey| holdings.is_some_and(|s| s.entries.contains_key(key));
        let wanted = plan.keys.keys().filter(|key| !exists(key)).count();
        // Forgetting a name frees the entries that it alone held.
        let freed: BTreeSet<GrantKey> = plan
            .forget
            .iter()
            .filter(|key| {
                let entry = holdings.and_then(|s| s.entries.get(key));
                entry.is_some_and(|e| e.holds().len() == 1)
            })
            .copied()
            .collect();

        let per_sandbox = self.bounds.entries_per_sandbox;
        let total = self.bounds.entries;
        let over_own = (held + wanted).saturating_sub(freed.len() + per_sandbox);
        let over_all = (self.len() + wanted).saturating_sub(freed.len() + total);
        if over_own == 0 && over_all == 0 {
            return Ok(());
        }

        let lapsed = |order: &BTreeSet<(u64, GrantKey)>, taken: &BTreeSet<GrantKey>, count| {
            order
                .iter()
                .take_while(|(expires, _)| *expires <= now)
                .map(|(_, key)| *key)
                .filter(|key| {
                    !plan.keys.contains_key(key) && !freed.contains(key) && !taken.contains(key)
                })
                .take(count)
                .collect::<BTreeSet<_>>()
        };
        let nothing = BTreeSet::new();
        let mut evict = holdings.map_or_else(BTreeSet::new, |s| {
            lapsed(&s.order, &nothing, over_own.max(over_all))
        });
        if evict.len() < over_own {
            return Err(Full::Sandbox {
                sandbox: offer.sandbox,
                held,
                wanted,
                bound: per_sandbox,
            });
        }
        if evict.len() < over_all {
            evict.extend(lapsed(&self.order, &evict, over_all - evict.len()));
        }
        if evict.len() < over_all {
            return Err(Full::Total {
                held: self.len(),
                wanted,
                bound: total,
            });
        }
        plan.evict = evict;
        Ok(())
    }
}
