//! Every task a person or CI runs.

mod bench;
mod debian;
mod demo;
mod failure;
mod setup;
mod shell;
mod soak;
mod test;
mod tidy;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "building is the build script's part")
)]
mod toolchain;
mod vm;

use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

/// Every task a person or CI runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Installs what is missing to build and to test; says what and why.
    Setup(setup::Options),
    /// Shows the product at work, on networks of its own.
    Demo(demo::Options),
    /// Builds, checks and tests everything.
    Test(test::Options),
    /// Runs tests on other kernels, in virtual machines without KVM.
    Vm(vm::Options),
    /// Kills, reloads and upgrades as often as it takes to believe in it.
    Soak(soak::Options),
    /// Measures what enforcement costs.
    Bench(bench::Options),
    /// Checks what the compiler cannot: module order, `unsafe`, ledgers.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Setup(options) => setup::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cargo xtask: {failure}");
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Task;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Task::command().debug_assert();
    }
}
