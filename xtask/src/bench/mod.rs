//! `cargo xtask bench`: what enforcement costs, beside what it is measured
//! against and what it may cost.
//!
//! The measuring is done by `tests/benches/connect`, a program that needs the
//! agent's library; here its samples become medians, ratios and verdicts.

mod dns;
mod samples;
mod summary;
mod table;
mod targets;

use crate::{Failure, setup, shell};
use samples::Run;
use std::process::{Command, Stdio};
use summary::Summary;

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

/// The benchmarks.
#[derive(clap::Subcommand)]
enum What {
    /// What sockets, connections, datagrams and bulk data cost: bare, under
    /// empty programs, enforced, and with nftables.
    Connect(Connect),
    /// What the audit store costs: sustained writing, folding, verification, queries.
    Audit(Audit),
    /// What a policy with a million names costs: to build, to ask, and in memory.
    Names(Names),
    /// How many names a second the resolver answers and refuses, and what it adds to
    /// a cold one, beside unbound, dnsmasq and dnsdist.
    Dns(dns::Options),
    /// What the start of a sandbox costs beside many others.
    Sandbox(Sandbox),
    /// What an interface sandbox costs: bulk TCP and small datagrams through a
    /// veth, bare, enforced and with nftables, beside 1,000 interfaces.
    Interface(Interface),
}

/// What can be chosen about [`What::Interface`].
#[derive(clap::Args)]
struct Interface {
    /// How many times everything is measured; one round takes about 2.5 seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Interfaces that are attached beside the measured one.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=4000))]
    interfaces: u32,
    /// Fail if something costs more than it may.
    #[arg(long)]
    check: bool,
}

/// What can be chosen about [`What::Sandbox`].
#[derive(clap::Args)]
struct Sandbox {
    /// Sandboxes that run meanwhile.
    #[arg(long, default_value_t = 1000)]
    alive: u32,
    /// Starts that are measured.
    #[arg(long, default_value_t = 300)]
    rounds: u32,
    /// Fail if they take longer than they may.
    #[arg(long)]
    check: bool,
}

/// What can be chosen about [`What::Names`].
#[derive(clap::Args)]
struct Names {
    /// Fail if a goal is missed.
    #[arg(long)]
    check: bool,
}

/// What can be chosen about [`What::Audit`].
#[derive(clap::Args)]
struct Audit {
    /// Measure only this: sustain, ask, export, ship, flood or report; can be given several times.
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// Fail if a goal is missed.
    #[arg(long)]
    check: bool,
}

/// What can be chosen about [`What::Connect`].
#[derive(clap::Args)]
struct Connect {
    /// How many times everything is measured; one round takes about 1.5 seconds.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only this; can be given several times.
    #[arg(long = "operation", value_name = "NAME")]
    operations: Vec<String>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Fail if something costs more than it may.
    #[arg(long)]
    check: bool,
}

/// How the result is printed.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A table for people.
    Text,
    /// One JSON object.
    Json,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<(), Failure> {
    match &options.what {
        What::Connect(options) => connect(options),
        What::Audit(options) => audit(options),
        What::Dns(options) => dns::run(options),
        What::Names(options) => names(options),
        What::Sandbox(options) => sandbox(options),
        What::Interface(options) => interface(options),
    }
}

/// A command that builds and runs a measuring program as root, with the product
/// as it is released beside it.
fn released(bench: &str) -> Result<Command, Failure> {
    setup::run_first()?;
    // All members at once, here and below: what is selected by itself has other
    // features, and everything below it would be built twice.
    shell::run(shell::cargo().args(["build", "--release"]))?;
    let mut cargo = shell::cargo();
    if !shell::is_root() {
        shell::run_programs_as_root(&mut cargo);
    }
    cargo.args(["bench", "--bench", bench, "--"]);
    Ok(cargo)
}

/// Builds and runs the measuring program, which prints its own table.
fn audit(options: &Audit) -> Result<(), Failure> {
    let mut cargo = released("audit")?;
    for scenario in &options.scenarios {
        cargo.args(["--scenario", scenario]);
    }
    match shell::run(&mut cargo) {
        Err(failure) if options.check => Err(failure),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Builds and runs the measuring program, which prints its own table.
fn names(options: &Names) -> Result<(), Failure> {
    let mut cargo = released("names")?;
    match shell::run(&mut cargo) {
        Err(failure) if options.check => Err(failure),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn connect(options: &Connect) -> Result<(), Failure> {
    setup::run_first()?;
    let summary = Summary::of(measure(options)?);
    match options.output {
        Format::Text => println!("{}", table::text(&summary)),
        Format::Json => println!("{:#}", table::json(&summary)),
    }
    let missed = summary.missed();
    if options.check && !missed.is_empty() {
        return Err(Failure::new(format!(
            "too slow: {}; docs/performance.md says what was measured when",
            missed.join(", ")
        )));
    }
    Ok(())
}

/// Measures the start of sandboxes and prints what the measuring program says.
fn sandbox(options: &Sandbox) -> Result<(), Failure> {
    let mut cargo = released("sandbox")?;
    cargo.args(["--alive", &options.alive.to_string()]);
    cargo.args(["--rounds", &options.rounds.to_string()]);
    let line = shell::line(&cargo);
    eprintln!("+ {line}");
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("`{line}` cannot be started: {error}")))?;
    let result: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(format!("`{line}` gave no result: {error}")))?;
    println!("{result:#}");
    if options.check && result["met"] != true {
        return Err(Failure::new("sandboxes start too slowly".to_owned()));
    }
    Ok(())
}

/// Builds and runs the program that measures and judges interfaces, as root.
fn interface(options: &Interface) -> Result<(), Failure> {
    let mut cargo = released("interface")?;
    cargo.args(["--rounds", &options.rounds.to_string()]);
    cargo.args(["--interfaces", &options.interfaces.to_string()]);
    if options.check {
        cargo.arg("--check");
    }
    shell::run(&mut cargo)
}

/// Builds and runs the measuring program as root; its progress goes to stderr.
fn measure(options: &Connect) -> Result<Run, Failure> {
    let mut cargo = shell::cargo();
    if !shell::is_root() {
        shell::run_programs_as_root(&mut cargo);
    }
    // The debug profile: the workspace optimises this program and the contract
    // in it, and a release build of everything else would be for nothing.
    cargo.args(["bench", "--profile", "dev", "--bench", "connect", "--"]);
    cargo.args(["--rounds", &options.rounds.to_string()]);
    for operation in &options.operations {
        cargo.args(["--operation", operation]);
    }
    let line = shell::line(&cargo);
    eprintln!("+ {line}");
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("`{line}` cannot be started: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "`{line}` ended with {}",
            output.status
        )));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(format!("the samples cannot be read: {error}")))
}
