//! `cargo xtask tidy`: what the compiler cannot check about the source tree.

mod ledger;
mod modules;
mod rules;
mod source;

use crate::{Failure, shell};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Something in the tree that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the workspace.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Finding {
    fn new(file: &str, line: usize, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line,
            message,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Checks the whole tree and prints every finding.
pub fn run() -> Result<(), Failure> {
    let findings = check(&shell::workspace())
        .map_err(|error| Failure::new(format!("the source tree cannot be read: {error}")))?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("tidy: {count} findings"))),
    }
}

fn check(workspace: &Path) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut tests = BTreeSet::new();
    for (path, text) in texts(workspace)? {
        findings.extend(registry_hosts(&path, &text));
        if path.ends_with(".rs") {
            findings.extend(shape(&path, &text));
            findings.extend(skips(&path, &text));
            findings.extend(modules::check(&path, &text));
            tests.append(&mut ledger::tests_of(&text));
        }
    }
    for path in rules::LEDGERS {
        // A ledger that is not written yet promises nothing.
        if let Ok(text) = fs::read_to_string(workspace.join(path)) {
            findings.extend(ledger::check(path, &text, &tests));
        }
    }
    findings.sort();
    Ok(findings)
}

fn shape(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::new(
            path,
            1,
            "begins with no `//!` that says what it is".into(),
        ));
    }
    let lines = text.lines().count();
    if lines > rules::LONGEST_FILE {
        let message = format!("{lines} lines, more than {}: split it", rules::LONGEST_FILE);
        findings.push(Finding::new(path, lines, message));
    }
    findings
}

/// A test is skipped by the one facility that justifies skips, or not at all.
fn skips(path: &str, text: &str) -> Vec<Finding> {
    if rules::SKIP_ROOMS.contains(&path) {
        return Vec::new();
    }
    let code = source::code_of(text);
    let ignored = code.match_indices("#[ignore").map(|(at, _)| at);
    let marked = source::words(&code).filter(|(word, _)| *word == "SKIP_MARK");
    let places = ignored.chain(marked.map(|(_, end)| end));
    let message = "skips a test by itself; ask `egress_tests::feature::granted` or \
                   `egress_tests::privilege::granted`, which say why and check it";
    places
        .map(|at| Finding::new(path, source::line_of(&code, at), message.into()))
        .collect()
}

fn registry_hosts(path: &str, text: &str) -> Vec<Finding> {
    let hosts: Vec<String> = rules::REGISTRY_HOSTS
        .iter()
        .map(|(name, zone)| format!("{name}.{zone}"))
        .collect();
    (1..)
        .zip(text.lines())
        .filter_map(|(number, line)| {
            let host = hosts.iter().find(|host| line.contains(host.as_str()))?;
            let message = format!("names the package registry {host}; use an example name");
            Some(Finding::new(path, number, message))
        })
        .collect()
}

/// The texts that people write, with their paths relative to the workspace.
/// The lock file is cargo's.
fn texts(workspace: &Path) -> io::Result<Vec<(String, String)>> {
    const KINDS: [&str; 6] = ["rs", "toml", "md", "yaml", "yml", "sh"];
    let mut texts = Vec::new();
    let mut open: Vec<PathBuf> = vec![workspace.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let hidden = name.to_string_lossy().starts_with('.');
            if entry.file_type()?.is_dir() {
                if !hidden && name != "target" {
                    open.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|kind| KINDS.iter().any(|it| kind == *it))
            {
                let relative = path.strip_prefix(workspace).unwrap_or(&path);
                texts.push((
                    relative.to_string_lossy().into_owned(),
                    fs::read_to_string(&path)?,
                ));
            }
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_is_and_is_short() {
        let long = "//! Long.\n".repeat(rules::LONGEST_FILE + 1);
        assert_eq!(shape("a.rs", &long).len(), 1);
        assert_eq!(shape("a.rs", "fn f() {}").len(), 1);
        assert_eq!(shape("a.rs", "//! Says what it is.").len(), 0);
    }

    #[test]
    fn a_test_that_skips_by_itself_is_found() {
        for bad in [
            "#[ignore]\nfn t() {}",
            "#[test]\n#[ignore = \"x\"]",
            "print(SKIP_MARK)",
        ] {
            assert_eq!(skips("tests/tests/a.rs", bad).len(), 1, "{bad}");
        }
        for good in ["// #[ignore]", "let SKIP_MARKS = 1;", "\"SKIP_MARK\""] {
            assert_eq!(skips("tests/tests/a.rs", good).len(), 0, "{good}");
        }
        assert_eq!(skips(rules::SKIP_ROOMS[0], "print(SKIP_MARK)").len(), 0);
    }

    #[test]
    fn package_registries_are_not_named() {
        let (name, zone) = rules::REGISTRY_HOSTS[0];
        assert_eq!(
            registry_hosts("a.md", &format!("see https://{name}.{zone}/x")).len(),
            1
        );
        assert_eq!(registry_hosts("a.md", "see packages.example.com").len(), 0);
    }
}
