//! The product on this host: agent, policies, names, permissions.

use super::super::emergency::in_words;
use super::{Check, State};
use crate::api::wire::Status;
use crate::api::{Client, ClientError};
use crate::daemon::Config;
use crate::daemon::emergency::StateFile;
use crate::daemon::source::Source;
use crate::dns::host_upstreams;
use jiff::Timestamp;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How long a resolver may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn checks(socket: &Path, config: &Config) -> Vec<Check> {
    let mut checks = vec![agent(socket), policies(config), names(config)];
    let places = config
        .policies
        .iter()
        .map(|path| ("policies", path.as_path()))
        .chain([("state", config.state_directory.as_path())]);
    checks.extend(places.filter_map(|(name, path)| permissions(name, path)));
    checks.extend(supervisor(config));
    checks.extend(emergency(&config.state_directory));
    checks
}

/// The emergency block, from the file that an agent obeys: also without an agent.
fn emergency(state: &Path) -> Option<Check> {
    let incident = StateFile::within(state).read()?;
    Some(if rustix::process::geteuid().is_root() {
        Check::new(
            "emergency",
            State::Weak,
            in_words(&incident.into()),
            "no sandbox sends or receives anything, whatever policies say",
        )
    } else {
        Check::new(
            "emergency",
            State::Unknown,
            incident.reason,
            "run this as root",
        )
    })
}

fn status(socket: &Path) -> Result<Status, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(Client::new(socket).status()),
        Err(error) => Err(ClientError::NotReachable {
            path: socket.to_owned(),
            error,
        }),
    }
}

fn agent(socket: &Path) -> Check {
    match status(socket) {
        Ok(status) if status.warnings.is_empty() => Check::new(
            "agent",
            State::Good,
            format!("version {}, {}", status.version, status.state),
            "names resolve, and policies can be changed",
        ),
        Ok(status) => Check::new(
            "agent",
            State::Weak,
            status.warnings.join("; "),
            "it enforces; see `egressctl status`",
        ),
        Err(error @ ClientError::NotPermitted { .. }) => {
            Check::new("agent", State::Unknown, error, "run this as root")
        }
        Err(error) => Check::new(
            "agent",
            State::Weak,
            error,
            "what is in force stays in force; names do not resolve, and no sandbox starts",
        ),
    }
}

fn policies(config: &Config) -> Check {
    let read = Source::open(config).and_then(|mut source| source.read(Timestamp::now()));
    match read {
        Ok(loaded) => {
            let shadow = loaded
                .policies
                .iter()
                .filter(|policy| policy.mode == egress_common::Mode::Shadow);
            let shadow: Vec<&str> = shadow.map(|policy| policy.name.as_str()).collect();
            let count = loaded.policies.iter().count();
            if shadow.is_empty() {
                Check::new(
                    "policy",
                    State::Good,
                    format!("{count} from {}", loaded.from),
                    "they can come into force",
                )
            } else {
                Check::new(
                    "policy",
                    State::Weak,
                    format!("in shadow mode: {}", shadow.join(", ")),
                    "their sandboxes reach everything; what would be refused is only recorded",
                )
            }
        }
        Err(problems) => Check::new(
            "policy",
            State::Weak,
            problems
                .iter()
                .map(|problem| problem.message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
            "a reload refuses them; a start uses the last good ones, or refuses",
        ),
    }
}

/// Asks the resolvers for the name servers of the root, which every one of them
/// can say.
fn names(config: &Config) -> Check {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let upstreams = if config.upstreams.is_empty() {
        host_upstreams(&text)
    } else {
        config.upstreams.clone()
    };
    if upstreams.is_empty() {
        return Check::new(
            "dns",
            State::Broken,
            "/etc/resolv.conf names no resolver, and the configuration neither",
            "the agent does not start; set `upstreams`",
        );
    }
    let (answer, silent): (Vec<_>, Vec<_>) =
        upstreams.iter().partition(|upstream| answers(**upstream));
    let listed = |list: &[&SocketAddr]| {
        let list: Vec<_> = list.iter().map(ToString::to_string).collect();
        list.join(", ")
    };
    match (answer.is_empty(), silent.is_empty()) {
        (_, true) => Check::new(
            "dns",
            State::Good,
            format!("{} answer", listed(&answer)),
            "allowed names resolve through them, and through nothing else",
        ),
        (false, false) => Check::new(
            "dns",
            State::Weak,
            format!("no answer from {}", listed(&silent)),
            "each such resolver costs its time limit before the next is asked",
        ),
        (true, false) => Check::new(
            "dns",
            State::Weak,
            format!("no answer from {}", listed(&silent)),
            "no name resolves in any sandbox; networks in policies are not affected",
        ),
    }
}

fn answers(upstream: SocketAddr) -> bool {
    // RFC 1035: id, recursion desired, one question: `.`, NS, IN.
    const QUERY: [u8; 17] = [0xE6, 0x53, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let here = if upstream.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind(here)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(upstream)?;
        socket.send(&QUERY)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(length > 12 && answer[..2] == QUERY[..2])
    };
    ask().unwrap_or(false)
}

/// Whoever but root can write there decides what is allowed, or what is kept.
fn permissions(name: &'static str, path: &Path) -> Option<Check> {
    let about = std::fs::metadata(path).ok()?;
    let mode = about.mode() & 0o7777;
    let found = format!(
        "{} belongs to uid {} with mode {mode:o}",
        path.display(),
        about.uid()
    );
    Some(if about.uid() == 0 && mode & 0o022 == 0 {
        Check::new(
            name,
            State::Good,
            found,
            "only root can change what is in it",
        )
    } else {
        Check::new(
            name,
            State::Weak,
            found,
            "somebody else can change it, and with it what is allowed or recorded; give it to root, mode 0755 or 0700",
        )
    })
}

/// Under systemd a governed root that is no slice of it can be taken away.
fn supervisor(config: &Config) -> Option<Check> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let found = format!("systemd runs, and the root is `{}`", config.root);
    Some(if config.root.ends_with(".slice") {
        Check::new(
            "systemd",
            State::Good,
            found,
            "units can be put below the root with `Slice=`",
        )
    } else {
        Check::new(
            "systemd",
            State::Weak,
            found,
            "systemd does not know this cgroup, so no unit can be put there; use `root = \"egress.slice\"` and the package's units",
        )
    })
}
