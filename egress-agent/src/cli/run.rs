//! `egressctl run`: a command in a sandbox, as a child of this process.

use super::attribution::AttributionArguments;
use super::exit::{Exit, Problem};
use super::interruption::Interruption;
use super::output::print;
use super::sandbox::LOGS;
use super::supervise::{self, Errand, Health, Restart};
use crate::api::Client;
use crate::api::wire::{Created, Ended, Failure, NewNetwork, NewSandbox};
use crate::daemon::{AgentError, Ephemeral, upstream};
use crate::model::SandboxName;
use crate::sandbox::view::resolv_conf;
use crate::sandbox::{
    Caller, ChosenUser, Ending, GovernedRoot, Hierarchy, LaunchError, LaunchSpec, SandboxCgroup,
    Wire, environment, launch, launch_apart,
};
use clap::Args;
use egress_common::SandboxId;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How much later than the agent the launcher ends a command whose time is up:
/// its own clock is for the time without an agent.
pub const AGENTS_TURN: Duration = Duration::from_secs(1);

/// Where help lists the options of detached commands.
const DETACHED: &str = "Detached";

#[derive(Args, Debug)]
pub struct DetachArguments {
    /// Return when the command runs, and let a supervisor see to it.
    #[arg(short, long, help_heading = DETACHED, conflicts_with = "ephemeral")]
    detach: bool,
    /// When a command that has ended is started again; pauses grow to 4 s.
    #[arg(long, help_heading = DETACHED, value_enum, default_value_t, requires = "detach")]
    restart: Restart,
    /// At most so many new starts.
    #[arg(long, help_heading = DETACHED, value_name = "N", requires = "detach")]
    max_restarts: Option<u32>,
    /// A command for /bin/sh in the sandbox; a status other than 0 means that the
    /// command is not well.
    #[arg(long, help_heading = DETACHED, value_name = "COMMAND", requires = "detach")]
    health_command: Option<String>,
    /// The time between two runs of the health command, in seconds.
    #[arg(long, help_heading = DETACHED, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400), requires = "health_command")]
    health_interval: u64,
    /// The time that one may take, in seconds.
    #[arg(long, help_heading = DETACHED, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600), requires = "health_command")]
    health_timeout: u64,
    /// Failures in a row after which the command is killed.
    #[arg(long, help_heading = DETACHED, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), requires = "health_command")]
    health_retries: u32,
    /// The directory of the log.
    #[arg(long, help_heading = DETACHED, value_name = "DIR", default_value = LOGS, requires = "detach")]
    logs: PathBuf,
}

#[derive(Args, Debug)]
pub struct RunArguments {
    /// Bring up a private agent for the life of the command; needs no service.
    #[arg(long, requires = "policy")]
    ephemeral: bool,
    /// With --ephemeral a policy file, else the name of a policy that the agent
    /// has loaded.
    #[arg(long, value_name = "FILE|NAME")]
    policy: Option<String>,
    /// The sandbox's name; one is made up if absent.
    #[arg(long)]
    name: Option<String>,
    /// With --ephemeral: the resolver to ask, ADDRESS or ADDRESS:PORT; may be
    /// given more than once. The host's resolv.conf if absent.
    #[arg(long, value_name = "ADDRESS", requires = "ephemeral", value_parser = upstream)]
    upstream: Vec<SocketAddr>,
    /// With --ephemeral: where the audit file is kept.
    #[arg(long, value_name = "DIR", requires = "ephemeral")]
    state: Option<PathBuf>,
    /// Give the command a variable: NAME, with the caller's value, or NAME=VALUE.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Give the command a network namespace of its own, judged at its interface too:
    /// the strongest form, also for root inside. The host must forward packets.
    #[arg(long, conflicts_with = "detach")]
    netns: bool,
    #[command(flatten)]
    attribution: AttributionArguments,
    #[command(flatten)]
    detach: DetachArguments,
    /// Do not tell at the end where the records are.
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub fn run(socket: &Path, arguments: RunArguments) -> Result<Exit, Problem> {
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(
            Exit::NotPermitted,
            "making a sandbox needs root; use sudo, and the command still runs as you",
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Problem::failure)?;
    runtime.block_on(async {
        let interruption = Interruption::hold_back().map_err(Problem::failure)?;
        if arguments.ephemeral {
            ephemeral(arguments, interruption).await
        } else {
            under_an_agent(socket, arguments, interruption).await
        }
    })
}

async fn ephemeral(
    arguments: RunArguments,
    mut interruption: Interruption,
) -> Result<Exit, Problem> {
    let file = PathBuf::from(arguments.policy.clone().unwrap_or_default());
    let state = arguments.state.clone();
    let private = Ephemeral::start(&file, arguments.upstream.clone(), state).await?;
    let agent = private.agent();
    // The file holds one policy, so it is the one that is meant.
    let wanted = NewSandbox {
        name: arguments.name.clone(),
        policy: agent.only_policy(),
        owner: std::process::id(),
        attribution: arguments.attribution.clone().into(),
        own_network: arguments.netns,
    };
    let result = match tokio::task::block_in_place(|| agent.create_sandbox(&wanted)) {
        Ok(created) => {
            let name = created.name.clone();
            let result = match interruption.exit_code().await {
                None => {
                    let (agent, name) = (Arc::clone(agent), name.clone());
                    let runtime = tokio::runtime::Handle::current();
                    let wire: Wire = Box::new(move |process| {
                        let wanted = NewNetwork {
                            process: process.as_raw_nonzero().get().unsigned_abs(),
                        };
                        // This thread is in the namespace, where the host's interfaces
                        // are not, and so would be any that it started.
                        let (tell, told) = std::sync::mpsc::sync_channel(1);
                        runtime.spawn(async move {
                            let wired =
                                tokio::task::block_in_place(|| agent.wire_network(&name, &wanted));
                            // The launcher waits for exactly this.
                            let _ = tell.send(wired);
                        });
                        match told.recv() {
                            Ok(Ok(_)) => Ok(()),
                            Ok(Err(failure)) => Err(io::Error::other(failure.message)),
                            Err(gone) => Err(io::Error::other(gone)),
                        }
                    });
                    tokio::task::block_in_place(|| start(&created, &arguments, wire))
                }
                Some(code) => Ok(Exit::Command(code)),
            };
            match tokio::task::block_in_place(|| agent.remove_sandbox(&name)) {
                Ok(ended) => tell_over(&ended),
                Err(failure) => eprintln!("egressctl: {}", failure.message),
            }
            result
        }
        Err(failure) => Err(refused(failure)),
    };
    let audit = private.end().await;
    // Without a command there are no decisions to look at.
    if !arguments.quiet && result.is_ok() {
        eprintln!(
            "egressctl: the decisions stand in {0}; see `egressctl audit query --file {0}`",
            audit.display()
        );
    }
    result
}

async fn under_an_agent(
    socket: &Path,
    arguments: RunArguments,
    mut interruption: Interruption,
) -> Result<Exit, Problem> {
    if let Some(policy) = &arguments.policy
        && policy.contains('/')
    {
        return Err(Problem::usage(format!(
            "`--policy {policy}` is a path; an agent's policies are chosen by name (see `egressctl status`), \
             files are for `--ephemeral`"
        )));
    }
    if arguments.detach.detach {
        return detached(socket, arguments);
    }
    let client = Client::new(socket);
    let wanted = NewSandbox {
        name: arguments.name.clone(),
        policy: arguments.policy.clone(),
        owner: std::process::id(),
        attribution: arguments.attribution.clone().into(),
        own_network: arguments.netns,
    };
    let created = client.create(&wanted).await?;
    let result = match interruption.exit_code().await {
        None => {
            let (client, name) = (client.clone(), created.name.clone());
            let runtime = tokio::runtime::Handle::current();
            let wire: Wire = Box::new(move |process| {
                let wanted = NewNetwork {
                    process: process.as_raw_nonzero().get().unsigned_abs(),
                };
                let wired = runtime.block_on(client.give_network(&name, &wanted));
                wired.map(drop).map_err(io::Error::other)
            });
            tokio::task::block_in_place(|| start(&created, &arguments, wire))
        }
        Some(code) => Ok(Exit::Command(code)),
    };
    match client.remove(&created.name).await {
        Ok(ended) => tell_over(&ended),
        // The agent collects it, once this process is gone.
        Err(error) => eprintln!("egressctl: {error}"),
    }
    result
}

/// Lets a supervisor start the command, and tells where it runs.
fn detached(socket: &Path, arguments: RunArguments) -> Result<Exit, Problem> {
    let detach = arguments.detach;
    let health = detach.health_command.map(|command| Health {
        command,
        interval: detach.health_interval,
        timeout: detach.health_timeout,
        retries: detach.health_retries,
    });
    let errand = Errand {
        wanted: NewSandbox {
            name: arguments.name,
            policy: arguments.policy,
            owner: std::process::id(),
            attribution: arguments.attribution.into(),
            own_network: false,
        },
        command: arguments.command,
        env: arguments.env,
        directory: std::env::current_dir().map_err(Problem::failure)?,
        restart: detach.restart,
        max_restarts: detach.max_restarts,
        health,
        logs: detach.logs,
    };
    let (name, log) = supervise::start(socket, &errand)?;
    print(&format!("{name}\n"))?;
    if !arguments.quiet {
        eprintln!("egressctl: its output goes to {}", log.display());
    }
    Ok(Exit::Ok)
}

/// Says which limits ended the command: its status alone does not.
fn tell_over(ended: &Ended) {
    for limit in &ended.over {
        eprintln!("egressctl: the sandbox was stopped: {limit}");
    }
}

fn refused(failure: Failure) -> Problem {
    Problem::from(crate::api::ClientError::Refused(failure))
}

/// Starts the command in the sandbox and waits for its end. `wire` is for a network
/// namespace of its own.
fn start(created: &Created, arguments: &RunArguments, wire: Wire) -> Result<Exit, Problem> {
    let hierarchy = Hierarchy::find().map_err(Problem::failure)?;
    let root = GovernedRoot::open(&hierarchy, &created.root).map_err(Problem::failure)?;
    let name = SandboxName::parse(&created.name).map_err(Problem::failure)?;
    let cgroup = SandboxCgroup::open(&root, &name).map_err(Problem::failure)?;
    let spec = LaunchSpec {
        time: created
            .timeout_ms
            .map(|timeout| Duration::from_millis(timeout) + AGENTS_TURN),
        ..spec_of(created, &arguments.command, &arguments.env)?
    };
    let child = if arguments.netns {
        launch_apart(&spec, &cgroup, wire)
    } else {
        launch(&spec, &cgroup)
    };
    let child = child.map_err(|error| launch_problem(&error))?;
    let ending: Ending = child.wait().map_err(Problem::failure)?;
    Ok(Exit::Command(ending.exit_code()))
}

/// What is started in a sandbox, in the foreground unless the caller changes that.
pub fn spec_of(
    created: &Created,
    command: &[OsString],
    env: &[String],
) -> Result<LaunchSpec, Problem> {
    let chosen = ChosenUser::choose(
        created.user.as_deref(),
        &Caller::of_this_process(),
        SandboxId(created.id),
    )
    .map_err(Problem::failure)?;
    Ok(LaunchSpec {
        command: command.to_vec(),
        environment: environment::build(std::env::vars_os(), &chosen.user, env)
            .map_err(Problem::usage)?,
        user: chosen.user,
        directory: None,
        // Any address does: port 53 is brought to the agent's resolver.
        resolv_conf: Some(resolv_conf(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        relaxed: created.relaxed.clone(),
        forward_signals: true,
        time: None,
        disk: created.disk,
        seccomp: created.seccomp,
        hidden: created.hidden.clone(),
        read_only: created.read_only.clone(),
    })
}

/// A command that is not there gives the codes that shells give.
pub fn launch_problem(error: &LaunchError) -> Problem {
    let exit = match error {
        LaunchError::NotPermitted => Exit::NotPermitted,
        other => other.exit_code().map_or(Exit::Failure, Exit::Command),
    };
    Problem::new(exit, error)
}

impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        let exit = if error.is_configuration() {
            Exit::BadConfiguration
        } else if error.is_not_permitted() {
            Exit::NotPermitted
        } else {
            Exit::Failure
        };
        Self::new(exit, error)
    }
}
