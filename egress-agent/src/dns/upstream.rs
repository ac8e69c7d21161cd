//! The upstream resolvers: which is asked, for how long, and what next.

use super::cache::{Key, Lookup};
use super::chain::{ChainError, Learned, follow};
use super::counters::{Counters, count_many};
use super::endpoint::{Endpoint, Line};
use super::exchange::{ExchangeError, Manner, exchange};
use super::identity::IdentityError;
use super::incoming::Answer;
use super::sockets::Sockets;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;

/// How long one that failed is asked last.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// How often all of them are tried before the deadline.
const ROUNDS: usize = 2;
/// More name servers than this in a `resolv.conf` are not read.
const MAX_UPSTREAMS: usize = 8;

/// Why no upstream gave a usable answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "no upstream resolver is configured for it; name one with --upstream or in the configuration"
    )]
    NoUpstream,
    #[error("no upstream resolver answered in time ({0})")]
    Silent(String),
    #[error("no upstream resolver gave a usable answer ({0})")]
    Unusable(String),
    #[error("the answer of {upstream} is not usable: {error}")]
    Chain {
        upstream: Arc<str>,
        error: ChainError,
    },
}

impl Failure {
    /// After the time for all of them.
    fn late(troubles: &[String]) -> Self {
        if troubles.is_empty() {
            return Self::Silent("the deadline passed".to_owned());
        }
        Self::Silent(troubles.join(", "))
    }

    /// RFC 8914: 22 no reachable authority, 23 network error.
    pub(super) fn extended_code(&self) -> u16 {
        match self {
            Self::NoUpstream | Self::Silent(_) => 22,
            Self::Unusable(_) | Self::Chain { .. } => 23,
        }
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) attempt: Duration,
    pub(super) total: Duration,
}

/// Which upstream is asked first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strategy {
    /// The first that is configured, as long as it answers.
    #[default]
    Order,
    /// The one that answered quickest lately.
    Fastest,
}

/// The upstream resolvers in their order.
#[derive(Debug)]
pub(super) struct Upstreams {
    servers: Vec<Server>,
    strategy: Strategy,
    patience: Patience,
    slots: Semaphore,
    began: Instant,
    manner: Manner,
    turns: AtomicU64,
}

#[derive(Debug)]
struct Server {
    endpoint: Endpoint,
    line: Line,
    label: Arc<str>,
    /// Milliseconds after `began` until which it is asked last.
    avoided_until: AtomicU64,
    /// Microseconds of an answer, a moving mean; 0 before the first.
    latency: AtomicU64,
}

/// One question in so many goes to another than the fastest, which may have become
/// the slower one.
const EXPLORE: u64 = 32;

impl Upstreams {
    pub(super) fn new(
        servers: &[Endpoint],
        (strategy, mixed_case): (Strategy, bool),
        patience: Patience,
        exchanges: usize,
        counters: Arc<Counters>,
    ) -> Result<Self, IdentityError> {
        let server = |endpoint: &Endpoint| {
            Ok(Server {
                endpoint: endpoint.clone(),
                line: endpoint.line()?,
                label: endpoint.to_string().into(),
                avoided_until: AtomicU64::new(0),
                latency: AtomicU64::new(0),
            })
        };
        Ok(Self {
            servers: servers.iter().map(server).collect::<Result<_, _>>()?,
            strategy,
            patience,
            slots: Semaphore::new(exchanges),
            began: Instant::now(),
            manner: Manner {
                mixed_case,
                counters,
                sockets: Sockets::default(),
            },
            turns: AtomicU64::new(0),
        })
    }

    /// Asks one upstream after the other until one gives a usable answer. The
    /// name goes out exactly as it is; there is no search list.
    pub(super) async fn ask(&self, key: &Key) -> Result<Arc<Lookup>, Failure> {
        let deadline = Instant::now() + self.patience.total;
        let mut troubles = Vec::new();
        let _slot = self.slot(deadline).await?;
        let mut silent = true;
        for _ in 0..ROUNDS {
            for server in self.preferred(key) {
                let begin = Instant::now();
                // One timer for both bounds: each costs every name that is asked for.
                let until = deadline.min(begin + self.patience.attempt);
                let asked = exchange((server.endpoint.address, &server.line), key, &self.manner);
                let error = match timeout_at(until.into(), asked).await {
                    Ok(Ok(answer)) => {
                        server.avoided_until.store(0, Ordering::Relaxed);
                        server.note(begin.elapsed());
                        return self.learn(key, &server.label, answer);
                    }
                    Ok(Err(error)) => {
                        silent = false;
                        // A code is about the name, everything else about the server.
                        if !matches!(error, ExchangeError::Code(_)) {
                            self.avoid(server);
                        }
                        error.to_string()
                    }
                    Err(_) if until == deadline => return Err(Failure::late(&troubles)),
                    Err(_) => {
                        self.avoid(server);
                        "no answer".to_owned()
                    }
                };
                let trouble = format!("{}: {error}", server.label);
                if !troubles.contains(&trouble) {
                    troubles.push(trouble);
                }
            }
        }
        Err(match (self.preferred(key).is_empty(), silent) {
            (true, _) => Failure::NoUpstream,
            (false, true) => Failure::Silent(troubles.join(", ")),
            (false, false) => Failure::Unusable(troubles.join(", ")),
        })
    }

    /// Each exchange holds a socket; the bound keeps descriptors free.
    async fn slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        match timeout_at(deadline.into(), self.slots.acquire()).await {
            Ok(slot) => slot.map_err(|_| Failure::NoUpstream),
            Err(_) => Err(Failure::late(&[])),
        }
    }

    fn learn(
        &self,
        key: &Key,
        upstream: &Arc<str>,
        answer: Answer,
    ) -> Result<Arc<Lookup>, Failure> {
        let upstream = Arc::clone(upstream);
        let learned = match answer {
            Answer::Addresses(records) => Learned::addresses(records),
            Answer::Message(message) => match follow(&key.name, key.query_type, &message) {
                Ok(learned) => learned,
                Err(error) => return Err(Failure::Chain { upstream, error }),
            },
        };
        if let Learned::Records(chain) = &learned {
            count_many(&self.manner.counters.unrelated, chain.unrelated);
        }
        Ok(Arc::new(Lookup {
            learned,
            received: Instant::now(),
            upstream,
            is_stale: false,
        }))
    }

    /// Closes the sockets whose answers have come, and makes those that will be needed.
    pub(super) fn renew_sockets(&self) {
        self.manner.sockets.renew();
    }

    /// Whether nobody who is for the name has answered lately.
    pub(super) fn have_failed(&self, key: &Key) -> bool {
        let now = self.elapsed();
        let avoided = |server: &&Server| now < server.avoided_until.load(Ordering::Relaxed);
        self.preferred(key).iter().all(avoided)
    }

    /// Whether an upstream has the name for itself.
    pub(super) fn have_domain_of(&self, key: &Key) -> bool {
        self.of_view(key)
            .any(|server| server.endpoint.specificity(&key.name).is_some())
    }

    fn of_view(&self, key: &Key) -> impl Iterator<Item = &Server> {
        let is_of = |server: &&Server| server.endpoint.view == key.view;
        self.servers.iter().filter(is_of)
    }

    /// Those that are for the name, the best first, those that failed lately at
    /// the end. A name that an upstream has for itself is asked of nobody else,
    /// also when that one is gone: it may exist there only.
    fn preferred(&self, key: &Key) -> Vec<&Server> {
        let (now, name) = (self.elapsed(), &key.name);
        let best = self
            .of_view(key)
            .filter_map(|server| server.endpoint.specificity(name))
            .max();
        let is_for = |server: &&Server| match best {
            Some(best) => server.endpoint.specificity(name) == Some(best),
            None => server.endpoint.domains.is_empty(),
        };
        let mut servers: Vec<&Server> = self.of_view(key).filter(is_for).collect();
        let avoided = |server: &Server| now < server.avoided_until.load(Ordering::Relaxed);
        match self.strategy {
            Strategy::Order => servers.sort_by_key(|server| avoided(server)),
            Strategy::Fastest => {
                servers.sort_by_key(|server| {
                    (avoided(server), server.latency.load(Ordering::Relaxed))
                });
                let turn = self.turns.fetch_add(1, Ordering::Relaxed);
                if turn % EXPLORE == EXPLORE - 1 {
                    let usable = servers.iter().take_while(|server| !avoided(server)).count();
                    if let Some(usable) = servers.get_mut(..usable) {
                        usable.rotate_left((turn / EXPLORE) as usize % usable.len().max(1));
                    }
                }
            }
        }
        servers
    }

    fn avoid(&self, server: &Server) {
        let until = self.elapsed() + COOL_DOWN.as_millis() as u64;
        server.avoided_until.store(until, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

impl Server {
    /// Takes the time of an answer into the mean.
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = match self.latency.load(Ordering::Relaxed) {
            0 => took,
            before => (before.saturating_mul(7) + took) / 8,
        };
        self.latency.store(mean.max(1), Ordering::Relaxed);
    }
}

/// The name servers that a `resolv.conf` names, on port 53. Loopback stubs such
/// as `127.0.0.53` are fine: the agent is outside of every sandbox. Link-local
/// servers with an interface name (`fe80::1%eth0`) are left out, because their
/// number would have to be looked up; name them with `--upstream`.
pub fn host_upstreams(resolv_conf: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    };
    let mut found = Vec::new();
    for upstream in resolv_conf.lines().filter_map(address) {
        if !found.contains(&upstream) && found.len() < MAX_UPSTREAMS {
            found.push(upstream);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::host_upstreams;

    #[test]
    fn name_servers_are_read_and_everything_else_is_not() {
        let text = "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch example.com\n\
                    nameserver 127.0.0.53 # stub\n  nameserver\t2001:db8::1\nnameserver\n\
                    nameserver fe80::1%eth0\nnameserver 127.0.0.53\noptions edns0\n";
        let found: Vec<String> = host_upstreams(text).iter().map(|a| a.to_string()).collect();
        assert_eq!(found, ["127.0.0.53:53", "[2001:db8::1]:53"]);
        assert!(host_upstreams("").is_empty());
        assert_eq!(
            host_upstreams(&"nameserver 192.0.2.9\n".repeat(99)).len(),
            1
        );
    }
}
