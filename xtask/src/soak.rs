//! `cargo xtask soak`: the failures of `tests/tests/resilience`, as often as it
//! takes to believe in them. The same tests run in `cargo xtask test` with
//! small numbers.

use crate::{Failure, setup, shell};
use egress_tests::privilege::MUST_RUN;

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    /// How often the agent is killed; one takes about a second.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// How often the policies are loaded again.
    #[arg(long, default_value_t = 1000)]
    reloads: u32,
    /// How often another version takes over; one takes about a second.
    #[arg(long, default_value_t = 60)]
    upgrades: u32,
    /// Takes the random moments of an earlier run again, as it printed them.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs them; what was measured is in what they print.
pub fn run(options: &Options) -> Result<(), Failure> {
    setup::run_first()?;
    shell::run(shell::cargo().arg("build"))?;
    let mut cargo = shell::testing_cargo();
    if !shell::is_root() {
        shell::run_programs_as_root(&mut cargo);
    }
    cargo
        .env(MUST_RUN, "1")
        .env("EGRESS_KILLS", options.kills.to_string())
        .env("EGRESS_RELOADS", options.reloads.to_string())
        .env("EGRESS_UPGRADES", options.upgrades.to_string());
    if let Some(seed) = options.seed {
        cargo.env("EGRESS_SEED", seed.to_string());
    }
    cargo.args(["test", "--package", "egress-tests", "--test", "resilience"]);
    cargo.args(["--", "--nocapture", "--test-threads=1"]);
    cargo.args(["killed::", "changes::", "upgrade::"]);
    shell::run(&mut cargo)
}
