//! The tree that is packaged: everything at the place where it is installed.

use crate::vm::unwritable;
use crate::{Failure, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of the repository, and where they are installed.
const FILES: [(&str, &str); 12] = [
    ("packaging/systemd/egress.slice", "usr/lib/systemd/system"),
    (
        "packaging/systemd/egress-controllers.slice",
        "usr/lib/systemd/system",
    ),
    (
        "packaging/systemd/egress-arm.service",
        "usr/lib/systemd/system",
    ),
    (
        "packaging/systemd/egress-agent.service",
        "usr/lib/systemd/system",
    ),
    ("packaging/tmpfiles/egress.conf", "usr/lib/tmpfiles.d"),
    (
        "packaging/journal/egress.catalog",
        "usr/lib/systemd/catalog",
    ),
    ("packaging/etc/agent.toml", "etc/egress"),
    ("packaging/etc/policies.d/README", "etc/egress/policies.d"),
    ("packaging/man/egress-policy.5", "usr/share/man/man5"),
    ("docs/operations.md", "usr/share/doc/egress"),
    ("docs/policy.md", "usr/share/doc/egress"),
    ("docs/guarantees.md", "usr/share/doc/egress"),
];

/// Shells, and where their completions are installed.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/egressctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_egressctl"),
    ("fish", "usr/share/fish/vendor_completions.d/egressctl.fish"),
];

/// Scripts of the Debian package.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// The version of the Debian package: what is packaged, and the first packaging
/// of it.
pub fn debian(version: &str) -> String {
    format!("{version}-1")
}

/// A staged tree.
pub struct Stage {
    /// The tree as it is installed.
    pub root: PathBuf,
    /// The Debian package's scripts and changelog.
    pub scripts: PathBuf,
}

impl Stage {
    /// Stages programs and everything that goes with them.
    ///
    /// It is always the same directory, since the packagers' settings name it.
    pub fn make(programs: &Path, version: &str, output: &Path) -> Result<Self, Failure> {
        let base = shell::workspace().join("target/package");
        let stage = Self {
            root: base.join("root"),
            scripts: base.join("scripts"),
        };
        for directory in [&stage.root, &stage.scripts] {
            if directory.exists() {
                fs::remove_dir_all(directory).map_err(unwritable(directory))?;
            }
            fs::create_dir_all(directory).map_err(unwritable(directory))?;
        }
        fs::create_dir_all(output).map_err(unwritable(output))?;
        stage.programs(programs)?;
        stage.files()?;
        stage.overrides()?;
        stage.changelog()?;
        stage.generated(programs)?;
        stage.scripts(version)?;
        Ok(stage)
    }

    fn place(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.root.join(name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(unwritable(directory))?;
        }
        Ok(path)
    }

    fn programs(&self, programs: &Path) -> Result<(), Failure> {
        for (name, place) in [("egressctl", "usr/bin"), ("egress-agent", "usr/sbin")] {
            let target = self.place(&format!("{place}/{name}"))?;
            let mut strip = Command::new("strip");
            strip.arg("--strip-unneeded").arg("-o").arg(&target);
            shell::run(strip.arg(programs.join(name)))?;
        }
        Ok(())
    }

    fn files(&self) -> Result<(), Failure> {
        let workspace = shell::workspace();
        let mut files: Vec<(PathBuf, &str)> = FILES
            .iter()
            .map(|(file, place)| (workspace.join(file), *place))
            .collect();
        let policies = workspace.join("policies");
        for entry in fs::read_dir(&policies).map_err(unwritable(&policies))? {
            let path = entry.map_err(unwritable(&policies))?.path();
            if path.extension().is_some_and(|ending| ending == "yaml") {
                files.push((path, "usr/share/egress/policies"));
            }
        }
        for (file, place) in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let target = self.place(&format!("{place}/{name}"))?;
            fs::copy(&file, &target).map_err(unwritable(&file))?;
        }
        Ok(())
    }

    /// The changelog, under the name and in the form in which Debian keeps it.
    fn changelog(&self) -> Result<(), Failure> {
        let file = shell::workspace().join("CHANGELOG.md");
        let target = self.place("usr/share/doc/egress/changelog")?;
        fs::copy(&file, &target).map_err(unwritable(&file))?;
        let mut gzip = Command::new("gzip");
        shell::run(gzip.args(["--best", "--no-name"]).arg(&target))
    }

    /// What lintian is told about, under the package's name.
    fn overrides(&self) -> Result<(), Failure> {
        let file = shell::workspace().join("packaging/debian/lintian-overrides");
        let target = self.place("usr/share/lintian/overrides/egress")?;
        fs::copy(&file, target).map(drop).map_err(unwritable(&file))
    }

    /// What the programs say about themselves.
    fn generated(&self, programs: &Path) -> Result<(), Failure> {
        let egressctl = programs.join("egressctl");
        let says = |arguments: &[&str]| shell::output(Command::new(&egressctl).args(arguments));
        for (shell, place) in COMPLETIONS {
            let path = self.place(place)?;
            fs::write(&path, says(&["completion", shell])?).map_err(unwritable(&path))?;
        }
        let page = self.place("usr/share/man/man5/egress-agent.toml.5")?;
        fs::write(&page, configuration_page()?).map_err(unwritable(&page))?;
        let schema = self.place("usr/share/egress/policy.schema.json")?;
        fs::write(&schema, says(&["policy", "schema"])?).map_err(unwritable(&schema))?;
        let pages = self.root.join("usr/share/man/man1");
        fs::create_dir_all(&pages).map_err(unwritable(&pages))?;
        shell::run(Command::new(&egressctl).args(["man", "--out"]).arg(&pages))?;
        let agent = self.place("usr/share/man/man8/egress-agent.8")?;
        fs::rename(pages.join("egress-agent.8"), &agent).map_err(unwritable(&agent))
    }

    fn scripts(&self, version: &str) -> Result<(), Failure> {
        let directory = shell::workspace().join("packaging/debian");
        for name in SCRIPTS.into_iter().chain(["changelog"]) {
            let source = directory.join(name);
            let text = fs::read_to_string(&source).map_err(unwritable(&source))?;
            let target = self.scripts.join(name);
            fs::write(&target, text.replace("#VERSION#", &debian(version)))
                .map_err(unwritable(&target))?;
        }
        Ok(())
    }
}

/// The man page of the configuration, with the keys of `docs/operations.md`.
fn configuration_page() -> Result<String, Failure> {
    let workspace = shell::workspace();
    let read = |name: &str| {
        let path = workspace.join(name);
        fs::read_to_string(&path).map_err(unwritable(&path))
    };
    let page = read("packaging/man/egress-agent.toml.5")?;
    Ok(page.replace("@KEYS@\n", &keys(&read("docs/operations.md")?)))
}

/// The table of keys in roff.
fn keys(operations: &str) -> String {
    let table = operations.split_once("| key | default | meaning |");
    let rows = table.map_or("", |(_, rows)| rows).lines().skip(2);
    let mut text = String::new();
    for row in rows.take_while(|row| row.starts_with('|')) {
        let plain = row
            .replace('`', "")
            .replace('\\', "\\e")
            .replace('-', "\\-");
        let mut cells = plain.trim_matches('|').splitn(3, " | ").map(str::trim);
        if let (Some(key), Some(default), Some(meaning)) =
            (cells.next(), cells.next(), cells.next())
        {
            text += &format!(".TP\n.B {key}\n{meaning}. By default: {default}.\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{configuration_page, keys};

    #[test]
    fn the_table_of_keys_becomes_a_list() {
        let table = "x\n| key | default | meaning |\n|---|---|---|\n\
                     | `root` | `\"egress\"` | the root: one or two |\n\nmore\n";
        assert_eq!(
            keys(table),
            ".TP\n.B root\nthe root: one or two. By default: \"egress\".\n"
        );
        let page = configuration_page().expect("a page");
        assert!(page.contains(".B upstreams\n"), "{page}");
    }
}
