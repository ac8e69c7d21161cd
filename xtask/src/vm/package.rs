//! The package on a machine of its own: installed, used as `docs/operations.md`
//! says, upgraded, removed, and booted again.

use super::guest::Share;
use super::kernel::{Bootable, Kernel, unwritable};
use super::machine::{Disk, Ending};
use super::{Cell, Ground};
use crate::test::Tally;
use crate::{Failure, package, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The version that is there, and one that follows it.
const VERSIONS: [&str; 2] = [env!("CARGO_PKG_VERSION"), "0.1.1"];
/// The section whose commands are run.
const SECTION: &str = "\n## Ten minutes";

/// The scripts of the two boots.
pub const BOOTS: [&str; 2] = ["boot1", "boot2"];

/// Makes the packages of both versions.
pub fn packages() -> Result<Vec<PathBuf>, Failure> {
    shell::run(shell::cargo().arg("build"))?;
    let output = shell::workspace().join("target/package/test");
    VERSIONS
        .iter()
        .map(|version| package::deb_for_tests(version, &output))
        .collect()
}

/// Boots twice with one root file system.
pub fn test(ground: &Ground, kernel: Kernel, limit: Duration) -> Result<Vec<Cell>, Failure> {
    let packages = packages()?;
    let bootable = Bootable::prepare(kernel, &ground.cache)?;
    let root = ground.cache.join("root.kept");
    let mut copy = Command::new("cp");
    copy.arg("--sparse=always").arg(&ground.root).arg(&root);
    shell::run(&mut copy)?;
    let mut cells = Vec::new();
    for boot in BOOTS {
        let share = share(&ground.cache, boot, &packages)?;
        let name = format!("package-{boot}");
        let (ending, streams) =
            ground.boot_from(Disk::Kept(&root), kernel, &bootable, &share, &name, limit)?;
        let mut tally = Tally::default();
        for line in streams.stdout().lines() {
            tally.line(line);
        }
        let got_through = matches!(ending, Ending::Exited(_)) && tally != Tally::default();
        cells.push(Cell {
            suite: name,
            release: bootable.release.clone(),
            ending,
            tally,
        });
        // The second boot is one of what the first has left.
        if !got_through {
            break;
        }
    }
    fs::remove_file(&root).map_err(unwritable(&root))?;
    Ok(cells)
}

/// What one boot works with.
pub fn share(cache: &Path, boot: &str, packages: &[PathBuf]) -> Result<Share, Failure> {
    let read = |path: &Path| fs::read_to_string(path).map_err(unwritable(path));
    let scripts = shell::workspace().join("packaging/test");
    let share = Share::new(cache, &read(&scripts.join(boot).with_extension("sh"))?)?;
    for name in ["common.sh", "server.py", "client.py", "attempt.py"] {
        share.add(&scripts.join(name), name)?;
    }
    for package in packages {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        share.add(package, &name)?;
    }
    let operations = read(&shell::workspace().join("docs/operations.md"))?;
    let script = cache.join("operations.sh");
    fs::write(&script, typed(&operations)).map_err(unwritable(&script))?;
    share.add(&script, "operations.sh")?;
    Ok(share)
}

/// The section as a script: what is in a `yaml` or `ini` fence is written to the
/// file that the line before it names; each command of a `console` fence is a
/// check.
fn typed(page: &str) -> String {
    let (_, section) = page.split_once(SECTION).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let (mut script, mut file, mut fence) = (String::new(), None, None);
    for line in section.lines() {
        let line = line.strip_prefix("   ").unwrap_or(line);
        match (fence, line.trim()) {
            (None, "```yaml" | "```ini") => {
                let path = file.unwrap_or("/dev/null");
                script += &format!("cat >{path} <<'END_OF_FILE'\n");
                fence = Some("file");
            }
            (None, "```console") => fence = Some("console"),
            (None, text) => {
                if let Some((_, rest)) = text.split_once("Write `") {
                    file = rest.split('`').next();
                }
            }
            (Some(kind), "```") => {
                if kind == "file" {
                    script += "END_OF_FILE\n";
                }
                fence = None;
            }
            (Some("file"), _) => script += &format!("{line}\n"),
            (Some(_), command) => {
                let command = command.trim_start_matches("# ");
                let quoted = command.replace('\'', r"'\''");
                script += &format!("check 'operations.md: {quoted}' bash -c '{quoted}'\n");
            }
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::typed;

    #[test]
    fn files_are_written_and_commands_are_checks() {
        let page = "x\n## Ten minutes: y\n\n1. Write `/etc/a.yaml`:\n\n   ```yaml\n   a:\n     b: 1\n   ```\n\n   ```console\n   # cat 'it'\n   ```\n\n## More\n\n```console\n# never\n```\n";
        assert_eq!(
            typed(page),
            "cat >/etc/a.yaml <<'END_OF_FILE'\na:\n  b: 1\nEND_OF_FILE\n\
             check 'operations.md: cat '\\''it'\\''' bash -c 'cat '\\''it'\\'''\n"
        );
    }

    #[test]
    fn the_page_has_the_section() {
        let script = typed(include_str!("../../../docs/operations.md"));
        assert!(script.contains("apt-get install"), "{script}");
        assert!(
            script.contains("/etc/egress/policies.d/backup.yaml"),
            "{script}"
        );
        assert!(script.matches("check '").count() > 10, "{script}");
    }
}
