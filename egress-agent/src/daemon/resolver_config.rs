//! The `[dns]` table of the agent's configuration.

use serde::Deserialize;

/// What stands in the table; every key is optional.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    queries_per_second: Option<u32>,
    workers: Option<usize>,
}

/// How the resolver runs on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolverConfig {
    /// DNS datagrams that one sandbox may send per second; the gate refuses the
    /// rest. Counted in tenths of a second.
    pub queries_per_second: u32,
    /// Threads that read datagrams; `None` lets the number of processors decide.
    pub workers: Option<usize>,
}

/// More threads than this only wait for each other.
const MOST_WORKERS: usize = 64;

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            queries_per_second: 5000,
            workers: None,
        }
    }
}

impl Wire {
    /// What the table means, or the key that cannot be meant and why.
    pub(super) fn read(self) -> Result<ResolverConfig, (&'static str, String)> {
        let standard = ResolverConfig::default();
        let config = ResolverConfig {
            queries_per_second: self
                .queries_per_second
                .unwrap_or(standard.queries_per_second),
            workers: self.workers,
        };
        if config.queries_per_second < 10 {
            let problem = "fewer than 10 would break ordinary programs".into();
            return Err(("dns.queries_per_second", problem));
        }
        if config.workers.is_some_and(|n| n == 0 || n > MOST_WORKERS) {
            return Err(("dns.workers", format!("write 1 to {MOST_WORKERS}")));
        }
        Ok(config)
    }
}
