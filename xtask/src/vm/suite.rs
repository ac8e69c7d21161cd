//! What is run inside: groups of test programs.

use super::guest::Share;
use crate::{Failure, shell};
use egress_tests::privilege::MUST_RUN;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The product's programs, which tests look for one directory above themselves.
const PRODUCT: [&str; 3] = ["egressctl", "egress-agent", "egress-probe"];

/// The suite that every run of all tests has on one kernel.
pub const SMOKE: &str = "smoke";

/// The name of the unit tests' program among the others.
const UNIT: &str = "egress_agent";

/// Groups of test programs: the unit tests that need a kernel, and the product
/// exercised from outside. Every other program of `tests/` is a suite by
/// itself.
const GROUPS: [(&str, &[&str]); 7] = [
    ("unit", &[UNIT]),
    (
        "enforcement",
        &["harness", "enforcement", "cross_sandbox", "resolver"],
    ),
    // What `cargo xtask test` runs on one kernel, in one boot.
    (SMOKE, &[UNIT, "cross_sandbox"]),
    ("equivalence", &["equivalence_kernel"]),
    ("reload", &["reload", "restart", "expiry"]),
    ("operations", &["lifecycle", "neighbours", "errors"]),
    (
        "limits",
        &["limits", "connections", "detached", "others", "containers"],
    ),
];

/// What `--all` runs of these. The other programs of `tests/` do not depend on
/// the kernel.
const ALL: [&str; 9] = [
    "unit",
    "enforcement",
    "bypasses",
    "interface",
    "resilience",
    "reload",
    "operations",
    "limits",
    "equivalence",
];

/// Test programs that were built.
#[derive(Debug)]
pub struct Built {
    /// Name and file.
    programs: Vec<(String, PathBuf)>,
    /// Where the product's programs are.
    product: PathBuf,
}

impl Built {
    /// Builds them, and the product.
    pub fn build() -> Result<Self, Failure> {
        // As `cargo xtask test` does it, so that nothing is built twice.
        shell::run(shell::cargo().arg("build"))?;
        // All members at once: what is selected by itself has other features, and
        // everything below it would be built twice.
        let mut cargo = shell::cargo();
        cargo.args(["test", "--no-run", "--message-format=json"]);
        let programs = programs_of(&shell::output(&mut cargo)?);
        Ok(Self {
            programs,
            product: shell::workspace().join("target/debug"),
        })
    }

    /// The programs of a suite; none if the suite does not exist (yet).
    pub fn suite(&self, name: &str) -> Vec<(&str, &Path)> {
        let own = [name];
        let group = GROUPS.iter().find(|(group, _)| *group == name);
        let members = group.map_or(&own[..], |(_, members)| members);
        let find = |member: &&str| {
            let mut programs = self.programs.iter();
            programs.find(|(program, _)| program == member)
        };
        let found = members.iter().filter_map(find);
        found
            .map(|(program, path)| (program.as_str(), path.as_path()))
            .collect()
    }

    /// The suites that there are.
    pub fn all_suites(&self) -> Vec<String> {
        let exists = |suite: &&str| !self.suite(suite).is_empty();
        ALL.into_iter().filter(exists).map(str::to_owned).collect()
    }

    /// A share with these programs and a script that runs them, one after the
    /// other, with these arguments.
    pub fn share(
        &self,
        cache: &Path,
        programs: &[(&str, &Path)],
        arguments: &[String],
    ) -> Result<Share, Failure> {
        let names: Vec<&str> = programs.iter().map(|(name, _)| *name).collect();
        let share = self.command(cache, &script(&names, arguments))?;
        for (name, path) in programs {
            share.add(path, &format!("deps/{name}"))?;
        }
        Ok(share)
    }

    /// A share with the product and this script.
    pub fn command(&self, cache: &Path, script: &str) -> Result<Share, Failure> {
        let share = Share::new(cache, script)?;
        for name in PRODUCT {
            share.add(&self.product.join(name), name)?;
        }
        Ok(share)
    }
}

/// Runs every program, also after one that failed. Tests run one at a time:
/// emulation is slow, and most of them wait for something with a time limit.
fn script(programs: &[&str], arguments: &[String]) -> String {
    let arguments: String = arguments.iter().fold(String::new(), |mut line, argument| {
        // Writing into a string cannot fail.
        let _ = write!(line, " '{}'", argument.replace('\'', r"'\''"));
        line
    });
    // A few names, because emulation takes a second for every fifty.
    let mut script = format!(
        "cd /share\nexport {MUST_RUN}=1 EGRESS_OWN_CLOCK=1 EGRESS_TIMES_SLOWER=12 EGRESS_NAMES=1000 RUST_BACKTRACE=1\nstatus=0\n"
    );
    for program in programs {
        let filter = if *program == UNIT {
            // The counts that the verifier walks are printed by a passing test.
            " enforcer:: --nocapture"
        } else {
            ""
        };
        let _ = write!(
            script,
            "echo 'Running {program}'\n\
             deps/{program} --test-threads=1{filter}{arguments} || status=1\n"
        );
    }
    script + "exit $status\n"
}

/// The test programs among what cargo says that it made.
fn programs_of(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| {
            let kind = &message["target"]["kind"][0];
            message["profile"]["test"] == true && (kind == "test" || kind == "lib")
        })
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            let file = PathBuf::from(message["executable"].as_str()?);
            Some((name, file))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = concat!(
        r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"egress_agent"},"#,
        r#""profile":{"test":true},"executable":"/t/deps/egress_agent-1"}"#,
        "\n",
        r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"egress_agent"},"#,
        r#""profile":{"test":false},"executable":null}"#,
        "\n",
        r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"egress-probe"},"#,
        r#""profile":{"test":true},"executable":"/t/deps/egress_probe-1"}"#,
        "\n",
        r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"harness"},"#,
        r#""profile":{"test":true},"executable":"/t/deps/harness-1"}"#,
        "\n",
        r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"resolver"},"#,
        r#""profile":{"test":true},"executable":"/t/deps/resolver-1"}"#,
        "\n",
        r#"{"reason":"build-finished","success":true}"#,
    );

    fn names(built: &Built, suite: &str) -> Vec<String> {
        let programs = built.suite(suite);
        programs
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect()
    }

    #[test]
    fn suites_are_groups_or_single_programs_of_those_that_were_built() {
        let built = Built {
            programs: programs_of(MESSAGES),
            product: PathBuf::new(),
        };
        assert_eq!(names(&built, "unit"), ["egress_agent"]);
        assert_eq!(names(&built, "enforcement"), ["harness", "resolver"]);
        assert_eq!(names(&built, "resolver"), ["resolver"]);
        assert_eq!(names(&built, "nothing"), [""; 0]);
        assert_eq!(built.all_suites(), ["unit", "enforcement"]);
    }

    #[test]
    fn every_program_runs_and_one_failure_is_remembered() {
        let arguments = ["it's".to_owned()];
        let script = script(&["true", "false", "egress_agent"], &arguments);
        assert!(script.contains("deps/true --test-threads=1 'it'\\''s' || status=1\n"));
        assert!(script.contains("deps/egress_agent --test-threads=1 enforcer:: --nocapture"));
        assert!(script.ends_with("exit $status\n"));
    }
}
