//! `egressctl run`: a command in a sandbox, as a child of this process.

use super::attribution::AttributionArguments;
use super::exit::{Exit, Problem};
use super::interruption::Interruption;
use crate::api::Client;
use crate::api::wire::{Created, Failure, NewSandbox};
use crate::daemon::{AgentError, Ephemeral, upstream};
use crate::model::SandboxName;
use crate::sandbox::view::resolv_conf;
use crate::sandbox::{
    Caller, ChosenUser, Ending, GovernedRoot, Hierarchy, LaunchError, LaunchSpec, SandboxCgroup,
    environment, launch,
};
use clap::Args;
use egress_common::SandboxId;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

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
    #[command(flatten)]
    attribution: AttributionArguments,
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
    };
    let result = match tokio::task::block_in_place(|| agent.create_sandbox(&wanted)) {
        Ok(created) => {
            let name = created.name.clone();
            let result = match interruption.exit_code().await {
                None => tokio::task::block_in_place(|| start(&created, &arguments)),
                Some(code) => Ok(Exit::Command(code)),
            };
            if let Err(failure) = tokio::task::block_in_place(|| agent.remove_sandbox(&name)) {
                eprintln!("egressctl: {}", failure.message);
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
    let client = Client::new(socket);
    let wanted = NewSandbox {
        name: arguments.name.clone(),
        policy: arguments.policy.clone(),
        owner: std::process::id(),
        attribution: arguments.attribution.clone().into(),
    };
    let created = client.create(&wanted).await?;
    let result = match interruption.exit_code().await {
        None => tokio::task::block_in_place(|| start(&created, &arguments)),
        Some(code) => Ok(Exit::Command(code)),
    };
    if let Err(error) = client.remove(&created.name).await {
        // The agent collects it, once this process is gone.
        eprintln!("egressctl: {error}");
    }
    result
}

fn refused(failure: Failure) -> Problem {
    Problem::from(crate::api::ClientError::Refused(failure))
}

/// Starts the command in the sandbox and waits for its end.
fn start(created: &Created, arguments: &RunArguments) -> Result<Exit, Problem> {
    let hierarchy = Hierarchy::find().map_err(Problem::failure)?;
    let root = GovernedRoot::open(&hierarchy, &created.root).map_err(Problem::failure)?;
    let name = SandboxName::parse(&created.name).map_err(Problem::failure)?;
    let cgroup = SandboxCgroup::open(&root, &name).map_err(Problem::failure)?;
    let chosen = ChosenUser::choose(
        created.user.as_deref(),
        &Caller::of_this_process(),
        SandboxId(created.id),
    )
    .map_err(Problem::failure)?;
    let spec = LaunchSpec {
        command: arguments.command.clone(),
        environment: environment::build(std::env::vars_os(), &chosen.user, &arguments.env)
            .map_err(Problem::usage)?,
        user: chosen.user,
        directory: None,
        // Any address does: port 53 is brought to the agent's resolver.
        resolv_conf: Some(resolv_conf(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        relaxed: created.relaxed.clone(),
        forward_signals: true,
    };
    let child = launch(&spec, &cgroup).map_err(|error| launch_problem(&error))?;
    let ending: Ending = child.wait().map_err(Problem::failure)?;
    Ok(Exit::Command(ending.exit_code()))
}

/// A command that is not there gives the codes that shells give.
fn launch_problem(error: &LaunchError) -> Problem {
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
