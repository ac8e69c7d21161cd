//! What an operator asks of a running agent, and the off switch.

use super::emergency::in_words;
use super::exit::{Exit, Problem};
use super::output::{Output, counted, print, print_json, table, to_the_second};
use crate::api::wire::{NewInterface, Status};
use crate::api::{Client, ClientError};
use crate::audit::Store;
use crate::enforcer::disarm_at;
use crate::model::{Record, RecordKind, Relaxation};
use crate::sandbox::{CgroupError, GovernedRoot, Hierarchy, SandboxCgroup};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Subcommand, Debug)]
pub enum SandboxCommand {
    /// List the sandboxes that run.
    List(ListArguments),
    /// Make a sandbox of what is behind an interface: a container or a microVM.
    Attach(AttachArguments),
    /// End the sandbox behind an interface, and let everything pass there.
    Detach(DetachArguments),
}

#[derive(Args, Debug)]
pub struct AttachArguments {
    /// The host's side of it: a veth, a tap or a bridge port.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// The policy by name; the one that applies to the interface or the sandbox if absent.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// The sandbox's name; the interface's if absent.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the sandbox may send from, again for each; the networks that the host
    /// has on the interface if absent.
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    addresses: Vec<String>,
    /// The sandbox's Ethernet address; that of its first good frame if absent.
    #[arg(long, value_name = "MAC")]
    mac: Option<String>,
}

#[derive(Args, Debug)]
pub struct DetachArguments {
    /// The sandbox's name.
    name: String,
}

#[derive(Args, Debug)]
pub struct ListArguments {
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct StatusArguments {
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct ReloadArguments {
    /// Return only when the policies are in force. That is always so; the flag
    /// is there to say it.
    #[arg(long)]
    wait: bool,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct DisarmArguments {
    /// The governed root, relative to the cgroup2 mount.
    #[arg(long, default_value = "egress")]
    root: String,
    /// Yes, nothing below the root shall be judged any more.
    #[arg(long)]
    yes: bool,
    /// Also while sandboxes run.
    #[arg(long)]
    force: bool,
    /// The directory of the audit store in which it is recorded.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/egress")]
    state: PathBuf,
}

/// Runs one request to the end.
pub(super) fn ask<T>(request: impl Future<Output = Result<T, ClientError>>) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Problem::failure)?;
    runtime.block_on(request).map_err(Problem::from)
}

pub fn sandbox(socket: &Path, command: SandboxCommand) -> Result<Exit, Problem> {
    let arguments = match command {
        SandboxCommand::List(arguments) => arguments,
        SandboxCommand::Attach(arguments) => return attach(socket, arguments),
        SandboxCommand::Detach(arguments) => {
            ask(Client::new(socket).remove(&arguments.name))?;
            return Ok(Exit::Ok);
        }
    };
    let sandboxes = ask(Client::new(socket).sandboxes())?;
    match arguments.output {
        Output::Json => print_json(&sandboxes)?,
        Output::Jsonl => {
            for sandbox in &sandboxes {
                let line = serde_json::to_string(sandbox).map_err(Problem::failure)?;
                print(&format!("{line}\n"))?;
            }
        }
        Output::Table if sandboxes.is_empty() => print("no sandbox runs\n")?,
        Output::Table => {
            let header = [
                "NAME",
                "POLICY",
                "MODE",
                "BEGAN",
                "PROCESSES",
                "GRANTS",
                "RELAXED",
            ];
            let rows = sandboxes.into_iter().map(|s| {
                let relaxed = if s.relaxations.is_empty() {
                    "no".into()
                } else {
                    s.relaxations.join("; ")
                };
                vec![
                    s.name,
                    s.policy,
                    s.mode,
                    to_the_second(&s.began),
                    s.processes.to_string(),
                    s.grants.to_string(),
                    relaxed,
                ]
            });
            print(&table(&header, rows))?;
        }
    }
    Ok(Exit::Ok)
}

fn attach(socket: &Path, arguments: AttachArguments) -> Result<Exit, Problem> {
    let wanted = NewInterface {
        interface: arguments.interface,
        name: arguments.name,
        policy: arguments.policy,
        addresses: arguments.addresses,
        mac: arguments.mac,
    };
    let created = ask(Client::new(socket).attach(&wanted))?;
    for relaxation in &created.relaxations {
        eprintln!("egressctl: relaxed: {relaxation}");
    }
    print(&format!("{}\n", created.name))?;
    Ok(Exit::Ok)
}

pub fn status(socket: &Path, arguments: &StatusArguments) -> Result<Exit, Problem> {
    let status = ask(Client::new(socket).status())?;
    match arguments.output {
        Output::Table => print(&status_text(&status))?,
        Output::Json | Output::Jsonl => print_json(&status)?,
    }
    Ok(Exit::Ok)
}

fn status_text(status: &Status) -> String {
    let mut text = format!(
        "{} (version {}, since {})\n  root       {}\n  started    {}\n  sandboxes  {}\n  resolver   {} asks {}\n  audit      {}: {} written, {} waiting, {} lost\n",
        status.state,
        status.version,
        to_the_second(&status.since),
        status.root.display(),
        status.started,
        status.sandboxes,
        status.resolver.join(", "),
        status.upstreams.join(", "),
        status.audit_file.display(),
        status.audit_written,
        status.audit_queued,
        status.audit_lost,
    );
    if let Some(error) = &status.audit_error {
        text.push_str(&format!("  audit error: {error}\n"));
    }
    if let Some(incident) = &status.emergency {
        text.push_str(&format!("  EMERGENCY  {}\n", in_words(incident)));
    }
    for warning in &status.warnings {
        text.push_str(&format!("  WARNING    {warning}\n"));
    }
    for (sandbox, points) in &status.relaxed {
        let points: Vec<_> = points.iter().map(Relaxation::to_string).collect();
        text.push_str(&format!("  relaxed    {sandbox}: {}\n", points.join(", ")));
    }
    text.push_str("policies in force:\n");
    for policy in &status.policies {
        text.push_str(&format!(
            "  {}  {}  {}  {}\n",
            policy.name,
            policy.mode,
            policy.digest.get(..12).unwrap_or(&policy.digest),
            policy.file.display()
        ));
        for relaxation in &policy.relaxations {
            text.push_str(&format!("    relaxation: {relaxation}\n"));
        }
    }
    if status.policies.is_empty() {
        text.push_str("  none: every sandbox would be refused\n");
    }
    text.push_str("counters, those that are not 0:\n");
    for (name, value) in &status.counters {
        if *value > 0 {
            text.push_str(&format!("  {name} {value}\n"));
        }
    }
    text
}

pub fn reload(socket: &Path, arguments: &ReloadArguments) -> Result<Exit, Problem> {
    let reloaded = ask(Client::new(socket).reload())?;
    match arguments.output {
        Output::Table => {
            eprint!("{}", reloaded.warnings);
            let names: Vec<_> = reloaded
                .policies
                .iter()
                .map(|policy| policy.name.as_str())
                .collect();
            let ended = reloaded.connections_ended;
            print(&format!(
                "in force: {}; {} ended\n",
                names.join(", "),
                counted(ended, "connection", "connections")
            ))?;
        }
        Output::Json | Output::Jsonl => print_json(&reloaded)?,
    }
    Ok(Exit::Ok)
}

pub fn disarm(socket: &Path, arguments: &DisarmArguments) -> Result<Exit, Problem> {
    if !arguments.yes {
        return Err(Problem::usage(
            "this takes enforcement out of force: everything below the root may then reach everything; add --yes",
        ));
    }
    // Only the agent of this root may be asked; another one's is none of ours.
    let programs = match ask(Client::new(socket).status()) {
        Ok(status) if status.root.ends_with(&arguments.root) => {
            ask(Client::new(socket).disarm(arguments.force))?.programs
        }
        Ok(_) => without_agent(arguments)?,
        Err(problem) if problem.exit() == Exit::NotReachable => without_agent(arguments)?,
        Err(problem) => return Err(problem),
    };
    print(&match programs {
        0 => format!("nothing was in force at `{}`\n", arguments.root),
        _ => format!("{programs} programs taken out of force\n"),
    })?;
    Ok(Exit::Ok)
}

/// An agent looks once a second whether its programs are there.
const AGENTS_LOOK: Duration = Duration::from_millis(1500);

/// Disarms a root whose agent is gone, and records it in the agent's store.
fn without_agent(arguments: &DisarmArguments) -> Result<usize, Problem> {
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(
            Exit::NotPermitted,
            "only root may disarm; use sudo",
        ));
    }
    let hierarchy = Hierarchy::find().map_err(Problem::failure)?;
    let root = match GovernedRoot::open(&hierarchy, &arguments.root) {
        Ok(root) => root,
        Err(CgroupError::Missing { .. }) => {
            return Err(Problem::failure(format!(
                "there is no governed root `{}`; nothing is in force there",
                arguments.root
            )));
        }
        Err(error) => return Err(Problem::failure(error)),
    };
    let mut running = Vec::new();
    for name in root.sandboxes().map_err(Problem::failure)? {
        let cgroup = SandboxCgroup::open(&root, &name).map_err(Problem::failure)?;
        if cgroup.populated().map_err(Problem::failure)? {
            running.push(name.to_string());
        }
    }
    if !running.is_empty() && !arguments.force {
        return Err(Problem::failure(format!(
            "sandboxes run below `{}`: {}; stop them first, or add --force to leave them without any limit",
            arguments.root,
            running.join(", ")
        )));
    }
    let programs = disarm_at(root.path()).map_err(Problem::failure)?;
    if programs > 0 {
        // An agent that listens elsewhere puts back what somebody took away.
        std::thread::sleep(AGENTS_LOOK);
        if disarm_at(root.path()).map_err(Problem::failure)? > 0 {
            return Err(Problem::failure(format!(
                "an agent of `{}` is running and puts the programs back; stop it, or name its `--socket`",
                arguments.root
            )));
        }
    }
    let recorded = record(
        &arguments.state.join("audit.db"),
        &arguments.root,
        programs,
        &running,
    );
    if let Err(problem) = recorded {
        // It is out of force already; that it could not be recorded must be told.
        eprintln!("egressctl: disarmed, but that could not be recorded: {problem}");
    }
    Ok(programs)
}

fn record(file: &Path, root: &str, programs: usize, running: &[String]) -> Result<(), String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let store = Store::open(file).await.map_err(|error| error.to_string())?;
        let mut record = Record::new(Timestamp::now(), RecordKind::Agent);
        record.user = Some(rustix::process::getuid().as_raw());
        record.detail = Some(format!(
            "disarmed `{root}` without an agent: {programs} programs taken out of force; running: {}",
            if running.is_empty() { "nothing".into() } else { running.join(", ") }
        ));
        store.recorder().record(record);
        store.close(PATIENCE).await.map_err(|error| error.to_string())
    })
}
