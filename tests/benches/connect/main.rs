//! What enforcement costs: the measuring half of `cargo xtask bench connect`.
//!
//! Four columns do the same operations, each in a cgroup and in network
//! namespaces of its own: nothing attached, programs that do nothing at the
//! same hooks, the product, and nftables. One round does every operation once
//! in every column, the order rotates, and all rounds are one run: what
//! disturbs the machine disturbs all columns. The samples go to stdout as JSON;
//! `xtask` makes medians, ratios and verdicts of them.

mod bulk;
mod columns;
mod empty;
mod enforced;
mod guardian;
mod nftables;
mod operation;
mod place;
mod rounds;
mod worker;

use clap::{Parser, Subcommand};
use operation::Operation;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures what enforcement costs, and prints the samples as JSON.
#[derive(Parser)]
#[command(name = "connect")]
struct Options {
    /// How many times every operation is measured in every column.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only these.
    #[arg(long = "operation", value_name = "NAME", value_parser = operation)]
    operations: Vec<Operation>,
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The processes that the benchmark starts of itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Part {
    /// Owns the benchmark's cgroup, and removes it when its input ends.
    Guardian,
    /// Does the operations, inside one column.
    Worker {
        /// The far namespace.
        #[arg(long)]
        far: String,
        /// The cgroup to join.
        #[arg(long)]
        cgroup: PathBuf,
    },
}

fn operation(name: &str) -> Result<Operation, String> {
    let names = Operation::ALL.map(Operation::name).join(", ");
    Operation::named(name).ok_or_else(|| format!("is none of {names}"))
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.operations.is_empty() {
        options.operations.extend(Operation::ALL);
    }
    let result = match options.part {
        None => rounds::run(options.rounds, &options.operations),
        Some(Part::Guardian) => guardian::run(),
        Some(Part::Worker { far, cgroup }) => worker::run(&far, &cgroup),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench connect: {error}");
            ExitCode::FAILURE
        }
    }
}
