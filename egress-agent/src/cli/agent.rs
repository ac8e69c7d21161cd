//! `egress-agent`: the daemon.

use super::exit::{Exit, Problem};
use super::output::counted;
use crate::daemon::source::Source;
use crate::daemon::{AgentError, Config, ServiceError, arm, serve};
use crate::policy::render::{Colour, diagnostics_text};
use crate::telemetry::{self, LogFormat, ids};
use clap::Parser;
use jiff::Timestamp;
use std::path::PathBuf;
use std::process::ExitCode;

/// The daemon of the egress enforcer. Enforcement stays in force when it ends.
#[derive(Parser, Debug)]
#[command(
    name = "egress-agent",
    version,
    after_help = "Signals: SIGHUP loads the policies again; SIGTERM ends the agent, not the enforcement."
)]
pub struct AgentArguments {
    /// The configuration. If not given: /etc/egress/agent.toml where that
    /// exists, else the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the policies, and do nothing else.
    #[arg(long)]
    check_config: bool,
    /// Deny everything below the governed root until an agent runs, and end. What
    /// is in force there already stays as it is.
    #[arg(long, conflicts_with = "check_config")]
    arm: bool,
    /// How log lines look. How many there are says EGRESS_LOG, such as `debug`.
    /// If not given: entries of journald where systemd says so, else lines.
    #[arg(long, value_name = "human|json|journal")]
    log_format: Option<LogFormat>,
}

/// The whole of `egress-agent`.
pub fn agent_main() -> ExitCode {
    let arguments = AgentArguments::parse();
    match run(&arguments) {
        Ok(exit) => exit.into(),
        Err(problem) => problem.report("egress-agent"),
    }
}

fn run(arguments: &AgentArguments) -> Result<Exit, Problem> {
    telemetry::init(
        arguments.log_format.unwrap_or_else(LogFormat::suitable),
        "info",
    )
    .map_err(Problem::usage)?;
    let config = Config::load_or_default(arguments.config.as_deref())
        .map_err(|error| Problem::new(Exit::BadConfiguration, error))?;
    if arguments.check_config {
        return check(&config);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(
            Exit::NotPermitted,
            "the agent loads kernel programs and must be run as root",
        ));
    }
    if arguments.arm {
        let armed = arm(&config)?;
        tracing::info!(
            message_id = ids::ARMED,
            egress_root = config.root,
            "{}",
            if armed {
                "everything below the root is denied until an agent runs"
            } else {
                "something is in force already, and stays as it is"
            }
        );
        return Ok(Exit::Ok);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Problem::failure)?;
    match runtime.block_on(serve(config)) {
        Ok(()) => Ok(Exit::Ok),
        Err(ServiceError::Agent(error)) => Err(error.into()),
        Err(error) => Err(Problem::failure(error)),
    }
}

fn check(config: &Config) -> Result<Exit, Problem> {
    let read = Source::open(config).and_then(|mut source| source.read(Timestamp::now()));
    match read {
        Ok(loaded) => {
            let set = loaded.policies;
            eprint!("{}", diagnostics_text(&loaded.warnings, Colour::No));
            if set.iter().next().is_none() {
                eprintln!("egress-agent: there is no policy yet, so no sandbox can be started");
            }
            println!(
                "the configuration and {} are good",
                counted(set.iter().count(), "policy", "policies")
            );
            Ok(Exit::Ok)
        }
        Err(problems) => Err(Problem::new(
            Exit::BadConfiguration,
            AgentError::Policy(problems),
        )),
    }
}
