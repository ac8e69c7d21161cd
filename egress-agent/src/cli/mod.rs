//! What a person types: `egressctl` and `egress-agent`.
//!
//! `main` of each binary is one call into this module. Every command is a module
//! with its arguments and a `run`; `exit` is the one table of exit codes.

#![forbid(unsafe_code)]

mod agent;
mod attribution;
mod audit;
mod block;
mod bundle;
mod doctor;
mod emergency;
mod exit;
mod generate;
mod interruption;
mod learning;
mod names;
mod oci_hook;
mod operate;
mod output;
mod policy;
mod report;
mod run;
mod sandbox;
mod seccomp;
mod supervise;
mod top;

pub use agent::{AgentArguments, agent_main};
pub use exit::{Exit, Problem};

use crate::telemetry::{self, LogFormat};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where help lists the options that every command has.
const GLOBAL: &str = "Options of every command";

/// Runs commands so that they reach what their policy names and nothing else,
/// and tells what they were refused.
#[derive(Parser, Debug)]
#[command(
    name = "egressctl",
    version,
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 denied, 5 agent not reachable, 6 not permitted, 7 verification failed, 78 bad configuration. `run` gives the exit status of the command."
)]
pub struct Arguments {
    /// The agent's control socket.
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "PATH",
        default_value = "/run/egress/agent.sock",
        env = "EGRESS_SOCKET"
    )]
    socket: PathBuf,
    /// How log lines look. How many there are says EGRESS_LOG, such as `debug`.
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "human|json",
        default_value = "human"
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a command in a sandbox.
    Run(run::RunArguments),
    /// Check and explain policies; needs no agent and no root.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Make, verify and install signed bundles of policies.
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Make and ask lists of names that policies block or allow; needs no agent and no root.
    #[command(subcommand)]
    Names(names::NamesCommand),
    /// Look at sandboxes, pause, resume and stop them.
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Show the agent's state.
    Status(operate::StatusArguments),
    /// Show what runs and what it was refused, live.
    Top(top::TopArguments),
    /// Look at this host, and say what it means for what is promised.
    Doctor(doctor::DoctorArguments),
    /// Load the policies again; nothing changes unless all are good.
    Reload(operate::ReloadArguments),
    /// Ask the audit store.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Write a report of a period: what was decided, changed and lost, and whether
    /// the evidence is whole.
    Report(report::ReportArguments),
    /// Stop everything that sandboxes send and receive, whatever policy says,
    /// until `restore`; also over a restart of the agent or the machine.
    EmergencyBlock(emergency::BlockArguments),
    /// End an emergency block: policy decides again.
    Restore(emergency::RestoreArguments),
    /// Let no container start that is not enforced: an OCI `createRuntime` hook.
    OciHook,
    /// Show and export the system call filters; needs no agent and no root.
    #[command(subcommand)]
    Seccomp(seccomp::SeccompCommand),
    /// Take enforcement out of force: the off switch.
    Disarm(operate::DisarmArguments),
    /// Print shell completions.
    Completion(generate::CompletionArguments),
    /// See to a detached command; its errand comes on standard input.
    #[command(hide = true)]
    Supervise,
    /// Print the man page.
    #[command(hide = true)]
    Man(generate::ManArguments),
}

/// The whole of `egressctl`.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = telemetry::init(arguments.log_format, "warn") {
        return Problem::usage(error).report("egressctl");
    }
    let Arguments {
        socket, command, ..
    } = arguments;
    let result = match command {
        Command::Run(arguments) => run::run(&socket, arguments),
        Command::Policy(command) => policy::run(command),
        Command::Bundle(command) => bundle::run(&socket, command),
        Command::Names(command) => names::run(command),
        Command::Sandbox(command) => sandbox::run(&socket, command),
        Command::Status(arguments) => operate::status(&socket, &arguments),
        Command::Top(arguments) => top::run(&socket, &arguments),
        Command::Doctor(arguments) => doctor::run(&socket, &arguments),
        Command::Reload(arguments) => operate::reload(&socket, &arguments),
        Command::Audit(command) => audit::run(command),
        Command::Report(arguments) => report::run(arguments),
        Command::EmergencyBlock(arguments) => emergency::block(&socket, &arguments),
        Command::Restore(arguments) => emergency::restore(&socket, &arguments),
        Command::OciHook => oci_hook::run(&socket),
        Command::Seccomp(command) => seccomp::run(command),
        Command::Disarm(arguments) => operate::disarm(&socket, &arguments),
        Command::Supervise => supervise::run(&socket),
        Command::Completion(arguments) => generate::completion(&arguments),
        Command::Man(arguments) => generate::man(&arguments),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(problem) => problem.report("egressctl"),
    }
}
