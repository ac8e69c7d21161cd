//! `cargo xtask demo`: the product at work, with real clients.
//!
//! Without options it makes a small internet in two network namespaces, so
//! that it needs no network and changes nothing on the machine. With `--live`
//! it uses the machine's own network and the names that are given.

mod attempts;
mod report;

use crate::{Failure, setup, shell};
use attempts::{Attempt, Expectation};
use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6, UPSTREAM_V4};
use egress_tests::product;
use report::{Report, Row};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    /// Use the machine's own network and these real names.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    live: Vec<String>,
}

/// Where the demo takes place.
struct Stage {
    /// The small internet, unless the real one is used.
    world: Option<World>,
    /// Everything that is written, removed at the end.
    directory: tempfile::TempDir,
    policy: PathBuf,
    /// Which of [`KEPT`] were not there before.
    made: Vec<&'static str>,
}

/// Directories that the product makes at its first run and keeps for the next.
const KEPT: [&str; 2] = ["/run/egress/runs", "/run/egress"];

impl Drop for Stage {
    /// Leaves the machine as it was, unless somebody else uses them by now.
    fn drop(&mut self) {
        for directory in &self.made {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Shows the product.
pub fn run(options: &Options) -> Result<(), Failure> {
    setup::run_first()?;
    let packages = [
        "build",
        "--package",
        "egress-agent",
        "--package",
        "egress-tests",
        "--bins",
    ];
    shell::run(shell::cargo().args(packages))?;
    if !shell::is_root() {
        return run_again_as_root(options);
    }
    for name in &options.live {
        check_live(name)?;
    }
    let stage = Stage::set(&options.live)
        .map_err(|error| Failure::new(format!("the demo cannot be set up: {error}")))?;
    let (names, attempts) = if options.live.is_empty() {
        (
            vec!["allowed.example".to_owned()],
            attempts::in_the_small_internet(),
        )
    } else {
        (
            options.live.clone(),
            attempts::in_the_real_internet(&options.live),
        )
    };
    println!(
        "\nThe policy opens {} and nothing else:\n",
        names.join(", ")
    );
    println!("{}", policy_for(&names));
    let mut report = Report::new(stage.world.is_some());
    for (number, attempt) in attempts.iter().enumerate() {
        report.add(stage.perform(number, attempt)?);
    }
    println!("{report}");
    match report.surprises() {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{count} attempts did not end as they should"
        ))),
    }
}

impl Stage {
    fn set(live: &[String]) -> std::io::Result<Self> {
        let made = KEPT
            .into_iter()
            .filter(|directory| !Path::new(directory).exists())
            .collect();
        let directory = tempfile::Builder::new().prefix("egress-demo-").tempdir()?;
        let policy = directory.path().join("demo.yaml");
        let (world, names) = if live.is_empty() {
            let world = World::new()?;
            world
                .dns
                .resolve("allowed.example", &[ALLOWED_V4.into(), ALLOWED_V6.into()]);
            world.dns.resolve(
                "forbidden.example",
                &[FORBIDDEN_V4.into(), FORBIDDEN_V6.into()],
            );
            (Some(world), vec!["allowed.example".to_owned()])
        } else {
            (None, live.to_vec())
        };
        fs::write(&policy, policy_for(&names))?;
        Ok(Self {
            world,
            directory,
            policy,
            made,
        })
    }

    /// Lets one client try, in a sandbox and with an agent of its own, so that
    /// what the audit store holds afterwards is about this attempt.
    fn perform(&self, number: usize, attempt: &Attempt) -> Result<Row, Failure> {
        let state = self.directory.path().join(format!("attempt-{number}"));
        let mut command = self.egressctl(&state, attempt);
        let mut start = || command.output();
        let output = match &self.world {
            Some(world) => world.near.run(start),
            None => start(),
        };
        let output = output
            .map_err(|error| Failure::new(format!("egressctl cannot be started: {error}")))?;
        let succeeded = match attempt.expectation {
            // A DNS client that is told "no such name" was answered; what
            // counts is that it was told so.
            Expectation::Says(text) => String::from_utf8_lossy(&output.stdout)
                .to_lowercase()
                .contains(text),
            Expectation::Works => output.status.success(),
            // A run that did not come about refused nothing.
            Expectation::Fails => state.is_dir() && !output.status.success(),
        };
        let escaped = self.world.as_ref().map(|world| {
            let allowed = [(ALLOWED_V4, 80).into(), (ALLOWED_V6, 80).into()];
            world.escaped(&allowed).len()
        });
        Ok(Row::new(
            attempt,
            &output,
            succeeded,
            escaped,
            &product::audit(&state),
        ))
    }

    fn egressctl(&self, state: &Path, attempt: &Attempt) -> Command {
        let mut command = Command::new(product::binary("egressctl"));
        command
            .args(["run", "--ephemeral", "--quiet", "--policy"])
            .arg(&self.policy);
        command.arg("--state").arg(state);
        if self.world.is_some() {
            command.args(["--upstream", &format!("{UPSTREAM_V4}:53")]);
        }
        command.arg("--").args(&attempt.command);
        command
    }
}

/// A name that nobody can reach would show nothing about the product.
fn check_live(name: &str) -> Result<(), Failure> {
    let found = Command::new("getent").args(["ahosts", name]).output();
    match found {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Failure::new(format!(
            "this machine cannot resolve `{name}`, with no sandbox involved; connect it to the \
             internet, name something else, or leave out `--live` to use networks of the demo's own"
        ))),
    }
}

fn policy_for(names: &[String]) -> String {
    let mut text = String::from(
        "apiVersion: egress/v1\nname: demo\negress:\n  default_action: deny\n  mode: enforce\n\
         allowlist:\n  web:\n",
    );
    for name in names {
        text.push_str(&format!(
            "    - domain: \"{name}\"\n      protocols: [http, https]\n"
        ));
    }
    text
}

/// Only the demo itself needs root; what was built belongs to whoever built it.
fn run_again_as_root(options: &Options) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::new(error.to_string()))?;
    let mut command = shell::as_root(&program.to_string_lossy())?;
    command.arg("demo");
    if !options.live.is_empty() {
        command.arg("--live").args(&options.live);
    }
    shell::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_each_name_once() {
        let policy = policy_for(&["a.example".into(), "b.example".into()]);
        assert_eq!(policy.matches("domain:").count(), 2);
        assert!(policy.contains("default_action: deny"));
    }
}
