//! Cleaning up whatever happens: a process outside of the driver's process
//! group owns the cgroup, and removes it with everything inside when the
//! driver ends, be it by Ctrl-C, a panic or SIGKILL.

use egress_tests::Cgroup;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The driver's handle on the guardian, and on the cgroup.
pub struct Guarded {
    guardian: Child,
    path: PathBuf,
}

impl Guarded {
    /// Starts a guardian.
    pub fn cgroup() -> io::Result<Self> {
        let mut guardian = Command::new(std::env::current_exe()?)
            .arg("guardian")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the foreground's process group.
            .process_group(0)
            .spawn()?;
        let mut path = String::new();
        if let Some(stdout) = guardian.stdout.take() {
            BufReader::new(stdout).read_line(&mut path)?;
        }
        let path = PathBuf::from(path.trim_end());
        if path.as_os_str().is_empty() {
            return Err(io::Error::other("the guardian made no cgroup"));
        }
        Ok(Self { guardian, path })
    }

    /// The cgroup.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        // It says itself what it could not remove.
        let _ = self.guardian.wait();
    }
}

/// The guardian: removing the cgroup also ends the workers in it and releases
/// the programs that are attached below it.
pub fn run() -> io::Result<()> {
    let cgroup = Cgroup::new()?;
    println!("{}", cgroup.path().display());
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(cgroup);
    Ok(())
}
