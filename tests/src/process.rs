//! Processes that end with the test that started them.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Set in the virtual machines of `cargo xtask vm`: how many times slower than a
/// real machine an emulated one may be.
const SLOWER: &str = "EGRESS_TIMES_SLOWER";

/// A time within which something has to happen, or after which something is
/// made to happen, on the machine that this is.
///
/// # Panics
///
/// If what the environment says of the machine is no number.
pub fn paced(real: Duration) -> Duration {
    let times = std::env::var(SLOWER).map_or(1, |times| times.parse().expect("a number"));
    real * times
}

/// How long a process may take to do what it was asked, on a busy machine. Only
/// a test that fails waits so long.
pub fn patience() -> Duration {
    paced(Duration::from_secs(90)).min(Duration::from_secs(300))
}

/// A child process with a line-wise conversation. Dropping it ends it: first
/// with a request, so that it can clean up, then by force.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// Starts it, with all three streams connected to the test.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                io::Error::other(format!("{}: {error}", command.get_program().display()))
            })?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                // When nobody listens any more the rest is of no interest.
                let _ = lines.map(|line| sender.send(line)).all(|sent| sent.is_ok());
            });
        }
        let errors = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                // What could be read until then is still worth showing.
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        Ok(Self {
            child,
            lines,
            errors,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line that it prints; `None` when there will be none.
    ///
    /// # Panics
    ///
    /// If it says nothing for [`patience()`].
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(patience()) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("process {} said nothing for {:?}", self.pid(), patience())
            }
        }
    }

    /// Writes it a line.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .ok_or_else(|| io::Error::other("stdin is closed"))?;
        writeln!(stdin, "{line}")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = pid(self.pid()).ok_or_else(|| io::Error::other("no process id"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Closes its input and waits until it ends; returns what it had to say:
    /// status, remaining lines, errors.
    ///
    /// # Panics
    ///
    /// If it does not end within [`patience()`].
    pub fn finish(mut self) -> (ExitStatus, Vec<String>, String) {
        drop(self.child.stdin.take());
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        let status = self
            .wait(patience())
            .expect("it closed its output and does not end");
        let errors = self
            .errors
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        (status, lines, errors)
    }

    /// Waits until it ends, at most so long.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::TERM);
        if self.wait(Duration::from_secs(3)).is_none() {
            // Both can only fail because it just ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The running descendants of a process with this command name, which the
/// kernel cuts to 15 bytes.
pub fn descendants(ancestor: u32, command: &str) -> Vec<u32> {
    let command = &command[..command.len().min(15)];
    let is_process = |name: &str| name.parse::<u32>().ok();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| is_process(&entry.file_name().to_string_lossy()))
        .filter(|&pid| parent_and_command(pid).is_some_and(|(_, name)| name == command))
        .filter(|&pid| descends(pid, ancestor))
        .collect();
    found.sort_unstable();
    found
}

fn descends(mut process: u32, ancestor: u32) -> bool {
    while process > 1 {
        let Some((parent, _)) = parent_and_command(process) else {
            return false;
        };
        if parent == ancestor {
            return true;
        }
        process = parent;
    }
    false
}

fn parent_and_command(pid: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may itself contain parentheses, so it ends at the last one.
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, command) = before.split_once(" (")?;
    Some((after.split(' ').nth(1)?.parse().ok()?, command.to_owned()))
}

fn pid(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}
