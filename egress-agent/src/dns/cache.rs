//! What upstreams said lately, shared by all sandboxes.
//!
//! It holds facts, never decisions: a hit is judged, screened and opened anew
//! for the sandbox that asks.

use super::chain::Learned;
use crate::model::DomainName;
use hickory_proto::rr::RecordType;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is asked of an upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) name: DomainName,
    pub(super) query_type: RecordType,
    /// Among whose upstreams: the same name can mean something else there.
    pub(super) view: Option<Arc<str>>,
}

/// In few writes: a cold name is hashed six times. The view is left out, since few names
/// are asked in several.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.name.as_str().as_bytes());
        state.write_u16(self.query_type.into());
    }
}

/// One upstream answer.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) learned: Learned,
    pub(super) received: Instant,
    pub(super) upstream: Arc<str>,
    /// Whether its time was over when it was taken out of the cache.
    pub(super) is_stale: bool,
}

/// The time to live of an answer whose time is over (RFC 8767 section 4).
const STALE_TTL: Duration = Duration::from_secs(30);
/// The part of its life in which an answer that is asked for is asked for anew,
/// and the shortest life for which that is worth a query.
const LAST_PART: u32 = 10;
const WORTH_REFRESHING: Duration = Duration::from_secs(10);

impl Lookup {
    /// How long the answer was good when it came.
    pub(super) fn lifetime(&self) -> Duration {
        match &self.learned {
            Learned::Records(chain) => chain.ttl,
            Learned::Nothing { ttl, .. } => *ttl,
        }
    }

    /// After how long it is to be asked for anew, if somebody asks for it.
    pub(super) fn refresh_after(&self) -> Option<Duration> {
        let lifetime = self.lifetime();
        (lifetime >= WORTH_REFRESHING).then(|| lifetime - lifetime / LAST_PART)
    }

    /// The same, to be told although its time is over.
    fn stale(&self, now: Instant) -> Self {
        let mut learned = self.learned.clone();
        match &mut learned {
            Learned::Records(chain) => chain.ttl = STALE_TTL,
            Learned::Nothing { ttl, .. } => *ttl = STALE_TTL,
        }
        Self {
            learned,
            received: now,
            upstream: Arc::clone(&self.upstream),
            is_stale: true,
        }
    }

    /// How much longer the answer is good. Age counts in whole seconds, like TTLs.
    pub(super) fn remaining(&self, now: Instant) -> Duration {
        let ttl = self.lifetime();
        let age = now.saturating_duration_since(self.received);
        ttl.saturating_sub(Duration::from_secs(age.as_secs()))
    }
}

/// A bounded map by expiry. When it is full the answer that expires first goes.
#[derive(Debug)]
pub(super) struct Cache {
    bound: usize,
    /// How long an answer is kept after its time, for when nobody else answers.
    keep_stale: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lookups: HashMap<Arc<Key>, Kept>,
    /// By expiry; the number tells entries of one moment apart.
    order: BTreeMap<(Instant, u64), Arc<Key>>,
    next: u64,
}

#[derive(Debug)]
struct Kept {
    lookup: Arc<Lookup>,
    expires: Instant,
    number: u64,
    is_refreshing: bool,
}

impl Cache {
    pub(super) fn new(bound: usize, keep_stale: Duration) -> Self {
        Self {
            bound,
            keep_stale,
            inner: Mutex::new(Inner::default()),
        }
    }

    /// An answer that is still good.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<Arc<Lookup>> {
        let inner = self.lock();
        let kept = inner.lookups.get(key)?;
        (now < kept.expires).then(|| Arc::clone(&kept.lookup))
    }

    /// An answer that was good until lately.
    pub(super) fn find_stale(&self, key: &Key, now: Instant) -> Option<Arc<Lookup>> {
        if self.keep_stale.is_zero() {
            return None;
        }
        let inner = self.lock();
        let kept = inner.lookups.get(key)?;
        let until = kept.expires.checked_add(self.keep_stale)?;
        (kept.expires <= now && now < until).then(|| Arc::new(kept.lookup.stale(now)))
    }

    /// Notes that an answer is being asked for anew; `false` if it is already, or
    /// is not there.
    pub(super) fn begin_refresh(&self, key: &Key) -> bool {
        let mut inner = self.lock();
        let kept = inner.lookups.get_mut(key);
        kept.is_some_and(|kept| !std::mem::replace(&mut kept.is_refreshing, true))
    }

    /// How many answers it holds.
    pub(super) fn len(&self) -> usize {
        self.lock().lookups.len()
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
        while inner.lookups.len() >= self.bound && !inner.lookups.contains_key(&key) {
            let Some((_, oldest)) = inner.order.pop_first() else {
                return;
            };
            inner.lookups.remove(&oldest);
        }
        let (key, number) = (Arc::new(key), inner.next);
        inner.next += 1;
        inner.order.insert((expires, number), Arc::clone(&key));
        let kept = Kept {
            lookup,
            expires,
            number,
            is_refreshing: false,
        };
        if let Some(before) = inner.lookups.insert(key, kept) {
            inner.order.remove(&(before.expires, before.number));
        }
    }

    /// A poisoned lock is taken as it is: each change below leaves the two
    /// collections in step, or at worst loses an entry.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key {
            view: None,
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
            upstream: "127.0.0.1:53".into(),
            is_stale: false,
        })
    }

    #[test]
    fn an_answer_is_found_until_it_expires() {
        let (cache, now) = (Cache::new(8, Duration::from_secs(60)), Instant::now());
        cache.keep(key(1), lookup(now, 10), now);
        cache.keep(key(2), lookup(now, 0), now);
        let later = |seconds| now + Duration::from_secs(seconds);
        let found = cache.find(&key(1), later(9)).expect("still good");
        assert_eq!(found.remaining(later(9)), Duration::from_secs(1));
        assert!(cache.find(&key(1), later(10)).is_none());
        let stale = cache
            .find_stale(&key(1), later(69))
            .expect("kept for a minute more");
        assert!(stale.is_stale && stale.remaining(later(69)) == STALE_TTL);
        assert!(cache.find_stale(&key(1), later(70)).is_none());
        assert!(cache.find_stale(&key(1), later(9)).is_none(), "still good");
        assert!(cache.find(&key(2), now).is_none(), "TTL 0 is not kept");
    }

    #[test]
    fn the_bound_holds_and_the_soonest_to_expire_goes() {
        let (cache, now) = (Cache::new(3, Duration::ZERO), Instant::now());
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
