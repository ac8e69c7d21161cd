//! Where an answer comes from: static entries, the cache, an upstream, or, when
//! all upstreams fail, what the cache knew before.

use super::cache::{Cache, Key, Lookup};
use super::chain::Learned;
use super::coalesce::InFlight;
use super::counters::{Counters, count};
use super::hosts::Hosts;
use super::special;
use super::upstream::{Failure, Upstreams};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a client waits for upstreams where something old could be said
/// instead (RFC 8767 section 5).
const BEFORE_STALE: Duration = Duration::from_millis(1800);

/// How long it may be believed that a name is for this network alone.
const LOCAL_TTL: Duration = Duration::from_secs(300);

/// All sources of answers.
#[derive(Debug)]
pub(super) struct Lookups {
    pub(super) hosts: Hosts,
    pub(super) cache: Cache,
    pub(super) in_flight: InFlight,
    pub(super) upstreams: Upstreams,
    /// Whether what is asked for when it is about to expire is asked for anew.
    pub(super) prefetch: bool,
    pub(super) counters: Arc<Counters>,
}

impl Lookups {
    /// What is known without asking anybody. `is_named` says whether a rule names it.
    pub(super) fn known(&self, key: &Key, is_named: bool, now: Instant) -> Option<Arc<Lookup>> {
        self.own(key, is_named, now)
            .or_else(|| self.cache.find(key, now))
    }

    /// What no upstream is asked for.
    pub(super) fn own(&self, key: &Key, is_named: bool, now: Instant) -> Option<Arc<Lookup>> {
        self.hosts
            .find(key, now)
            .or_else(|| self.local(key, is_named, now))
    }

    /// Asks upstreams although something may be known.
    pub(super) async fn ask_anew(&self, key: &Key) -> Result<Arc<Lookup>, Failure> {
        self.ask_now(key, true).await
    }

    /// "No such name", for a name that no public server can know, unless an
    /// upstream is there for it.
    fn local(&self, key: &Key, is_named: bool, now: Instant) -> Option<Arc<Lookup>> {
        let document = special::is_local(&key.name, is_named)?;
        if self.upstreams.have_domain_of(key) {
            return None;
        }
        Some(Arc::new(Lookup {
            learned: Learned::Nothing {
                no_such_name: true,
                ttl: LOCAL_TTL,
            },
            received: now,
            upstream: format!("nobody ({document})").into(),
            is_stale: false,
        }))
    }

    /// Asks upstreams; once for all who ask the same meanwhile.
    pub(super) async fn ask(&self, key: &Key) -> Result<Arc<Lookup>, Failure> {
        let Some(stale) = self.cache.find_stale(key, Instant::now()) else {
            return self.ask_now(key, false).await;
        };
        // Nobody waits again for those who were silent a moment ago.
        let patience = if self.upstreams.have_failed(key) {
            Duration::ZERO
        } else {
            BEFORE_STALE
        };
        match timeout(patience, self.ask_now(key, false)).await {
            Ok(Ok(lookup)) => Ok(lookup),
            Ok(Err(_)) | Err(_) => {
                count(&self.counters.stale);
                Ok(stale)
            }
        }
    }

    /// `anew` asks although something is known.
    async fn ask_now(&self, key: &Key, anew: bool) -> Result<Arc<Lookup>, Failure> {
        // Boxed: whoever joins is moved together with what it would ask.
        let ask = Box::pin(async {
            // Whoever looked before the last answer came finds it here.
            if let Some(known) = self.cache.find(key, Instant::now()).filter(|_| !anew) {
                return Ok(known);
            }
            let lookup = self.upstreams.ask(key).await?;
            self.cache.keep(key.clone(), lookup.clone(), Instant::now());
            Ok(lookup)
        });
        self.in_flight.join(key, ask).await
    }

    /// Asks for a name anew in the background, because somebody asked for it
    /// shortly before its time was over.
    pub(super) fn refresh(self: &Arc<Self>, key: Key) {
        if !self.cache.begin_refresh(&key) {
            return;
        }
        count(&self.counters.prefetched);
        let lookups = Arc::clone(self);
        tokio::spawn(async move {
            // A failure shows when the old answer is over.
            let _ = lookups.ask_now(&key, true).await;
        });
    }
}
