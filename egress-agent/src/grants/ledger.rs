//! What each sandbox has been granted, and why.

use super::entry::{Entry, Hold};
use super::names::Names;
use super::offer::Offer;
use super::quota::{Bounds, Full};
use crate::model::DomainName;
use egress_common::{Grant, GrantKey, NameId, RuleId, SandboxId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the kernel map must be made to say. Apply `remove` first: closing
/// before opening is never looser than either end, and makes the room.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "the kernel map is not true before these are applied"]
pub struct Changes {
    /// Keys that must go.
    pub remove: Vec<GrantKey>,
    /// Keys that must hold this.
    pub write: Vec<(GrantKey, Grant)>,
}

/// What became of each entry that was touched. A map, because one entry can lose
/// a name first and be given up afterwards: only its last state counts.
#[derive(Debug, Default)]
struct Touched(BTreeMap<GrantKey, Option<Grant>>);

impl From<Touched> for Changes {
    fn from(touched: Touched) -> Self {
        let mut changes = Self::default();
        for (key, grant) in touched.0 {
            match grant {
                Some(grant) => changes.write.push((key, grant)),
                None => changes.remove.push(key),
            }
        }
        changes
    }
}

/// An entry that an earlier agent left in the kernel map.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The key found.
    pub key: GrantKey,
    /// The value found.
    pub grant: Grant,
    /// What `grant.name` meant, if that is known. An entry whose name is not
    /// known goes with the next [`Ledger::revoke`], since nothing can be asked
    /// about it.
    pub name: Option<DomainName>,
}

/// One entry, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// What is open.
    pub key: GrantKey,
    /// As the kernel map holds it.
    pub grant: Grant,
    /// Every name that keeps it, the latest last.
    pub names: Vec<DomainName>,
}

/// What every sandbox has been granted at run time.
#[derive(Debug)]
pub struct Ledger {
    pub(super) bounds: Bounds,
    names: Names,
    sandboxes: BTreeMap<SandboxId, Holdings>,
    /// Every entry by its expiry.
    pub(super) order: BTreeSet<(u64, GrantKey)>,
}

/// The entries of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) entries: BTreeMap<GrantKey, Entry>,
    pub(super) by_name: BTreeMap<NameId, BTreeSet<GrantKey>>,
    pub(super) order: BTreeSet<(u64, GrantKey)>,
}

impl Ledger {
    /// A ledger that holds nothing.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            names: Names::new(bounds.retired_names),
            sandboxes: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Opens what is offered. The answer may leave the resolver only after the
    /// changes are in the kernel map.
    pub fn offer(&mut self, now: u64, offer: &Offer<'_>) -> Result<Changes, Full> {
        let plan = self.plan(now, offer)?;
        let name = self.names.intern(offer.name).ok_or(Full::Ids)?;
        let lifetime = offer.clamp.lifetime(offer.ttl, offer.answer_ttl);
        let expires = now.saturating_add(nanoseconds(lifetime));

        let mut touched = Touched::default();
        for key in plan.forget {
            self.edit(key, &mut touched, |entry| {
                entry
                    .remove(name)
                    .map(|hold| hold.name)
                    .into_iter()
                    .collect()
            });
        }
        for key in plan.evict {
            self.edit(key, &mut touched, |entry| {
                entry.judge(|_| None).iter().map(|hold| hold.name).collect()
            });
        }
        let bound = self.bounds.names_per_entry;
        for (key, rule) in plan.keys {
            let hold = Hold {
                name,
                rule,
                expires,
            };
            let grant = self.put(key, hold, bound);
            touched.0.insert(key, grant);
        }
        Ok(touched.into())
    }

    /// Asks about every claim again, after policies changed. `rule_for` gives
    /// the rule that now allows the name at the key's address, transport and
    /// port ([`egress_common::Port::ANY`] stands for all ports), or `None`. An
    /// entry stays as long as one of its names is allowed.
    pub fn revoke(
        &mut self,
        mut rule_for: impl FnMut(&GrantKey, &DomainName) -> Option<RuleId>,
    ) -> Changes {
        let mut touched = Touched::default();
        let keys: Vec<GrantKey> = self.order.iter().map(|(_, key)| *key).collect();
        for key in keys {
            let verdicts: BTreeMap<NameId, Option<RuleId>> = self
                .holds(&key)
                .iter()
                .map(|hold| {
                    let name = self.names.name(hold.name);
                    (hold.name, name.and_then(|name| rule_for(&key, name)))
                })
                .collect();
            self.edit(key, &mut touched, |entry| {
                let ended = entry.judge(|hold| verdicts.get(&hold.name).copied().flatten());
                ended.iter().map(|hold| hold.name).collect()
            });
        }
        touched.into()
    }

    /// Forgets a sandbox; returns what must go from the kernel map.
    pub fn drop_sandbox(&mut self, sandbox: SandboxId) -> Vec<GrantKey> {
        let Some(holdings) = self.sandboxes.remove(&sandbox) else {
            return Vec::new();
        };
        for at in &holdings.order {
            self.order.remove(at);
        }
        for hold in holdings.entries.values().flat_map(Entry::holds) {
            self.names.release(hold.name);
        }
        holdings.entries.into_keys().collect()
    }

    /// Gives up entries that lapsed longer than `keep_lapsed_for` ago. Until
    /// then they cover connections that began while they were open.
    pub fn sweep(&mut self, now: u64, keep_lapsed_for: Duration) -> Vec<GrantKey> {
        let keep = nanoseconds(keep_lapsed_for);
        let over = |expires: u64| expires.saturating_add(keep) <= now;
        let due: Vec<GrantKey> = self
            .order
            .iter()
            .take_while(|(expires, _)| over(*expires))
            .map(|(_, key)| *key)
            .collect();
        let mut touched = Touched::default();
        for key in due {
            self.edit(key, &mut touched, |entry| {
                entry.judge(|_| None).iter().map(|hold| hold.name).collect()
            });
        }
        Changes::from(touched).remove
    }

    /// Takes over what an earlier agent left in the kernel map. Bounds are not
    /// applied: what is open is open, and must be known to be closed one day.
    pub fn adopt(&mut self, entries: impl IntoIterator<Item = Adopted>) {
        for Adopted { key, grant, name } in entries {
            match name {
                Some(name) => self.names.adopt(grant.name, name),
                None => self.names.reserve(grant.name),
            }
            let hold = Hold {
                name: grant.name,
                rule: grant.rule,
                expires: grant.expires,
            };
            self.put(key, hold, usize::MAX);
        }
    }

    /// The name behind an id, also for a while after its last entry went.
    pub fn name(&self, id: NameId) -> Option<&DomainName> {
        self.names.name(id)
    }

    /// What a sandbox holds, lapsed entries included.
    pub fn grants(&self, sandbox: SandboxId) -> impl Iterator<Item = Held> {
        let entries = self.sandboxes.get(&sandbox).map(|s| &s.entries);
        entries
            .into_iter()
            .flatten()
            .filter_map(|(key, entry)| self.describe(key, entry))
    }

    /// One entry, with the names that keep it.
    pub fn held(&self, key: &GrantKey) -> Option<Held> {
        let entry = self.sandboxes.get(&key.sandbox)?.entries.get(key)?;
        self.describe(key, entry)
    }

    fn describe(&self, key: &GrantKey, entry: &Entry) -> Option<Held> {
        let holds = entry.holds().iter();
        let names = holds.filter_map(|hold| self.names.name(hold.name));
        Some(Held {
            key: *key,
            grant: entry.grant()?,
            names: names.cloned().collect(),
        })
    }

    /// Everything that the kernel map should hold.
    pub fn entries(&self) -> impl Iterator<Item = (GrantKey, Grant)> {
        self.sandboxes
            .values()
            .flat_map(|s| &s.entries)
            .filter_map(|(key, entry)| Some((*key, entry.grant()?)))
    }

    /// How many entries there are, lapsed ones included.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Every name that is remembered, by its id.
    pub fn known_names(&self) -> impl Iterator<Item = (NameId, &DomainName)> {
        self.names.all()
    }

    /// How many names are remembered.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    pub(super) fn holdings(&self, sandbox: SandboxId) -> Option<&Holdings> {
        self.sandboxes.get(&sandbox)
    }

    pub(super) fn id(&self, name: &DomainName) -> Option<NameId> {
        self.names.id(name)
    }

    fn holds(&self, key: &GrantKey) -> &[Hold] {
        let entry = self
            .sandboxes
            .get(&key.sandbox)
            .and_then(|s| s.entries.get(key));
        entry.map_or(&[], Entry::holds)
    }

    /// Adds or renews one claim, making the entry if need be. Returns what the kernel map must
    /// hold.
    fn put(&mut self, key: GrantKey, hold: Hold, bound: usize) -> Option<Grant> {
        let holdings = self.sandboxes.entry(key.sandbox).or_default();
        let entry = holdings.entries.entry(key).or_default();
        let before = (!entry.holds().is_empty()).then(|| entry.expires());
        let known = entry.hold_of(hold.name).is_some();
        let forgotten = entry.put(hold, bound);
        let (after, grant) = (entry.expires(), entry.grant());
        if before != Some(after) {
            for order in [&mut self.order, &mut holdings.order] {
                if let Some(before) = before {
                    order.remove(&(before, key));
                }
                order.insert((after, key));
            }
        }
        holdings.by_name.entry(hold.name).or_default().insert(key);
        if !known {
            self.names.acquire(hold.name);
        }
        if let Some(name) = forgotten {
            holdings.unlink(name, &key);
            self.names.release(name);
        }
        grant
    }

    /// Takes claims from an entry and notes what that means for the kernel map.
    /// `take` returns the names whose claims ended.
    fn edit(
        &mut self,
        key: GrantKey,
        touched: &mut Touched,
        take: impl FnOnce(&mut Entry) -> Vec<NameId>,
    ) {
        let Some(holdings) = self.sandboxes.get_mut(&key.sandbox) else {
            return;
        };
        let Some(entry) = holdings.entries.get_mut(&key) else {
            return;
        };
        let before = (entry.expires(), entry.grant());
        let ended = take(entry);
        let after = (entry.expires(), entry.grant());
        for order in [&mut self.order, &mut holdings.order] {
            order.remove(&(before.0, key));
            if after.1.is_some() {
                order.insert((after.0, key));
            }
        }
        match after.1 {
            None => {
                holdings.entries.remove(&key);
                touched.0.insert(key, None);
            }
            Some(grant) if before.1 != Some(grant) => {
                touched.0.insert(key, Some(grant));
            }
            Some(_) => {}
        }
        for name in ended {
            holdings.unlink(name, &key);
            self.names.release(name);
        }
        if holdings.entries.is_empty() {
            self.sandboxes.remove(&key.sandbox);
        }
    }
}

impl Holdings {
    fn unlink(&mut self, name: NameId, key: &GrantKey) {
        if let Some(keys) = self.by_name.get_mut(&name) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }
}

/// Saturates after 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
