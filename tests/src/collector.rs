//! A real syslog collector: rsyslog parses what arrives.

use crate::World;
use crate::process::{Running, patience};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A collector in the near namespace that writes what it understood, a message a
/// line: structured data, host, program, kind, priority and text.
#[derive(Debug)]
pub struct Collector {
    directory: PathBuf,
    running: Option<Running>,
}

impl Collector {
    /// Writes its configuration, which takes messages by `input`; it is not started.
    pub fn new(directory: &Path, input: &str) -> Self {
        let directory = directory.to_owned();
        fs::create_dir_all(&directory).expect("made");
        let place = directory.display();
        let configuration = format!(
            "global(workDirectory=\"{place}\" maxMessageSize=\"16k\" \
               defaultNetstreamDriverCAFile=\"{place}/cert.pem\" \
               defaultNetstreamDriverCertFile=\"{place}/cert.pem\" \
               defaultNetstreamDriverKeyFile=\"{place}/key.pem\")\n\
             {input}\n\
             template(name=\"seen\" type=\"string\" \
               string=\"%structured-data%\\t%hostname%\\t%app-name%\\t%msgid%\\t%pri%\\t%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{place}/seen\" template=\"seen\" asyncWriting=\"off\")\n"
        );
        fs::write(directory.join("rsyslog.conf"), configuration).expect("written");
        Self {
            directory,
            running: None,
        }
    }

    /// Starts it beside the agent.
    ///
    /// # Panics
    ///
    /// If rsyslog is not installed.
    pub fn start(&mut self, world: &World) {
        let mut command = Command::new("rsyslogd");
        command
            .args(["-n", "-f"])
            .arg(self.directory.join("rsyslog.conf"))
            .arg("-i")
            .arg(self.directory.join("pid"));
        let running = world.near.run(|| Running::start(&mut command));
        self.running = Some(running.expect("rsyslog is installed; run `cargo xtask setup`"));
    }

    /// Waits until it takes connections at this port.
    ///
    /// # Panics
    ///
    /// If it does not within [`patience()`].
    pub fn await_port(&self, world: &World, port: u16) {
        let deadline = Instant::now() + patience();
        while world
            .near
            .run(|| TcpStream::connect(("127.0.0.1", port)))
            .is_err()
        {
            assert!(Instant::now() < deadline, "nobody listens at port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would.
    ///
    /// # Panics
    ///
    /// If it cannot be ended.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running
                .signal(rustix::process::Signal::KILL)
                .expect("it runs");
            running.wait(patience());
        }
    }

    /// The file that it writes.
    pub fn file(&self) -> PathBuf {
        self.directory.join("seen")
    }

    /// What it understood, a message a line.
    pub fn seen(&self) -> String {
        fs::read_to_string(self.file()).unwrap_or_default()
    }

    /// Waits for a line with all of these in it.
    ///
    /// # Panics
    ///
    /// If there is none within [`patience()`].
    #[track_caller]
    pub fn line(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + patience();
        loop {
            let seen = self.seen();
            if let Some(line) = seen
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
            {
                return line.to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "no message with {parts:?} in:\n{seen}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The sequence numbers of all messages.
    pub fn sequences(&self) -> BTreeSet<i64> {
        let number = |line: &str| {
            let (_, rest) = line.split_once("sequence=\"")?;
            rest.split_once('"')?.0.parse().ok()
        };
        self.seen().lines().filter_map(number).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}
