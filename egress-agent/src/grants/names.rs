//! Numbers for names, because the kernel map has no room for text.

use crate::model::DomainName;
use egress_common::NameId;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Names that entries refer to, and some that they referred to until lately.
#[derive(Debug)]
pub(super) struct Names {
    by_name: HashMap<DomainName, NameId>,
    by_id: BTreeMap<NameId, Interned>,
    /// Names without references, oldest first. The kernel may still report a
    /// packet under one.
    retired: VecDeque<NameId>,
    keep_retired: usize,
    last: u32,
}

#[derive(Debug)]
struct Interned {
    name: DomainName,
    references: usize,
}

impl Names {
    pub(super) fn new(keep_retired: usize) -> Self {
        Self {
            by_name: HashMap::new(),
            by_id: BTreeMap::new(),
            retired: VecDeque::new(),
            keep_retired,
            last: 0,
        }
    }

    pub(super) fn name(&self, id: NameId) -> Option<&DomainName> {
        self.by_id.get(&id).map(|interned| &interned.name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (NameId, &DomainName)> {
        self.by_id
            .iter()
            .map(|(id, interned)| (*id, &interned.name))
    }

    pub(super) fn id(&self, name: &DomainName) -> Option<NameId> {
        self.by_name.get(name).copied()
    }

    /// The id of a name, a fresh one if it has none. `None` when all are used:
    /// an id is never given out twice, since old reports may carry it.
    pub(super) fn intern(&mut self, name: &DomainName) -> Option<NameId> {
        if let Some(id) = self.id(name) {
            return Some(id);
        }
        let id = NameId(self.last.checked_add(1)?);
        self.adopt(id, name.clone());
        self.retire(id);
        Some(id)
    }

    /// Takes an id over that an earlier agent gave out.
    pub(super) fn adopt(&mut self, id: NameId, name: DomainName) {
        self.reserve(id);
        self.by_name.insert(name.clone(), id);
        self.by_id.entry(id).or_insert(Interned {
            name,
            references: 0,
        });
    }

    /// Never gives this id out.
    pub(super) fn reserve(&mut self, id: NameId) {
        self.last = self.last.max(id.0);
    }

    pub(super) fn acquire(&mut self, id: NameId) {
        if let Some(interned) = self.by_id.get_mut(&id) {
            interned.references += 1;
        }
    }

    pub(super) fn release(&mut self, id: NameId) {
        let Some(interned) = self.by_id.get_mut(&id) else {
            return;
        };
        interned.references = interned.references.saturating_sub(1);
        if interned.references == 0 {
            self.retire(id);
        }
    }

    /// Queues a name without references for removal. One that is acquired again
    /// meanwhile is skipped when its turn comes.
    fn retire(&mut self, id: NameId) {
        self.retired.push_back(id);
        while self.retired.len() > self.keep_retired {
            let Some(oldest) = self.retired.pop_front() else {
                return;
            };
            let unused = |interned: &Interned| interned.references == 0;
            // The name that is being interned right now has no reference yet.
            if oldest != id && self.by_id.get(&oldest).is_some_and(unused) {
                self.forget(oldest);
            }
        }
    }

    fn forget(&mut self, id: NameId) {
        if let Some(interned) = self.by_id.remove(&id)
            && self.by_name.get(&interned.name) == Some(&id)
        {
            self.by_name.remove(&interned.name);
        }
    }

    /// How many names are known.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect("a name")
    }

    #[test]
    fn an_id_is_never_given_out_twice() {
        let mut names = Names::new(1);
        let first = names.intern(&name("a.example")).expect("an id");
        names.acquire(first);
        names.release(first);
        for text in ["b.example", "c.example", "d.example"] {
            let id = names.intern(&name(text)).expect("an id");
            assert_ne!(id, first);
            names.acquire(id);
            names.release(id);
        }
        assert_eq!(names.name(first), None, "it was forgotten");
        assert_ne!(names.intern(&name("a.example")), Some(first));
        assert!(names.len() <= 2);
    }

    #[test]
    fn the_last_id_is_given_out_and_then_none() {
        let mut names = Names::new(8);
        names.reserve(NameId(u32::MAX - 1));
        assert_eq!(names.intern(&name("a.example")), Some(NameId(u32::MAX)));
        assert_eq!(names.intern(&name("b.example")), None);
    }

    #[test]
    fn a_name_that_is_referred_to_is_never_forgotten() {
        let mut names = Names::new(0);
        let kept = names.intern(&name("a.example")).expect("an id");
        names.acquire(kept);
        for n in 0..10 {
            names.intern(&name(&format!("n{n}.example")));
        }
        assert_eq!(names.name(kept), Some(&name("a.example")));
    }
}
