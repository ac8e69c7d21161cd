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
    let made = make(options, &output)?;
    if options.check {
        let again = make(options, &output.join("again"))?;
        same(&made, &again)?;
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

fn make(options: &Options, output: &Path) -> Result<Made, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    fs::create_dir_all(output).map_err(unwritable(output))?;
    let programs = if options.debug {
        shell::run(shell::cargo().arg("build"))?;
        shell::workspace().join("target/debug")
    } else {
        build(output)?
    };
    let stage = stage::Stage::make(&programs, version, output)?;
    content::check(&stage)?;
    Ok(Made {
        deb: archives::deb(&stage, version, output, options.debug)?,
        rpm: archives::rpm(&stage, output)?,
        tarball: archives::tarball(&stage, version, output)?,
    })
}

/// Builds the programs in a directory of their own, without a trace of where.
fn build(output: &Path) -> Result<PathBuf, Failure> {
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
    eprintln!("package: built twice, the same bytes");
    Ok(())
}
