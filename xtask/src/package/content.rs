//! Whether the packagers' lists and the staged tree say the same.

use super::stage::Stage;
use crate::vm::unwritable;
use crate::{Failure, shell};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the packagers' lists look for the tree, relative to themselves.
const ROOT: &str = "target/package/root/";

/// Every staged file goes into both packages, every line of their lists is about
/// one, and what the units start is there.
pub fn check(stage: &Stage) -> Result<(), Failure> {
    let mut staged = BTreeSet::new();
    list(&stage.root, &stage.root, &mut staged)?;
    let mut problems = Vec::new();
    for (name, patterns) in lists()? {
        problems.extend(compare(name, &patterns, &staged));
    }
    for unit in staged.iter().filter(|file| file.ends_with(".service")) {
        let path = stage.root.join(unit);
        let text = fs::read_to_string(&path).map_err(unwritable(&path))?;
        problems.extend(missing_programs(unit, &text, &staged));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(problems.join("\n")))
}

/// The files below a directory, relative to the root; empty ones are a mistake.
fn list(root: &Path, directory: &Path, files: &mut BTreeSet<String>) -> Result<(), Failure> {
    for entry in fs::read_dir(directory).map_err(unwritable(directory))? {
        let path = entry.map_err(unwritable(directory))?.path();
        if path.is_dir() {
            list(root, &path, files)?;
            continue;
        }
        if fs::metadata(&path).map_err(unwritable(&path))?.len() == 0 {
            return Err(Failure::new(format!("{} is empty", path.display())));
        }
        let name = path.strip_prefix(root).unwrap_or(&path);
        files.insert(name.to_string_lossy().into_owned());
    }
    Ok(())
}

/// What each packager is told to take, as cargo reads it.
fn lists() -> Result<[(&'static str, Vec<String>); 2], Failure> {
    let mut cargo = shell::cargo();
    cargo.args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--offline",
    ]);
    let metadata: Value = serde_json::from_str(&shell::output(&mut cargo)?)
        .map_err(|error| Failure::new(format!("cargo's metadata cannot be read: {error}")))?;
    let package = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "egress-agent")
        .ok_or_else(|| Failure::new("there is no package egress-agent"))?;
    let sources = |packager: &str, source: &str| -> Vec<String> {
        let assets = package["metadata"][packager]["assets"].as_array();
        let sources = assets
            .into_iter()
            .flatten()
            .filter_map(|asset| asset.get(0).or_else(|| asset.get(source))?.as_str());
        let relative = sources.filter_map(|path| path.split_once(ROOT).map(|(_, rest)| rest));
        relative.map(str::to_owned).collect()
    };
    Ok([
        ("the Debian package", sources("deb", "source")),
        ("the RPM package", sources("generate-rpm", "source")),
    ])
}

fn matches(pattern: &str, file: &str) -> bool {
    match pattern.strip_suffix('*') {
        None => pattern == file,
        Some(directory) => file
            .strip_prefix(directory)
            .is_some_and(|rest| !rest.contains('/')),
    }
}

fn compare(name: &str, patterns: &[String], staged: &BTreeSet<String>) -> Vec<String> {
    // What only Debian's judge reads.
    let meant = |file: &&String| name.contains("Debian") || !file.contains("/lintian/");
    let left_out = staged
        .iter()
        .filter(meant)
        .filter(|file| !patterns.iter().any(|pattern| matches(pattern, file)))
        .map(|file| format!("{name} leaves out {file}"));
    let about_nothing = patterns
        .iter()
        .filter(|pattern| !staged.iter().any(|file| matches(pattern, file)))
        .map(|pattern| format!("{name} lists {pattern}, and nothing is staged there"));
    left_out.chain(about_nothing).collect()
}

/// What a unit starts and the tree does not have.
fn missing_programs(unit: &str, text: &str, staged: &BTreeSet<String>) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Exec")?.split_once('='))
        .filter_map(|(_, command)| command.split_whitespace().next())
        .filter(|program| !staged.contains(program.trim_start_matches('/')))
        .map(|program| format!("{unit} starts {program}, which is not staged"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{compare, missing_programs};
    use std::collections::BTreeSet;

    fn staged(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|&file| file.to_owned()).collect()
    }

    #[test]
    fn what_is_left_out_and_what_is_not_there_are_told() {
        let patterns = ["usr/bin/*", "etc/agent.toml", "usr/share/none/*"].map(str::to_owned);
        let files = staged(&[
            "usr/bin/a",
            "usr/bin/deep/b",
            "etc/agent.toml",
            "usr/share/lintian/overrides/egress",
        ]);
        assert_eq!(
            compare("the RPM package", &patterns, &files),
            [
                "the RPM package leaves out usr/bin/deep/b",
                "the RPM package lists usr/share/none/*, and nothing is staged there"
            ]
        );
    }

    #[test]
    fn a_unit_starts_what_is_installed() {
        let files = staged(&["usr/bin/a"]);
        let unit = "ExecStart=/usr/bin/a --arm\nExecReload=/usr/bin/b\nRestart=no\n";
        assert_eq!(
            missing_programs("x.service", unit, &files),
            ["x.service starts /usr/bin/b, which is not staged"]
        );
    }
}
