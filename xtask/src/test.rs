//! `cargo xtask test`: builds, checks and tests everything, and says in one
//! last line how it went.

use crate::{Failure, package, setup, shell, tidy, vm};
use egress_tests::privilege::{MUST_RUN, SKIP_MARK};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    /// Only what needs no privileges and little time: checks and unit tests.
    #[arg(long)]
    quick: bool,
    /// After everything else, the kernel's part of the tests on these kernels
    /// too, in virtual machines: some minutes each.
    #[arg(long, value_name = "KERNEL")]
    vm: Vec<vm::Kernel>,
    /// Not even the few minutes on the oldest kernel that root's run ends with.
    #[arg(long, conflicts_with = "vm")]
    no_vm: bool,
}

/// How many there were of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl Tally {
    /// Counts a check that either holds or does not.
    fn check(&mut self, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(failure) => {
                eprintln!("cargo xtask: {failure}");
                self.failed += 1;
            }
        }
    }

    /// Counts a check that cannot be made here.
    fn skip(&mut self, reason: &str) {
        eprintln!("cargo xtask: skipped: {reason}");
        self.skipped += 1;
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// How many failed.
    pub fn failures(self) -> u32 {
        self.failed
    }

    /// Counts what a line of a test program's output says.
    pub fn line(&mut self, line: &str) {
        if line.contains(SKIP_MARK) {
            // The framework counts a test that returned early as passed.
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        }
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(word)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else {
                continue;
            };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Runs everything; later checks run also when earlier ones failed, so that
/// one run shows all there is to mend.
pub fn run(options: &Options) -> Result<(), Failure> {
    let mut tally = Tally::default();
    let outcome = setup::run_first().and_then(|()| shell::run(shell::cargo().arg("build")));
    let built = outcome.is_ok();
    tally.check(outcome);
    if built {
        checks(&mut tally);
        tests(options, &mut tally);
        other_kernels(options, &mut tally);
    }
    println!("{tally}");
    match tally.failed {
        0 => Ok(()),
        _ => Err(Failure::new("not everything is as it should be")),
    }
}

/// The kernels that were asked for; else a little of it on the oldest, so that
/// nobody has to ask to learn that a program does not load there.
fn other_kernels(options: &Options, tally: &mut Tally) {
    const USUALLY: [vm::Kernel; 1] = [vm::Kernel::V6_1];
    let asked = !options.vm.is_empty();
    if !asked && (options.no_vm || options.quick || !shell::is_root()) {
        return;
    }
    let (kernels, suites) = if asked {
        (&options.vm[..], &["unit", "enforcement"][..])
    } else {
        (&USUALLY[..], &[vm::SMOKE][..])
    };
    let ground = match vm::Ground::prepare(false) {
        Ok(ground) => ground,
        failed if asked => return tally.check(failed.map(drop)),
        Err(failure) => {
            return tally.skip(&format!(
                "another kernel: {failure} (--no-vm leaves it out)"
            ));
        }
    };
    for &kernel in kernels {
        match vm::count(&ground, kernel, suites) {
            Ok(counted) => tally.add(counted),
            failed => tally.check(failed.map(drop)),
        }
    }
}

fn checks(tally: &mut Tally) {
    if component("fmt") {
        tally.check(shell::run(shell::cargo().args(["fmt", "--all", "--check"])));
    } else {
        tally.skip("formatting: rustfmt is not installed (rustup component add rustfmt)");
    }
    if component("clippy") {
        let mut clippy = shell::cargo();
        clippy.args(["clippy", "--all-targets", "--", "--deny", "warnings"]);
        tally.check(shell::run(&mut clippy));
    } else {
        tally.skip("lints: clippy is not installed (rustup component add clippy)");
    }
    tally.check(tidy::run());
    if package::can_be_staged() {
        tally.check(package::check_content());
    } else {
        tally.skip("package: `strip` is not installed (apt-get install binutils)");
    }
    if package::units::can_be_judged() {
        tally.check(package::units::judge());
    } else {
        tally.skip("units: systemd-analyze is not installed (apt-get install systemd)");
    }
}

fn tests(options: &Options, tally: &mut Tally) {
    const QUICK: [&str; 3] = ["test", "--no-fail-fast", "--lib"];
    const UNPRIVILEGED: [&str; 4] = ["test", "--no-fail-fast", "--exclude", "egress-tests"];
    if options.quick {
        count(shell::testing_cargo().args(QUICK).args(["--bins"]), tally);
        return;
    }
    let mut others = shell::testing_cargo();
    // The kernel crate is no program of this machine.
    others
        .args(UNPRIVILEGED)
        .args(["--workspace", "--exclude", "egress-ebpf"]);
    if shell::is_root() {
        others.env(MUST_RUN, "1");
    }
    count(&mut others, tally);
    let mut outside = shell::testing_cargo();
    if !shell::is_root() && shell::find("sudo").is_some() {
        shell::run_programs_as_root(&mut outside);
    }
    if shell::is_root() || shell::find("sudo").is_some() {
        // Where everything is there, a skip would hide something.
        outside.env(MUST_RUN, "1");
    }
    count(
        outside.args(["test", "--no-fail-fast", "--package", "egress-tests"]),
        tally,
    );
}

/// Runs a test command, shows its output, and counts what it says.
fn count(command: &mut Command, tally: &mut Tally) {
    let before = tally.failed;
    let line = shell::line(command);
    eprintln!("+ {line}");
    let running = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut running) = running else {
        tally.check(Err(Failure::new(format!("`{line}` cannot be started"))));
        return;
    };
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    let counts = std::thread::scope(|scope| {
        let errors = scope.spawn(|| read(stderr, |line| eprintln!("{line}")));
        [
            read(stdout, |line| println!("{line}")),
            errors.join().unwrap_or_default(),
        ]
    });
    for part in counts.into_iter().flatten() {
        tally.line(&part);
    }
    let succeeded = running.wait().is_ok_and(|status| status.success());
    if !succeeded && tally.failed == before {
        // A test program that did not compile, or died without a result.
        tally.check(Err(Failure::new(format!("`{line}` failed"))));
    }
}

/// Shows every line, and returns those that count.
fn read(stream: Option<impl Read>, show: impl Fn(&str)) -> Vec<String> {
    let lines = stream
        .into_iter()
        .flat_map(|stream| BufReader::new(stream).lines());
    let shown = lines.map_while(Result::ok).inspect(|line| show(line));
    shown
        .filter(|line| line.contains("test result: ") || line.contains(SKIP_MARK))
        .collect()
}

fn component(name: &str) -> bool {
    let mut probe = shell::cargo();
    probe
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.line("test a ... ok");
        tally.line("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out");
        tally.line("test result: FAILED. 2 passed; 3 failed; 0 ignored; finished in 0.1s");
        assert_eq!(
            tally,
            Tally {
                passed: 14,
                failed: 3,
                skipped: 1
            }
        );
        assert_eq!(tally.to_string(), "14 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_skipped_did_not_pass() {
        let mut tally = Tally {
            passed: 2,
            ..Tally::default()
        };
        tally.line(&format!("{SKIP_MARK} enforcement: audit: it needs root"));
        assert_eq!(
            tally,
            Tally {
                passed: 1,
                failed: 0,
                skipped: 1
            }
        );
    }
}
