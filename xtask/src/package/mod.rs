//! `cargo xtask package`: a Debian package, an RPM package and a tarball, the
//! same bytes for the same sources.

mod archives;
mod content;
mod stage;
pub mod units;

use crate::vm::unwritable;
use crate::{Failure, setup, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is needed beside cargo, with its Debian package and the reason.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("dpkg-deb", "dpkg", "reads packages"),
    ("lintian", "lintian", "judges the Debian package"),
    ("rpm", "rpm", "reads the RPM package"),
    ("strip", "binutils", "takes symbols out of the programs"),
];

/// Programs that cargo installs, with the release that is known to work.
const TOOLS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    /// Build everything a second time and compare, and let lintian judge.
    #[arg(long)]
    check: bool,
    /// Pack the same programs a second time and compare: what the packagers do is
    /// checked without the minutes of a second build.
    #[arg(long, conflicts_with = "check")]
    check_packing: bool,
    /// From the programs in target/debug: quick, for tests.
    #[arg(long)]
    debug: bool,
}

/// Programs, and where packages of them go.
pub struct Made {
    /// The Debian package.
    pub deb: PathBuf,
    rpm: PathBuf,
    tarball: PathBuf,
}

/// Makes the packages.
pub fn run(options: &Options) -> Result<(), Failure> {
    setup::run_first()?;
    provide()?;
    let output = shell::workspace().join("target/package");
    let programs = build(options.debug, &output)?;
    let made = pack(&programs, options.debug, &output)?;
    let again = output.join("again");
    if options.check_packing {
        same(&made, &pack(&programs, options.debug, &again)?)?;
        eprintln!("package: packed twice, the same bytes");
    }
    if options.check {
        let programs = build(options.debug, &again)?;
        same(&made, &pack(&programs, options.debug, &again)?)?;
        eprintln!("package: built twice, the same bytes");
        shell::run(
            Command::new("lintian")
                .args(["--fail-on", "error,warning"])
                .arg(&made.deb),
        )?;
        shell::run(Command::new("rpm").args(["-qpl"]).arg(&made.rpm))?;
    }
    for path in [&made.deb, &made.rpm, &made.tarball] {
        println!("{}", path.display());
    }
    Ok(())
}

/// A quick Debian package of a version, for tests.
pub fn deb_for_tests(version: &str, output: &Path) -> Result<PathBuf, Failure> {
    provide()?;
    let programs = shell::workspace().join("target/debug");
    let stage = stage::Stage::make(&programs, version, output)?;
    archives::deb(&stage, version, output, true)
}

/// Stages the tree with the programs of the last debug build, and compares it with
/// what the packagers are told; needs none of them.
pub fn check_content() -> Result<(), Failure> {
    let output = shell::workspace().join("target/package");
    let programs = shell::workspace().join("target/debug");
    let stage = stage::Stage::make(&programs, env!("CARGO_PKG_VERSION"), &output)?;
    content::check(&stage)
}

/// Whether a tree can be staged here.
pub fn can_be_staged() -> bool {
    shell::find("strip").is_some()
}

fn provide() -> Result<(), Failure> {
    setup::provide(&PROGRAMS)?;
    for (tool, version) in TOOLS {
        if shell::find(tool).is_none() {
            let mut cargo = shell::cargo();
            cargo.args(["install", tool, "--version", version, "--locked"]);
            shell::run(&mut cargo)?;
        }
    }
    Ok(())
}

/// Stages the tree with these programs and hands it to the packagers.
fn pack(programs: &Path, debug: bool, output: &Path) -> Result<Made, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let stage = stage::Stage::make(programs, version, output)?;
    content::check(&stage)?;
    Ok(Made {
        deb: archives::deb(&stage, version, output, debug)?,
        rpm: archives::rpm(&stage, output, debug)?,
        tarball: archives::tarball(&stage, version, output)?,
    })
}

/// Builds the programs, and says where they are.
fn build(debug: bool, output: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(output).map_err(unwritable(output))?;
    if debug {
        shell::run(shell::cargo().arg("build"))?;
        return Ok(shell::workspace().join("target/debug"));
    }
    build_release(output)
}

/// Builds the programs in a directory of their own, without a trace of where.
fn build_release(output: &Path) -> Result<PathBuf, Failure> {
    let target = output.join("build");
    let workspace = shell::workspace();
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    // The last that matches counts, so what is inside comes later.
    let flags = [
        remap(&home, "/cargo"),
        remap(&workspace, "/egress"),
        remap(&target, "/target"),
    ];
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--release", "--locked", "--bins"])
        .args(["--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    shell::run(&mut cargo)?;
    Ok(target.join("release"))
}

/// Whether two makings gave the same bytes.
fn same(made: &Made, again: &Made) -> Result<(), Failure> {
    for (one, other) in [
        (&made.deb, &again.deb),
        (&made.rpm, &again.rpm),
        (&made.tarball, &again.tarball),
    ] {
        let read = |path: &Path| fs::read(path).map_err(unwritable(path));
        if read(one)? != read(other)? {
            return Err(Failure::new(format!(
                "{} differs from {}: the build is not reproducible",
                one.display(),
                other.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Made, same};
    use std::fs;
    use std::path::Path;

    fn made(directory: &Path, rpm: &str) -> Made {
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).expect("writable");
            path
        };
        fs::create_dir_all(directory).expect("writable");
        Made {
            deb: file("deb", "one"),
            rpm: file("rpm", rpm),
            tarball: file("tarball", "two"),
        }
    }

    #[test]
    fn other_bytes_are_told_with_the_file() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let at = |name: &str| directory.path().join(name);
        let first = made(&at("first"), "three");
        assert!(same(&first, &made(&at("again"), "three")).is_ok());
        let differs = same(&first, &made(&at("again"), "four"));
        let words = differs.expect_err("other bytes").to_string();
        assert!(words.contains("first/rpm differs"), "{words}");
    }
}
