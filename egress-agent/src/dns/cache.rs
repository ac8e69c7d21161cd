//! What upstreams said lately, shared by all sandboxes.
//!
//! It holds facts, never decisions: a hit is judged, screened and opened anew
//! for the sandbox that asks.

use super::chain::Learned;
use crate::model::DomainName;
use hickory_proto::rr::RecordType;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is asked of an upstream.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) name: DomainName,
    pub(super) query_type: RecordType,
}

/// One upstream answer.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) learned: Learned,
    pub(super) received: Instant,
    pub(super) upstream: SocketAddr,
}

impl Lookup {
    /// How much longer the answer is good. Age counts in whole seconds, like TTLs.
    pub(super) fn remaining(&self, now: Instant) -> Duration {
        let ttl = match &self.learned {
            Learned::Records(chain) => chain.ttl,
            Learned::Nothing { ttl, .. } => *ttl,
        };
        let age = now.saturating_duration_since(self.received);
        ttl.saturating_sub(Duration::from_secs(age.as_secs()))
    }
}

/// A bounded map by expiry. When it is full the answer that expires first goes.
#[derive(Debug)]
pub(super) struct Cache {
    bound: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lookups: HashMap<Key, (Arc<Lookup>, Instant, u64)>,
    /// By expiry; the number tells entries of one moment apart.
    order: BTreeSet<(Instant, u64)>,
    keys: HashMap<u64, Key>,
    next: u64,
}

impl Cache {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            bound,
            inner: Mutex::new(Inner::default()),
        }
    }

    /// An answer that is still good.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<Arc<Lookup>> {
        let inner = self.lock();
        let (lookup, expires, _) = inner.lookups.get(key)?;
        (now < *expires).then(|| lookup.clone())
    }

    /// Keeps an answer for as long as it is good; one with TTL 0 not at all.
    pub(super) fn keep(&self, key: Key, lookup: Arc<Lookup>, now: Instant) {
        let remaining = lookup.remaining(now);
        if remaining.is_zero() || self.bound == 0 {
            return;
        }
        let Some(expires) = now.checked_add(remaining) else {
            return;
        };
        let mut inner = self.lock();
        inner.remove(&key);
        while inner.lookups.len() >= self.bound {
            let Some((_, oldest)) = inner.order.first().copied() else {
                return;
            };
            let Some(oldest) = inner.keys.get(&oldest).cloned() else {
                return;
            };
            inner.remove(&oldest);
        }
        let number = inner.next;
        inner.next += 1;
        inner.order.insert((expires, number));
        inner.keys.insert(number, key.clone());
        inner.lookups.insert(key, (lookup, expires, number));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().lookups.len()
    }

    /// A poisoned lock is taken as it is: each change below leaves the three
    /// collections in step, or at worst loses an entry.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, key: &Key) {
        if let Some((_, expires, number)) = self.lookups.remove(key) {
            self.order.remove(&(expires, number));
            self.keys.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key {
            name: DomainName::parse(&format!("n{n}.example")).expect("a name"),
            query_type: RecordType::A,
        }
    }

    fn lookup(now: Instant, seconds: u64) -> Arc<Lookup> {
        Arc::new(Lookup {
            learned: Learned::Nothing {
                no_such_name: true,
                ttl: Duration::from_secs(seconds),
            },
            received: now,
            upstream: ([127, 0, 0, 1], 53).into(),
        })
    }

    #[test]
    fn an_answer_is_found_until_it_expires() {
        let (cache, now) = (Cache::new(8), Instant::now());
        cache.keep(key(1), lookup(now, 10), now);
        cache.keep(key(2), lookup(now, 0), now);
        let later = |seconds| now + Duration::from_secs(seconds);
        let found = cache.find(&key(1), later(9)).expect("still good");
        assert_eq!(found.remaining(later(9)), Duration::from_secs(1));
        assert!(cache.find(&key(1), later(10)).is_none());
        assert!(cache.find(&key(2), now).is_none(), "TTL 0 is not kept");
    }

    #[test]
    fn the_bound_holds_and_the_soonest_to_expire_goes() {
        let (cache, now) = (Cache::new(3), Instant::now());
        for n in 1..=5 {
            cache.keep(key(n), lookup(now, u64::from(n) * 10), now);
        }
        cache.keep(key(5), lookup(now, 100), now);
        assert_eq!(cache.len(), 3);
        let found: Vec<bool> = (1..=5)
            .map(|n| cache.find(&key(n), now).is_some())
            .collect();
        assert_eq!(found, [false, false, true, true, true]);
    }
}
