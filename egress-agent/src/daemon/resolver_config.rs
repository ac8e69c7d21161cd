//! The `[dns]` table of the agent's configuration.

use crate::dns::{Endpoint, Hosts, Identity, Strategy, Transport};
use crate::model::{DomainName, DomainPattern, is_view_name};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What stands in the table; every key is optional.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    queries_per_second: Option<u32>,
    workers: Option<usize>,
    upstreams: Vec<UpstreamWire>,
    strategy: Option<String>,
    mixed_case: Option<bool>,
    attempt_timeout_ms: Option<u64>,
    deadline_ms: Option<u64>,
    cached_answers: Option<usize>,
    prefetch: Option<bool>,
    serve_stale_seconds: Option<u64>,
    hosts: BTreeMap<String, Vec<String>>,
    hosts_file: Option<PathBuf>,
}

/// One upstream.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct UpstreamWire {
    address: String,
    protocol: Option<String>,
    name: Option<String>,
    path: Option<String>,
    authorities: Option<PathBuf>,
    pins: Vec<String>,
    domains: Vec<String>,
    view: Option<String>,
}

/// How the resolver runs on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolverConfig {
    /// DNS datagrams that one sandbox may send per second; the gate refuses the
    /// rest. Counted in tenths of a second.
    pub queries_per_second: u32,
    /// Threads that read datagrams; `None` lets the number of processors decide.
    pub workers: Option<usize>,
    /// Upstreams beside those of the list `upstreams`.
    pub upstreams: Vec<Endpoint>,
    /// Which of them is asked first.
    pub strategy: Strategy,
    /// Whether plain questions are put in random letter case.
    pub mixed_case: bool,
    /// How long one may think.
    pub attempt_timeout: Duration,
    /// How long all of them may.
    pub deadline: Duration,
    /// Answers that are remembered.
    pub cached_answers: usize,
    /// Whether names that are in use are asked for again before their time is over.
    pub prefetch: bool,
    /// How long after its time an answer is told when no upstream answers.
    pub serve_stale: Duration,
    /// Static entries.
    pub hosts: Hosts,
    /// A file of more of them, in the form of `/etc/hosts`.
    pub hosts_file: Option<PathBuf>,
}

/// More threads than this only wait for each other.
const MOST_WORKERS: usize = 64;
/// RFC 8767 section 5 recommends one to three days.
const LONGEST_STALE: u64 = 3 * 86_400;
/// Clients give up after 5 s and should hear why.
const LONGEST_DEADLINE: u64 = 4900;

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            queries_per_second: 5000,
            workers: None,
            upstreams: Vec::new(),
            strategy: Strategy::Order,
            mixed_case: false,
            attempt_timeout: Duration::from_millis(1500),
            deadline: Duration::from_millis(4500),
            cached_answers: 16_384,
            prefetch: true,
            serve_stale: Duration::ZERO,
            hosts: Hosts::default(),
            hosts_file: None,
        }
    }
}

/// The key that cannot be meant, and why.
type Problem = (&'static str, String);

impl Wire {
    /// What the table means.
    pub(super) fn read(self) -> Result<ResolverConfig, Problem> {
        let standard = ResolverConfig::default();
        let milliseconds =
            |given: Option<u64>, otherwise| given.map_or(otherwise, Duration::from_millis);
        let config = ResolverConfig {
            queries_per_second: self
                .queries_per_second
                .unwrap_or(standard.queries_per_second),
            workers: self.workers,
            upstreams: self
                .upstreams
                .into_iter()
                .map(UpstreamWire::read)
                .collect::<Result<_, _>>()?,
            strategy: match self.strategy.as_deref() {
                None | Some("order") => Strategy::Order,
                Some("fastest") => Strategy::Fastest,
                Some(other) => {
                    let problem = format!("`{other}` is none of: order, fastest");
                    return Err(("dns.strategy", problem));
                }
            },
            mixed_case: self.mixed_case.unwrap_or(standard.mixed_case),
            attempt_timeout: milliseconds(self.attempt_timeout_ms, standard.attempt_timeout),
            deadline: milliseconds(self.deadline_ms, standard.deadline),
            cached_answers: self.cached_answers.unwrap_or(standard.cached_answers),
            prefetch: self.prefetch.unwrap_or(standard.prefetch),
            serve_stale: self
                .serve_stale_seconds
                .map_or(standard.serve_stale, Duration::from_secs),
            hosts: hosts(self.hosts)?,
            hosts_file: self.hosts_file,
        };
        config.check()?;
        Ok(config)
    }
}

impl ResolverConfig {
    fn check(&self) -> Result<(), Problem> {
        let out_of_bounds = |is_out: bool, key, problem: String| {
            if is_out { Err((key, problem)) } else { Ok(()) }
        };
        out_of_bounds(
            self.queries_per_second < 10,
            "dns.queries_per_second",
            "fewer than 10 would break ordinary programs".into(),
        )?;
        out_of_bounds(
            self.workers.is_some_and(|n| n == 0 || n > MOST_WORKERS),
            "dns.workers",
            format!("write 1 to {MOST_WORKERS}"),
        )?;
        out_of_bounds(
            self.attempt_timeout.is_zero() || self.attempt_timeout > self.deadline,
            "dns.attempt_timeout_ms",
            "write at least 1, and at most `deadline_ms`".into(),
        )?;
        out_of_bounds(
            self.deadline > Duration::from_millis(LONGEST_DEADLINE),
            "dns.deadline_ms",
            format!("write at most {LONGEST_DEADLINE}: clients give up after 5 s"),
        )?;
        out_of_bounds(
            self.serve_stale > Duration::from_secs(LONGEST_STALE),
            "dns.serve_stale_seconds",
            format!("write at most {LONGEST_STALE}, three days"),
        )?;
        out_of_bounds(
            self.cached_answers > 1_000_000,
            "dns.cached_answers",
            "write at most 1000000".into(),
        )
    }

    /// Every static entry, those of the file included.
    pub fn all_hosts(&self) -> Result<Hosts, String> {
        let mut hosts = self.hosts.clone();
        if let Some(path) = &self.hosts_file {
            let failed = |problem: String| format!("{}: {problem}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            hosts.add_file(&text).map_err(failed)?;
        }
        Ok(hosts)
    }
}

impl UpstreamWire {
    fn read(self) -> Result<Endpoint, Problem> {
        const KEY: &str = "dns.upstreams";
        let problem = |text: String| (KEY, text);
        let (port, is_secure) = match self.protocol.as_deref() {
            None | Some("plain") => (53, false),
            Some("tls") => (853, true),
            Some("https") => (443, true),
            Some(other) => {
                let text = format!("protocol `{other}` is none of: plain, tls, https");
                return Err(problem(text));
            }
        };
        if self.view.as_ref().is_some_and(|view| !is_view_name(view)) {
            let text = "`view` is 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`";
            return Err(problem(text.into()));
        }
        let address = self
            .address
            .parse::<IpAddr>()
            .map(|ip| SocketAddr::new(ip, port))
            .or_else(|_| self.address.parse())
            .map_err(|_| {
                problem(format!(
                    "`{}` is no address; write the address and not the name, which goes under `name`",
                    self.address
                ))
            })?;
        let is_https = self.protocol.as_deref() == Some("https");
        if self.path.is_some() && !is_https {
            return Err(problem("`path` is for `protocol = \"https\"`".into()));
        }
        let transport = if is_secure {
            let name = self.name.ok_or_else(|| {
                problem(format!(
                    "{address}: `name` is missing: what its certificate is for"
                ))
            })?;
            let identity = Identity {
                name,
                authorities: self.authorities,
                pins: self
                    .pins
                    .iter()
                    .map(|text| pin(text))
                    .collect::<Result<_, _>>()?,
            };
            let path = self.path.unwrap_or_else(|| "/dns-query".to_owned());
            if !path.starts_with('/') {
                return Err(problem(format!("path `{path}` does not begin with `/`")));
            }
            if is_https {
                Transport::Https(identity, path)
            } else {
                Transport::Tls(identity)
            }
        } else if self.name.is_some() || self.authorities.is_some() || !self.pins.is_empty() {
            let text = "`name`, `authorities` and `pins` are for `protocol = \"tls\"` or \"https\"";
            return Err(problem(text.into()));
        } else {
            Transport::Plain
        };
        let domain = |text: &String| {
            DomainPattern::parse(text).map_err(|error| problem(format!("`{text}`: {error}")))
        };
        Ok(Endpoint {
            address,
            transport,
            domains: self.domains.iter().map(domain).collect::<Result<_, _>>()?,
            view: self.view.map(Into::into),
        })
    }
}

/// Reads `sha256:` and 64 hexadecimal digits.
fn pin(text: &str) -> Result<[u8; 32], Problem> {
    let digits = text.strip_prefix("sha256:").unwrap_or_default().as_bytes();
    let mut pin = [0; 32];
    let is_read = digits.len() == 64
        && digits.chunks_exact(2).zip(&mut pin).all(|(pair, byte)| {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            let value = u8::from_str_radix(pair, 16).ok();
            *byte = value.unwrap_or_default();
            value.is_some() && pair.bytes().all(|b| b.is_ascii_hexdigit())
        });
    if is_read {
        return Ok(pin);
    }
    let problem = format!(
        "pin `{text}`: write `sha256:` and 64 hexadecimal digits, the SHA-256 of the public key \
         (SubjectPublicKeyInfo)"
    );
    Err(("dns.upstreams", problem))
}

fn hosts(wire: BTreeMap<String, Vec<String>>) -> Result<Hosts, Problem> {
    let mut hosts = Hosts::default();
    for (name, addresses) in wire {
        let problem = |text: String| ("dns.hosts", format!("`{name}`: {text}"));
        let own = DomainName::parse(&name).map_err(|error| problem(error.to_string()))?;
        if addresses.is_empty() {
            return Err(problem("it has no address".into()));
        }
        for address in addresses {
            let address = address
                .parse()
                .map_err(|_| problem(format!("`{address}` is no address")))?;
            hosts.add(own.clone(), address);
        }
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ResolverConfig, Problem> {
        toml::from_str::<Wire>(text).expect("a table").read()
    }

    #[test]
    fn upstreams_are_read_with_how_they_prove_themselves() {
        let pin = "ab".repeat(32);
        let text = format!(
            "[[upstreams]]\naddress = \"10.0.0.53\"\ndomains = [\"**.corp.example\"]\n\
             [[upstreams]]\naddress = \"192.0.2.1\"\nprotocol = \"tls\"\nname = \"dns.example\"\npins = [\"sha256:{pin}\"]\n\
             [[upstreams]]\naddress = \"[2001:db8::1]:8443\"\nprotocol = \"https\"\nname = \"dns.example\"\n"
        );
        let config = read(&text).expect("a configuration");
        let shown: Vec<String> = config.upstreams.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "10.0.0.53:53",
                "tls://192.0.2.1:853 (dns.example)",
                "https://[2001:db8::1]:8443/dns-query (dns.example)"
            ]
        );
        let Transport::Tls(identity) = &config.upstreams[1].transport else {
            panic!("{:?}", config.upstreams[1]);
        };
        assert_eq!(identity.pins, [[0xab; 32]]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        for (text, key) in [
            ("strategy = \"random\"", "dns.strategy"),
            ("attempt_timeout_ms = 0", "dns.attempt_timeout_ms"),
            ("attempt_timeout_ms = 4600", "dns.attempt_timeout_ms"),
            ("deadline_ms = 5000", "dns.deadline_ms"),
            ("serve_stale_seconds = 300000", "dns.serve_stale_seconds"),
            ("cached_answers = 2000000", "dns.cached_answers"),
            ("hosts = { \"a b\" = [\"10.0.0.1\"] }", "dns.hosts"),
            ("hosts = { a = [\"here\"] }", "dns.hosts"),
            ("hosts = { a = [] }", "dns.hosts"),
            (
                "upstreams = [{ address = \"dns.example\" }]",
                "dns.upstreams",
            ),
            (
                "upstreams = [{ address = \"10.0.0.1\", protocol = \"quic\" }]",
                "dns.upstreams",
            ),
            (
                "upstreams = [{ address = \"10.0.0.1\", protocol = \"tls\" }]",
                "dns.upstreams",
            ),
            (
                "upstreams = [{ address = \"10.0.0.1\", name = \"a.example\" }]",
                "dns.upstreams",
            ),
            (
                "upstreams = [{ address = \"10.0.0.1\", path = \"/q\" }]",
                "dns.upstreams",
            ),
            (
                "upstreams = [{ address = \"10.0.0.1\", domains = [\"*\"] }]",
                "dns.upstreams",
            ),
            (
                "upstreams = [{ address = \"10.0.0.1\", protocol = \"tls\", name = \"a\", pins = [\"sha256:00\"] }]",
                "dns.upstreams",
            ),
        ] {
            let (found, problem) = read(text).expect_err(text);
            assert_eq!(found, key, "{text}: {problem}");
        }
    }
}
