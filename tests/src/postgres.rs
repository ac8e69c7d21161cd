//! A real PostgreSQL server of a test's own, on a Unix socket.

use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian puts the server of the release; `cargo xtask setup` installs it.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// Nobody's ids: the server refuses to be root.
const NOBODY: u32 = 65_534;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, and its server while it runs. Dropping it ends the server as a
/// crash would, and removes the cluster.
#[derive(Debug)]
pub struct Postgres {
    directory: tempfile::TempDir,
    durable: bool,
    process: Option<Child>,
}

fn program(name: &str) -> Command {
    let mut command = Command::new(format!("{PROGRAMS}/{name}"));
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    command
}

impl Postgres {
    /// Makes a cluster in the directory for temporary files. A `durable` one waits
    /// for the disk, as one in production does.
    ///
    /// # Panics
    ///
    /// Where PostgreSQL is not installed.
    pub fn make(durable: bool) -> Self {
        Self::make_in(&std::env::temp_dir(), durable)
    }

    /// Makes a cluster below a directory that everybody may enter.
    ///
    /// # Panics
    ///
    /// Where PostgreSQL is not installed.
    pub fn make_in(parent: &Path, durable: bool) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("postgres-")
            .tempdir_in(parent)
            .expect("a directory");
        if geteuid().is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        let made = program("initdb")
            .args(["--username=egress", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C", "-D"])
            .arg(directory.path().join("data"))
            .status()
            .expect("initdb runs; `cargo xtask setup` installs it");
        assert!(made.success(), "initdb: {made}");
        Self {
            directory,
            durable,
            process: None,
        }
    }

    /// Starts the server, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn start(&mut self) {
        let process = program("postgres")
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .arg("-k")
            .arg(self.directory.path())
            .args(["-c", "listen_addresses=", "-c"])
            .arg(if self.durable {
                "fsync=on"
            } else {
                "fsync=off"
            })
            .spawn()
            .expect("postgres runs");
        self.process = Some(process);
        let begun = Instant::now();
        loop {
            let ready = program("pg_isready")
                .arg("-q")
                .arg("-h")
                .arg(self.directory.path())
                .status()
                .expect("pg_isready runs");
            if ready.success() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "pg_isready: {ready}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the server as a crash does.
    ///
    /// # Panics
    ///
    /// If it cannot be ended.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGQUIT ends all of its processes at once, and nothing is finished.
            let ended = kill_process(Pid::from_child(&process), Signal::QUIT);
            let waited: io::Result<_> = process.wait();
            ended.expect("it ran");
            waited.expect("it ended");
        }
    }

    /// How clients reach it.
    pub fn url(&self) -> String {
        format!(
            "postgres://egress@localhost/postgres?host={}",
            self.directory().display()
        )
    }

    /// The directory of its socket.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
