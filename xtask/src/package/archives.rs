//! From the staged tree to files that can be installed.

use super::stage::{self, Stage};
use crate::{Failure, shell};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The time of every file: that of the last commit, so that the same sources
/// give the same packages.
fn epoch() -> Result<String, Failure> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(shell::workspace());
    Ok(shell::output(&mut git)?.trim().to_owned())
}

/// A Debian package; what is in it says `[package.metadata.deb]`.
///
/// `fast` compresses little, for packages that are installed once.
pub fn deb(_: &Stage, version: &str, output: &Path, fast: bool) -> Result<PathBuf, Failure> {
    let version = stage::debian(version);
    let path = output.join(format!("egress_{version}_amd64.deb"));
    let mut cargo = shell::cargo();
    cargo
        .args([
            "deb",
            "--package",
            "egress-agent",
            "--no-build",
            "--no-strip",
        ])
        .args(fast.then_some("--fast"))
        // It tells of each file that it was told not to build.
        .args(["--quiet", "--deb-version", &version, "--output"])
        .arg(&path)
        .env("SOURCE_DATE_EPOCH", epoch()?);
    shell::run(&mut cargo)?;
    Ok(path)
}

/// An RPM package; what is in it says `[package.metadata.generate-rpm]`.
///
/// `fast` compresses little, as for [`deb`].
pub fn rpm(_: &Stage, output: &Path, fast: bool) -> Result<PathBuf, Failure> {
    let path = output.join(format!("egress-{}.x86_64.rpm", env!("CARGO_PKG_VERSION")));
    let mut cargo = shell::cargo();
    cargo
        .args(["generate-rpm", "--package", "egress-agent"])
        .args(fast.then_some("--payload-compress=gzip"))
        .args(["--source-date", &epoch()?, "--output"])
        .arg(&path);
    shell::run(&mut cargo)?;
    Ok(path)
}

/// A tarball of the tree, for hosts with neither.
pub fn tarball(stage: &Stage, version: &str, output: &Path) -> Result<PathBuf, Failure> {
    let path = output.join(format!("egress-{version}-x86_64.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0"])
        .args(["--numeric-owner", "--mode=u+rwX,go+rX,go-w"])
        .arg(format!("--mtime=@{}", epoch()?))
        .args(["--use-compress-program", "gzip --no-name"])
        .arg("--file")
        .arg(&path)
        .arg("--directory")
        .arg(&stage.root)
        .arg(".");
    shell::run(&mut tar)?;
    Ok(path)
}
