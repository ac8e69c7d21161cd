//! A private agent for the life of one command: a governed root, a state
//! directory, resolver ports and an audit file of its own, beside any daemon.

use super::agent::{Agent, Services};
use super::config::Config;
use super::error::AgentError;
use crate::enforcer::disarm_at;
use crate::sandbox::{GovernedRoot, Hierarchy, SandboxCgroup};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Where ephemeral agents keep their audit files, unless told otherwise.
const RUNS: &str = "/var/lib/egress/runs";
/// Runtime directories of ephemeral agents.
const RUNTIME: &str = "/run/egress/runs";
/// The governed roots of ephemeral agents.
const PREFIX: &str = "egress-run-";
/// Audit files of earlier runs that are kept.
const KEPT_RUNS: usize = 100;
/// How long the end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A private agent that runs.
pub struct Ephemeral {
    agent: Arc<Agent>,
    services: Services,
    run: JoinHandle<Result<(), crate::enforcer::EnforcerError>>,
    runtime: PathBuf,
}

impl Ephemeral {
    /// Starts one for a policy file.
    pub async fn start(
        policy: &Path,
        upstreams: Vec<SocketAddr>,
        state: Option<PathBuf>,
    ) -> Result<Self, AgentError> {
        let id = std::process::id();
        collect_leftovers(id);
        let runtime = Path::new(RUNTIME).join(id.to_string());
        let started = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let state = state.unwrap_or_else(|| Path::new(RUNS).join(format!("{started}-{id}")));
        let config = Config {
            root: format!("{PREFIX}{id}"),
            policies: vec![policy.to_owned()],
            state_directory: state,
            socket: runtime.join("agent.sock"),
            runtime_directory: runtime.clone(),
            upstreams,
            ephemeral: true,
            ..Config::default()
        };
        let root = config.root.clone();
        match Agent::start(config).await {
            Ok((agent, services)) => {
                let run = agent.begin();
                Ok(Self {
                    agent,
                    services,
                    run,
                    runtime,
                })
            }
            Err(error) => {
                // Nothing ran in it, so nothing is opened by taking it away.
                remove_root(&root);
                let _ = std::fs::remove_dir_all(&runtime);
                Err(error)
            }
        }
    }

    /// The agent.
    pub const fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Ends it and leaves nothing but the audit file, whose path is returned.
    pub async fn end(self) -> PathBuf {
        let audit = self.agent.store().path().to_owned();
        let root = self.agent.config().root.clone();
        self.agent.stop();
        if let Ok(Ok(Err(error))) = tokio::time::timeout(PATIENCE, self.run).await {
            tracing::error!(%error, "reports were lost at the end");
        }
        self.agent.close(self.services, PATIENCE).await;
        remove_root(&root);
        let _ = std::fs::remove_dir_all(&self.runtime);
        audit
    }
}

/// Takes away a governed root in which nothing runs any more. Where that is not
/// certain it stays, with everything in it judged as before.
fn remove_root(name: &str) {
    let Ok(hierarchy) = Hierarchy::find() else {
        return;
    };
    let Ok(root) = GovernedRoot::open(&hierarchy, name) else {
        return;
    };
    let emptied = root.sandboxes().and_then(|sandboxes| {
        sandboxes.iter().try_for_each(|sandbox| {
            let cgroup = SandboxCgroup::open(&root, sandbox)?;
            cgroup.kill(PATIENCE)?;
            cgroup.remove(PATIENCE)
        })
    });
    if let Err(error) = emptied {
        tracing::warn!(%error, "a sandbox of an ephemeral agent stays behind");
        return;
    }
    let disarmed = disarm_at(root.path());
    if let Err(error) = root.remove() {
        tracing::warn!(%error, "the governed root of an ephemeral agent stays behind");
        // Programs that could not be taken out go with their cgroup.
        if let Err(error) = disarmed {
            tracing::warn!(%error, "the programs of an ephemeral agent stay in force");
        }
    }
}

/// Collects what ephemeral agents that were killed left behind: their command
/// died with them, but the governed root and the runtime directory are there.
/// What an earlier process with this one's number left counts as well.
fn collect_leftovers(own: u32) {
    for entry in std::fs::read_dir(RUNTIME).into_iter().flatten().flatten() {
        let directory = entry.path();
        let Some(id) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        // One that starts right now may not hold its lock yet, so a process of
        // that number is left alone; a stranger's life only delays this.
        let lives = id != own.to_string() && Path::new("/proc").join(&id).exists();
        // Whoever holds the lock lives, even in another pid namespace. Where
        // there is none, its process was killed before it made anything else.
        let lock = File::open(directory.join("lock"));
        let held = lock
            .as_ref()
            .is_ok_and(|lock| flock(lock, FlockOperation::NonBlockingLockExclusive).is_err());
        if !lives && !held {
            remove_root(&format!("{PREFIX}{id}"));
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
    let mut runs: Vec<_> = std::fs::read_dir(RUNS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    runs.sort();
    let surplus = runs.len().saturating_sub(KEPT_RUNS);
    for old in runs.into_iter().take(surplus) {
        let _ = std::fs::remove_dir_all(old);
    }
}
