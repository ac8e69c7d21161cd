//! Other programs: finding them, starting them, saying what was started.

use crate::Failure;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory of the workspace.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// The cargo that runs this, so that everything is built by one.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// A cargo whose tests can be sent signals: a shell that starts something in the
/// background has it ignore some, and what is ignored is inherited.
pub fn testing_cargo() -> Command {
    let cargo = cargo();
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(cargo.get_program());
    command.current_dir(workspace());
    command
}

/// Prints a command and runs it; its output goes where ours goes.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let line = line(command);
    eprintln!("+ {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("`{line}` ended with {status}"))),
        Err(error) => Err(Failure::new(format!("`{line}` cannot be started: {error}"))),
    }
}

/// Runs a command and returns what it prints; its errors go where ours go.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let line = line(command);
    match command.stderr(Stdio::inherit()).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(Failure::new(format!(
            "`{line}` ended with {}",
            output.status
        ))),
        Err(error) => Err(Failure::new(format!("`{line}` cannot be started: {error}"))),
    }
}

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Finds a program as a shell would, and also where only root's shell looks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Says whether this process is root's.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The command, run as root: as it is, or through sudo.
pub fn as_root(program: &str) -> Result<Command, Failure> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find("sudo").ok_or_else(|| {
        Failure::new(format!(
            "`{program}` needs root: run this as root, or install sudo"
        ))
    })?;
    let mut command = Command::new(sudo);
    // apt and the tests are told by the environment what they may do.
    command.args(["--preserve-env", "--", program]);
    Ok(command)
}

/// Lets cargo build as whoever it is, and run what it built through sudo.
pub fn run_programs_as_root(cargo: &mut Command) {
    let runner = "target.'cfg(unix)'.runner=['sudo', '--preserve-env', '--']";
    cargo.args(["--config", runner]);
}
