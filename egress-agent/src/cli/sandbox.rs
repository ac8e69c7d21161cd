//! `egressctl sandbox`: what runs, and what becomes of it.

use super::block::{self, BlockArguments};
use super::exit::{Exit, Problem};
use super::operate::ask;
use super::output::{Output, print, print_json, table, to_the_second};
use crate::api::Client;
use crate::api::wire::{Done, NewInterface, Sandbox, Stop};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the output of detached commands is kept.
pub const LOGS: &str = "/var/log/egress";

#[derive(Subcommand, Debug)]
pub enum SandboxCommand {
    /// List the sandboxes that run.
    List(ListArguments),
    /// Show all that is known of one.
    Show(ShowArguments),
    /// Hold everything in a sandbox where it stands.
    Pause(NameArguments),
    /// Let a paused sandbox go on.
    Resume(NameArguments),
    /// Ask a sandbox to end, and kill what is left after the grace.
    Stop(StopArguments),
    /// Make a sandbox of what is behind an interface: a container or a microVM.
    Attach(AttachArguments),
    /// End the sandbox behind an interface, and let everything pass there.
    Detach(DetachArguments),
    /// Refuse a sandbox everything, until it ends or is unblocked.
    Block(BlockArguments),
    /// Bring a blocked sandbox back under its policy.
    Unblock(BlockArguments),
    /// Print what a detached command has said.
    Logs(LogsArguments),
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
pub struct ShowArguments {
    /// The sandbox.
    name: String,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct NameArguments {
    /// The sandbox.
    name: String,
}

#[derive(Args, Debug)]
pub struct StopArguments {
    /// The sandbox.
    name: String,
    /// How long it may take to end by itself: `10s`, `500ms`, `2m`.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    grace: Duration,
}

#[derive(Args, Debug)]
pub struct LogsArguments {
    /// The sandbox; it may have ended.
    name: String,
    /// The directory of the logs.
    #[arg(long, value_name = "DIR", default_value = LOGS)]
    logs: PathBuf,
}

/// Reads `500ms`, `10s`, `2m` or `1h`.
pub fn time(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let total = number
        .parse::<u64>()
        .ok()
        .zip(milliseconds)
        .and_then(|(number, unit)| number.checked_mul(unit));
    total.map(Duration::from_millis).ok_or_else(|| {
        format!("`{text}` is no time; write a number with its unit, such as `10s` or `500ms`")
    })
}

pub fn run(socket: &Path, command: SandboxCommand) -> Result<Exit, Problem> {
    let client = Client::new(socket);
    match command {
        SandboxCommand::List(arguments) => list(&client, &arguments),
        SandboxCommand::Show(arguments) => show(&client, &arguments),
        SandboxCommand::Pause(arguments) => done(&ask(client.pause(&arguments.name))?),
        SandboxCommand::Resume(arguments) => done(&ask(client.resume(&arguments.name))?),
        SandboxCommand::Stop(arguments) => {
            let grace_ms = arguments.grace.as_millis().try_into().unwrap_or(u64::MAX);
            done(&ask(client.stop(&arguments.name, Stop { grace_ms }))?)
        }
        SandboxCommand::Attach(arguments) => attach(&client, arguments),
        SandboxCommand::Detach(arguments) => {
            ask(client.remove(&arguments.name))?;
            Ok(Exit::Ok)
        }
        SandboxCommand::Block(arguments) => block::run(socket, &arguments, true),
        SandboxCommand::Unblock(arguments) => block::run(socket, &arguments, false),
        SandboxCommand::Logs(arguments) => logs(&arguments),
    }
}

fn attach(client: &Client, arguments: AttachArguments) -> Result<Exit, Problem> {
    let wanted = NewInterface {
        interface: arguments.interface,
        name: arguments.name,
        policy: arguments.policy,
        addresses: arguments.addresses,
        mac: arguments.mac,
    };
    let created = ask(client.attach(&wanted))?;
    for relaxation in &created.relaxations {
        eprintln!("egressctl: relaxed: {relaxation}");
    }
    print(&format!("{}\n", created.name))?;
    Ok(Exit::Ok)
}

fn done(done: &Done) -> Result<Exit, Problem> {
    let took = Duration::from_micros(done.took_us);
    print(&format!("{} ({took:?})\n", done.what))?;
    Ok(Exit::Ok)
}

fn list(client: &Client, arguments: &ListArguments) -> Result<Exit, Problem> {
    let sandboxes = ask(client.sandboxes())?;
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
                "STATE",
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
                    s.state,
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

fn show(client: &Client, arguments: &ShowArguments) -> Result<Exit, Problem> {
    let sandbox = ask(client.sandbox(&arguments.name))?;
    match arguments.output {
        Output::Table => print(&text(&sandbox))?,
        Output::Json | Output::Jsonl => print_json(&sandbox)?,
    }
    Ok(Exit::Ok)
}

fn text(sandbox: &Sandbox) -> String {
    let mut text = format!("{}\n", sandbox.name);
    let mut line = |key: &str, value: String| text.push_str(&format!("  {key:<11} {value}\n"));
    line(
        "state",
        format!("{}, {} processes", sandbox.state, sandbox.processes),
    );
    line("policy", format!("{} ({})", sandbox.policy, sandbox.mode));
    line("began", to_the_second(&sandbox.began));
    if let Some(left) = sandbox.time_left_ms {
        line("time left", format!("{:?}", Duration::from_millis(left)));
    }
    line("used", sandbox.used.clone());
    line("owner", format!("process {}", sandbox.owner));
    if let Some(progress) = &sandbox.progress {
        line("starts", progress.starts.to_string());
        if let Some(ending) = &progress.last_ending {
            line("last ending", ending.clone());
        }
        if let Some(health) = &progress.health {
            line("health", health.clone());
        }
        line("log", progress.log.display().to_string());
    }
    for relaxation in &sandbox.relaxations {
        line("relaxed", relaxation.clone());
    }
    let said = &sandbox.attribution;
    let named = [
        ("task", &said.task),
        ("session", &said.session),
        ("project", &said.project),
        ("user", &said.on_behalf_of),
    ];
    for (key, value) in named {
        if let Some(value) = value {
            line(key, value.clone());
        }
    }
    for (key, value) in &said.labels {
        line("label", format!("{key}={value}"));
    }
    text
}

fn logs(arguments: &LogsArguments) -> Result<Exit, Problem> {
    crate::model::SandboxName::parse(&arguments.name).map_err(Problem::usage)?;
    let newest = arguments.logs.join(format!("{}.log", arguments.name));
    let mut found = false;
    for path in [newest.with_extension("log.1"), newest.clone()] {
        match std::fs::read(&path) {
            Ok(said) => {
                found = true;
                print(&String::from_utf8_lossy(&said))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Problem::failure(format!("{}: {error}", path.display()))),
        }
    }
    if found {
        Ok(Exit::Ok)
    } else {
        Err(Problem::failure(format!(
            "{} is not there; only detached commands have a log",
            newest.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::time;
    use std::time::Duration;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("10s"), Ok(Duration::from_secs(10)));
        for text in ["", "10", "s", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
