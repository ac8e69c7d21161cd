//! `egressctl doctor`: looks at this host, changes nothing, and says for each
//! thing what it means for what is promised.

mod host;
mod product;

use super::exit::{Exit, Problem};
use super::output::{Output, print, print_json};
use crate::daemon::Config;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct DoctorArguments {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How a thing is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Good,
    /// It works, and something promised is weaker or missing.
    Weak,
    /// The product cannot do its work.
    Broken,
    /// Only root can see it.
    Unknown,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Weak => "WEAK",
            Self::Broken => "BROKEN",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// What was looked at; stable.
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What that means for the guarantees, and what to do.
    means: &'static str,
}

impl Check {
    fn new(name: &'static str, state: State, found: impl ToString, means: &'static str) -> Self {
        Self {
            name,
            state,
            found: found.to_string(),
            means,
        }
    }
}

/// Looks at everything. The exit code is 1 if something is broken.
pub fn run(socket: &Path, arguments: &DoctorArguments) -> Result<Exit, Problem> {
    let config = Config::load_or_default(arguments.config.as_deref())
        .map_err(|error| Problem::new(Exit::BadConfiguration, error))?;
    let mut checks = host::checks(&config);
    checks.extend(product::checks(socket, &config));
    let broken = checks.iter().any(|check| check.state == State::Broken);
    match arguments.output {
        Output::Table => print(&text(&checks))?,
        Output::Json => print_json(&json!({ "checks": checks, "broken": broken }))?,
        Output::Jsonl => {
            for check in &checks {
                let line = serde_json::to_string(check).map_err(Problem::failure)?;
                print(&format!("{line}\n"))?;
            }
        }
    }
    Ok(if broken { Exit::Failure } else { Exit::Ok })
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let Check {
            name, found, means, ..
        } = check;
        text.push_str(&format!("{:8} {name:12} {found}\n", check.state.word()));
        text.push_str(&format!("{:21} {means}\n", ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Check, State, text};

    #[test]
    fn each_line_says_what_it_means() {
        let text = text(&[Check::new(
            "kernel",
            State::Weak,
            "Linux 1",
            "nothing works",
        )]);
        assert!(text.contains("WEAK     kernel       Linux 1\n"), "{text}");
        assert!(text.contains("nothing works"), "{text}");
    }
}
