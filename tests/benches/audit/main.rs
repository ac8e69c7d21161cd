//! What the evidence costs: the measuring half of `cargo xtask bench audit`.
//!
//! Each line is a value beside its goal. The store lies in a directory of its
//! own on the disk of the working directory; nothing else of the machine is used.

mod ask;
mod export;
mod flood;
mod goal;
mod load;
mod ship;
mod sustain;
mod year;

use clap::Parser;
use std::process::ExitCode;

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Decisions into SQLite at an even rate, and the memory that this takes.
    Sustain,
    /// Verification and queries over what was written.
    Ask,
    /// Every format of export over what was written.
    Export,
    /// What was written, to a PostgreSQL server.
    Ship,
    /// Denials of one sandbox beside the decisions of others.
    Flood,
    /// A report over a year of records.
    Report,
}

#[derive(Parser)]
struct Options {
    /// Only this; can be given several times. What works on a store that was
    /// written needs `sustain` before it.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Scenario>,
    /// For how long decisions are made; 20 seconds give a million records.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let directory = tempfile::Builder::new()
        .prefix("bench-audit-")
        .tempdir_in(".")
        .expect("a directory");
    let path = directory.path().join("state/audit.db");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let wanted = |scenario| options.scenarios.is_empty() || options.scenarios.contains(&scenario);
    let mut met = true;
    // First: the peak of memory is the process's own.
    if wanted(Scenario::Sustain) {
        met &= runtime.block_on(sustain::measure(&path, options.seconds));
    }
    if wanted(Scenario::Ask) {
        met &= runtime.block_on(ask::measure(&path));
    }
    if wanted(Scenario::Export) {
        met &= runtime.block_on(export::measure(&path));
    }
    if wanted(Scenario::Ship) {
        met &= runtime.block_on(ship::measure(&path));
    }
    if wanted(Scenario::Flood) {
        let path = directory.path().join("flood/audit.db");
        met &= runtime.block_on(flood::measure(&path));
    }
    if wanted(Scenario::Report) {
        let path = directory.path().join("year/audit.db");
        met &= runtime.block_on(year::measure(&path));
    }
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
