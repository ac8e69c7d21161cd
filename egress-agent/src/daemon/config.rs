//! The agent's configuration: what ops wrote, then what it means.

use super::evidence::{EvidenceConfig, EvidenceWire};
use super::feeds::{MetricsConfig, MetricsWire, SyslogConfig, SyslogWire};
use super::resolver_config::ResolverConfig;
use crate::alerts::{AlertsConfig, AlertsWire};
use crate::bundle::TrustedKey;
use ipnet::IpNet;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where the daemon looks unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/egress/agent.toml";

/// What stands in the file; every key is optional.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct Wire {
    root: Option<String>,
    policies: Option<Vec<PathBuf>>,
    state_directory: Option<PathBuf>,
    runtime_directory: Option<PathBuf>,
    socket: Option<PathBuf>,
    upstreams: Option<Vec<String>>,
    events_per_second: Option<u64>,
    count_bytes: Option<bool>,
    audit: EvidenceWire,
    dns: super::resolver_config::Wire,
    metrics: Option<MetricsWire>,
    syslog: Option<SyslogWire>,
    alerts: Option<AlertsWire>,
    watch: Option<bool>,
    bundle: Option<WireBundle>,
    sandbox_networks: Option<Vec<IpNet>>,
}

/// The table `[bundle]`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct WireBundle {
    keys: Vec<String>,
    file: Option<PathBuf>,
    name: Option<String>,
}

/// What the agent runs with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The governed root, relative to the cgroup2 mount.
    pub root: String,
    /// Policy files, and directories of them.
    pub policies: Vec<PathBuf>,
    /// What must survive a reboot: the audit store.
    pub state_directory: PathBuf,
    /// What must not: the control socket, the lock, what is known about sandboxes.
    pub runtime_directory: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Upstream resolvers in the order in which they are asked; empty means the
    /// host's `resolv.conf`.
    pub upstreams: Vec<SocketAddr>,
    /// Reports per second that one sandbox may cause before they are only counted.
    pub events_per_second: u64,
    /// Whether bytes that sandboxes send and receive are counted.
    pub count_bytes: bool,
    /// How the evidence is kept.
    pub audit: EvidenceConfig,
    /// How names are resolved.
    pub dns: ResolverConfig,
    /// Where metrics are offered; nowhere unless configured.
    pub metrics: Option<MetricsConfig>,
    /// Which syslog collector is fed; none unless configured.
    pub syslog: Option<SyslogConfig>,
    /// When somebody is told, and what is done.
    pub alerts: AlertsConfig,
    /// Whether policies are loaded again when their files change.
    pub watch: bool,
    /// Policies come as a signed bundle only.
    pub bundle: Option<BundleSettings>,
    /// What the networks of sandboxes that get one of their own are taken from; at
    /// most one of each family.
    pub sandbox_networks: Vec<IpNet>,
    /// An agent for one command: it runs the policies that it was given or
    /// nothing, keeps none for a later start, and speaks to no supervisor.
    pub ephemeral: bool,
}

/// Whose bundles are believed, and where the bundle in force lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BundleSettings {
    /// Not empty.
    pub keys: Vec<TrustedKey>,
    /// The bundle; its signatures lie beside it.
    pub file: PathBuf,
    /// The only name that is taken; if absent, that of the first bundle.
    pub name: Option<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// It is not TOML, or has a key that does not exist.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A value that cannot be meant.
    #[error("{path}: `{key}`: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Reads `10.0.0.53`, `10.0.0.53:5353`, `2001:db8::53` or `[2001:db8::53]:5353`.
pub fn upstream(text: &str) -> Result<SocketAddr, String> {
    const DNS: u16 = 53;
    text.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, DNS))
        .or_else(|_| text.parse())
        .map_err(|_| {
            format!("`{text}` is no address; write ADDRESS, or ADDRESS:PORT, or [IPV6]:PORT")
        })
}

/// As whoever has another working directory has to name it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "egress".into(),
            policies: vec!["/etc/egress/policies.d".into()],
            state_directory: "/var/lib/egress".into(),
            runtime_directory: "/run/egress".into(),
            socket: "/run/egress/agent.sock".into(),
            upstreams: Vec::new(),
            events_per_second: 2000,
            count_bytes: false,
            audit: EvidenceConfig::default(),
            dns: ResolverConfig::default(),
            metrics: None,
            syslog: None,
            alerts: AlertsConfig::default(),
            watch: false,
            bundle: None,
            sandbox_networks: vec![IpNet::new_assert(Ipv4Addr::new(100, 96, 0, 0).into(), 16)],
            ephemeral: false,
        }
    }
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(path, &text)
    }

    /// Reads this file; without one the usual file, or the defaults where that
    /// does not exist.
    pub fn load_or_default(path: Option<&Path>) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Self::load(path),
            None if Path::new(DEFAULT_FILE).exists() => Self::load(Path::new(DEFAULT_FILE)),
            None => Ok(Self::default()),
        }
    }

    /// The directories of keys, evidence and everything else that nobody but the
    /// agent has to see.
    pub(super) fn keeps(&self) -> Vec<PathBuf> {
        [&self.state_directory, &self.runtime_directory]
            .map(|path| absolute(path))
            .to_vec()
    }

    /// The files and directories that say what the agent enforces. Those of
    /// another `--config` than the usual one are the operator's to protect.
    pub(super) fn obeys(&self) -> Vec<PathBuf> {
        let usual = Path::new(DEFAULT_FILE).parent().map(Path::to_owned);
        let bundle = self.bundle.as_ref().map(|bundle| bundle.file.clone());
        let all = self.policies.iter().cloned().chain(usual).chain(bundle);
        all.map(|path| absolute(&path)).collect()
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wire: Wire = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let value = |key, problem| ConfigError::Value {
            path: path.to_owned(),
            key,
            problem,
        };
        let default = Self::default();
        let runtime_directory = wire.runtime_directory.unwrap_or(default.runtime_directory);
        let state_directory = wire.state_directory.unwrap_or(default.state_directory);
        let bundle = wire
            .bundle
            .map(|wire| bundle(wire, &state_directory))
            .transpose()
            .map_err(|problem| value("bundle", problem))?;
        let config = Self {
            root: wire.root.unwrap_or(default.root),
            policies: wire.policies.unwrap_or(default.policies),
            state_directory,
            socket: wire
                .socket
                .unwrap_or_else(|| runtime_directory.join("agent.sock")),
            runtime_directory,
            upstreams: wire
                .upstreams
                .unwrap_or_default()
                .iter()
                .map(|text| upstream(text).map_err(|problem| value("upstreams", problem)))
                .collect::<Result<_, _>>()?,
            events_per_second: wire.events_per_second.unwrap_or(default.events_per_second),
            count_bytes: wire.count_bytes.unwrap_or(default.count_bytes),
            audit: wire
                .audit
                .check()
                .map_err(|problem| value("audit", problem))?,
            dns: wire
                .dns
                .read()
                .map_err(|(key, problem)| value(key, problem))?,
            metrics: wire
                .metrics
                .map(MetricsWire::read)
                .transpose()
                .map_err(|(key, problem)| value(key, problem))?,
            syslog: wire
                .syslog
                .map(SyslogWire::read)
                .transpose()
                .map_err(|(key, problem)| value(key, problem))?,
            alerts: wire
                .alerts
                .unwrap_or_default()
                .read()
                .map_err(|(key, problem)| value(key, problem))?,
            watch: wire.watch.unwrap_or(default.watch),
            bundle,
            sandbox_networks: wire.sandbox_networks.unwrap_or(default.sandbox_networks),
            ephemeral: default.ephemeral,
        };
        if config.policies.is_empty() {
            return Err(value("policies", "an empty list would leave every sandbox without a policy; name files or directories".into()));
        }
        if config.events_per_second == 0 {
            return Err(value(
                "events_per_second",
                "0 would report nothing; write at least 1".into(),
            ));
        }
        check_networks(&config.sandbox_networks)
            .map_err(|problem| value("sandbox_networks", problem))?;
        for (key, directory) in [
            ("state_directory", &config.state_directory),
            ("runtime_directory", &config.runtime_directory),
        ] {
            if !directory.is_absolute() {
                return Err(value(
                    key,
                    format!("`{}` is no absolute path", directory.display()),
                ));
            }
        }
        Ok(config)
    }
}

/// Each sandbox takes four addresses of an IPv4 network and a /64 of an IPv6 one.
fn check_networks(networks: &[IpNet]) -> Result<(), String> {
    for network in networks {
        let most = if network.addr().is_ipv4() { 16 } else { 48 };
        if network.prefix_len() > most || network.trunc() != *network {
            return Err(format!(
                "`{network}` has to be a whole network of at most /{most}"
            ));
        }
    }
    let of_family = |v4: bool| networks.iter().filter(|n| n.addr().is_ipv4() == v4).count();
    if networks.is_empty() || of_family(true) > 1 || of_family(false) > 1 {
        return Err("write one IPv4 network, one IPv6 network, or both".into());
    }
    Ok(())
}

fn bundle(wire: WireBundle, state_directory: &Path) -> Result<BundleSettings, String> {
    if wire.keys.is_empty() {
        return Err(
            "an empty list of `keys` would believe nobody; name keys, or leave `[bundle]` out \
             to use loose files"
                .into(),
        );
    }
    let file = wire
        .file
        .unwrap_or_else(|| state_directory.join("bundle/policies.bundle"));
    if !file.is_absolute() {
        return Err(format!("`file`: `{}` is no absolute path", file.display()));
    }
    let keys = wire.keys.iter().map(|key| TrustedKey::parse(key));
    Ok(BundleSettings {
        keys: keys
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`keys`: {error}"))?,
        file,
        name: wire.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("agent.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("").expect("a config"), Config::default());
    }

    #[test]
    fn the_socket_follows_the_runtime_directory() {
        let config = parse("runtime_directory = \"/run/other\"").expect("a config");
        assert_eq!(config.socket, Path::new("/run/other/agent.sock"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        for (text, key) in [
            ("upstreams = [\"dns.example\"]", "`upstreams`"),
            ("policies = []", "`policies`"),
            ("events_per_second = 0", "`events_per_second`"),
            ("state_directory = \"here\"", "`state_directory`"),
            ("polices = []", "polices"),
            ("[syslog]\ntransport = \"smoke\"\nhost = \"a\"", "smoke"),
            (
                "[syslog]\ntransport = \"udp\"\nhost = \"a\"\nfacility = 24",
                "`syslog.facility`",
            ),
            (
                "[syslog]\ntransport = \"tls\"\nhost = \"a\"\nca_file = \"/nowhere\"",
                "`syslog.ca_file`",
            ),
            ("dns.queries_per_second = 0", "`dns.queries_per_second`"),
            ("dns.workers = 0", "`dns.workers`"),
            ("dns.worker = 1", "worker"),
            ("[metrics]\nlisten = \"0.0.0.0:9\"", "`metrics.listen`"),
            ("[metrics]\nlisten = \"unix:m.sock\"", "`metrics.listen`"),
            (
                "[metrics]\nlisten = \"[::1]:9\"\nsandbox_labels = 5000",
                "`metrics.sandbox_labels`",
            ),
            ("sandbox_networks = []", "`sandbox_networks`"),
            ("sandbox_networks = [\"10.1.0.0/24\"]", "`sandbox_networks`"),
            ("[bundle]\nkeys = []", "believe nobody"),
            ("[bundle]\nkeys = [\"ssh-rsa\"]", "`keys`"),
            ("[bundle]\nfile = \"/b\"", "keys"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn the_documentation_has_every_key() {
        let documented = include_str!("../../../docs/operations.md");
        let error = parse("nonsense = 1").expect_err("no such key");
        let (_, known) = error.split_once("expected one of").expect("the keys");
        let keys: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        assert!(keys.contains(&"root"), "{error}");
        let error = parse("dns.nonsense = 1").expect_err("no such key");
        let (_, known) = error.split_once("expected one of").expect("the keys");
        let in_table = known.split('`').skip(1).step_by(2);
        let in_table = in_table.map(|key| format!("dns.{key}"));
        let own = keys
            .into_iter()
            .filter(|key| *key != "dns")
            .map(str::to_owned);
        for key in own.chain(in_table) {
            assert!(
                documented.contains(&format!("| `{key}` |")),
                "docs/operations.md lacks `{key}`"
            );
        }
    }

    #[test]
    fn upstreams_may_leave_out_the_port() {
        assert_eq!(
            upstream("10.0.0.53"),
            Ok("10.0.0.53:53".parse().expect("an address"))
        );
        assert_eq!(
            upstream("[2001:db8::1]:5353"),
            Ok("[2001:db8::1]:5353".parse().expect("an address"))
        );
    }
}
