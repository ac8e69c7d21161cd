//! Builds the kernel object, so that `cargo build` alone gives a whole agent.
//!
//! The paths of the objects are left in `EGRESS_EBPF_OBJECT` and
//! `EGRESS_LSM_OBJECT` for the code that embeds them. Which compiler builds it is decided in `xtask/src/toolchain.rs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{Machine, Toolchain};

/// What the object depends on, relative to the workspace.
const SOURCES: [&str; 7] = [
    "Cargo.lock",
    "Cargo.toml",
    "egress-common/Cargo.toml",
    "egress-common/src",
    "egress-ebpf/Cargo.toml",
    "egress-ebpf/src",
    "xtask/src/toolchain.rs",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .ok_or(format!("cargo did not set {name}"))
    };
    let package = variable("CARGO_MANIFEST_DIR")?;
    let workspace = package
        .parent()
        .ok_or("the package is not in a workspace")?;
    for source in SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    let toolchain = Toolchain::find(&Machine::here()).map_err(|missing| missing.to_string())?;
    let target_dir = variable("OUT_DIR")?.join("ebpf");
    let (command, object) = toolchain.build(&variable("CARGO")?, workspace, &target_dir);
    run(command, &toolchain)?;
    println!("cargo::rustc-env=EGRESS_EBPF_OBJECT={}", utf8(&object)?);
    // The programs that few kernels let run are an object of their own.
    let lsm = object.with_file_name("egress-lsm");
    println!("cargo::rustc-env=EGRESS_LSM_OBJECT={}", utf8(&lsm)?);
    Ok(())
}

/// Runs the inner cargo; its messages are shown when it fails, and its
/// warnings are passed on when it does not.
fn run(mut command: std::process::Command, toolchain: &Toolchain) -> Result<(), String> {
    let output = command.output().map_err(|error| {
        format!(
            "{} cannot be started: {error}",
            command.get_program().display()
        )
    })?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "{messages}\negress-ebpf does not build with {toolchain}"
        ));
    }
    for warning in messages.lines().filter(|line| line.starts_with("warning:")) {
        println!("cargo::warning=egress-ebpf: {warning}");
    }
    Ok(())
}

fn utf8(path: &Path) -> Result<&str, String> {
    path.to_str()
        .ok_or_else(|| format!("{} is not UTF-8, which cargo needs", path.display()))
}
