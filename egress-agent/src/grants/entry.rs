//! One key of the allow map, and every name that keeps it open.

use egress_common::{Grant, NameId, RuleId};

/// One name's claim on an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    pub(super) name: NameId,
    pub(super) rule: RuleId,
    pub(super) expires: u64,
}

/// Never empty while it is in the ledger. The hold that was written last stands last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    holds: Vec<Hold>,
}

impl Entry {
    /// What the kernel map must hold: open until the last claim ends, and
    /// attributed to the latest one.
    pub(super) fn grant(&self) -> Option<Grant> {
        let latest = self.holds.last()?;
        Some(Grant {
            expires: self.expires(),
            name: latest.name,
            rule: latest.rule,
        })
    }

    pub(super) fn expires(&self) -> u64 {
        self.holds.iter().map(|h| h.expires).max().unwrap_or(0)
    }

    pub(super) fn holds(&self) -> &[Hold] {
        &self.holds
    }

    pub(super) fn hold_of(&self, name: NameId) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.name == name)
    }

    /// Adds or renews a claim; a renewal never shortens it. Returns the name
    /// that had to be forgotten to stay within `bound`.
    pub(super) fn put(&mut self, mut hold: Hold, bound: usize) -> Option<NameId> {
        if let Some(old) = self.remove(hold.name) {
            hold.expires = hold.expires.max(old.expires);
        }
        let mut forgotten = None;
        // The latest expiry decides how long the entry stays open, so of two or
        // more the earliest can go without closing anything before its time.
        if self.holds.len() >= bound.max(2) {
            let shortest = self.holds.iter().min_by_key(|h| h.expires);
            forgotten = shortest.map(|hold| hold.name);
            forgotten.and_then(|name| self.remove(name));
        }
        self.holds.push(hold);
        forgotten
    }

    pub(super) fn remove(&mut self, name: NameId) -> Option<Hold> {
        let at = self.holds.iter().position(|hold| hold.name == name)?;
        Some(self.holds.remove(at))
    }

    /// Gives every claim its rule anew; `None` ends it. Returns the ended ones.
    pub(super) fn judge(&mut self, mut rule: impl FnMut(&Hold) -> Option<RuleId>) -> Vec<Hold> {
        let mut ended = Vec::new();
        self.holds.retain_mut(|hold| match rule(hold) {
            Some(rule) => {
                hold.rule = rule;
                true
            }
            None => {
                ended.push(*hold);
                false
            }
        });
        ended
    }
}
