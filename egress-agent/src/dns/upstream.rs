//! The upstream resolvers: which is asked, for how long, and what next.

use super::cache::{Key, Lookup};
use super::chain::{ChainError, follow};
use super::counters::{Counters, count_many};
use super::exchange::{ExchangeError, exchange};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one that failed is asked last.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// How often all of them are tried before the deadline.
const ROUNDS: usize = 2;
/// More name servers than this in a `resolv.conf` are not read.
const MAX_UPSTREAMS: usize = 8;

/// Why no upstream gave a usable answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no upstream resolver is configured; name one with --upstream or in the configuration")]
    NoUpstream,
    #[error("no upstream resolver answered in time ({0})")]
    Silent(String),
    #[error("no upstream resolver gave a usable answer ({0})")]
    Unusable(String),
    #[error("the answer of {upstream} is not usable: {error}")]
    Chain {
        upstream: SocketAddr,
        error: ChainError,
    },
}

impl Failure {
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

/// The upstream resolvers in their order.
#[derive(Debug)]
pub(super) struct Upstreams {
    servers: Vec<Server>,
    patience: Patience,
    slots: Semaphore,
    began: Instant,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Milliseconds after `began` until which it is asked last.
    avoided_until: AtomicU64,
}

impl Upstreams {
    pub(super) fn new(
        servers: &[SocketAddr],
        patience: Patience,
        exchanges: usize,
        counters: Arc<Counters>,
    ) -> Self {
        let server = |address: &SocketAddr| Server {
            address: *address,
            avoided_until: AtomicU64::new(0),
        };
        Self {
            servers: servers.iter().map(server).collect(),
            patience,
            slots: Semaphore::new(exchanges),
            began: Instant::now(),
            counters,
        }
    }

    /// Asks one upstream after the other until one gives a usable answer. The
    /// name goes out exactly as it is; there is no search list.
    pub(super) async fn ask(&self, key: &Key) -> Result<Arc<Lookup>, Failure> {
        let mut troubles = Vec::new();
        match timeout(self.patience.total, self.rounds(key, &mut troubles)).await {
            Ok(result) => result,
            Err(_) => {
                if troubles.is_empty() {
                    troubles.push("the deadline passed".to_owned());
                }
                Err(Failure::Silent(troubles.join(", ")))
            }
        }
    }

    async fn rounds(&self, key: &Key, troubles: &mut Vec<String>) -> Result<Arc<Lookup>, Failure> {
        // Each exchange holds a socket; the bound keeps descriptors free.
        let Ok(_slot) = self.slots.acquire().await else {
            return Err(Failure::NoUpstream);
        };
        let mut silent = true;
        for _ in 0..ROUNDS {
            for server in self.preferred() {
                let asked = exchange(server.address, key, &self.counters);
                let error = match timeout(self.patience.attempt, asked).await {
                    Ok(Ok(message)) => {
                        server.avoided_until.store(0, Ordering::Relaxed);
                        return self.learn(key, server.address, &message);
                    }
                    Ok(Err(error)) => {
                        silent = false;
                        // A code is about the name, everything else about the server.
                        if !matches!(error, ExchangeError::Code(_)) {
                            self.avoid(server);
                        }
                        error.to_string()
                    }
                    Err(_) => {
                        self.avoid(server);
                        "no answer".to_owned()
                    }
                };
                let trouble = format!("{}: {error}", server.address);
                if !troubles.contains(&trouble) {
                    troubles.push(trouble);
                }
            }
        }
        Err(match (self.servers.is_empty(), silent) {
            (true, _) => Failure::NoUpstream,
            (false, true) => Failure::Silent(troubles.join(", ")),
            (false, false) => Failure::Unusable(troubles.join(", ")),
        })
    }

    fn learn(
        &self,
        key: &Key,
        upstream: SocketAddr,
        message: &hickory_proto::op::Message,
    ) -> Result<Arc<Lookup>, Failure> {
        let learned = follow(&key.name, key.query_type, message)
            .map_err(|error| Failure::Chain { upstream, error })?;
        if let super::chain::Learned::Records(chain) = &learned {
            count_many(&self.counters.unrelated, chain.unrelated);
        }
        Ok(Arc::new(Lookup {
            learned,
            received: Instant::now(),
            upstream,
        }))
    }

    /// In the configured order, those that failed lately at the end.
    fn preferred(&self) -> Vec<&Server> {
        let now = self.elapsed();
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        servers.sort_by_key(|server| now < server.avoided_until.load(Ordering::Relaxed));
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
