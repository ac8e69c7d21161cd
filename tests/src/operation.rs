//! Operating an agent: what a person, a script or systemd does to one that runs.

use crate::cgroup;
use crate::process::{Running, paced};
use crate::product::{Agent, audit};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How a command ended, and what it said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub errors: String,
}

impl Said {
    /// Waits for the end of a command.
    pub fn by(running: Running) -> Self {
        let (status, lines, errors) = running.finish();
        Self {
            status,
            out: lines.join("\n"),
            errors,
        }
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started or hangs.
    pub fn of(command: &mut Command) -> Self {
        Self::by(Running::start(command).expect("it starts"))
    }

    /// Asserts that it did what was asked; returns what it printed.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert!(self.status.success(), "should succeed: {self:#?}");
        &self.out
    }

    /// Asserts that it ended with this code, and that every one of these words
    /// stands in what it said on standard error.
    #[track_caller]
    pub fn failed_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        for word in words {
            assert!(self.errors.contains(word), "`{word}` is missing: {self:#?}");
        }
    }

    /// Asserts that it failed before the command that it should run printed anything,
    /// and that every one of these words stands in what it said on standard error.
    #[track_caller]
    pub fn never_ran(&self, words: &[&str]) {
        assert!(!self.status.success(), "{self:#?}");
        assert_eq!(self.out, "", "the command ran");
        for word in words {
            assert!(self.errors.contains(word), "`{word}` is missing: {self:#?}");
        }
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.succeeded()).expect("it prints JSON")
    }
}

/// The details of the records about a sandbox.
pub fn details(records: &[Value]) -> Vec<String> {
    records
        .iter()
        .filter(|record| record["kind"] == "sandbox")
        .filter_map(|record| record["detail"].as_str().map(str::to_owned))
        .collect()
}

impl Agent<'_> {
    /// Runs `egressctl` against this agent to its end.
    pub fn ask(&self, arguments: &[&str]) -> Said {
        Said::by(self.egressctl(arguments).expect("egressctl starts"))
    }

    /// `egressctl status`.
    pub fn status(&self) -> Value {
        self.ask(&["status", "-o", "json"]).json()
    }

    /// `egressctl reload --wait`, which has to succeed.
    #[track_caller]
    pub fn reload(&self) -> Value {
        self.ask(&["reload", "--wait", "-o", "json"]).json()
    }

    /// One request to the control socket; the status code and the body.
    ///
    /// # Panics
    ///
    /// If the agent does not answer.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let mut stream = UnixStream::connect(self.socket()).expect("the agent answers");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("it answers in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.expect("a status code"), body.to_owned())
    }

    /// Asks for a sandbox without a process, which lives as long as the test.
    pub fn create_idle(&self, name: &str, policy: &str) -> (u16, String) {
        let owner = std::process::id();
        let wanted = serde_json::json!({ "name": name, "policy": policy, "owner": owner });
        self.request("POST", "/v1/sandboxes", &wanted)
    }

    /// The same of an agent that may be too ill to answer: what came of it.
    pub fn create_attempt(&self, name: &str, policy: &str) -> Option<String> {
        let owner = std::process::id();
        let body = serde_json::json!({ "name": name, "policy": policy, "owner": owner });
        let body = body.to_string();
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(
            stream,
            "POST /v1/sandboxes HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().next().map(str::to_owned)
    }

    /// Sends the agent a signal.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("the agent runs").cast_signed();
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        rustix::process::kill_process(pid, signal).expect("the agent runs");
    }

    /// Ends the agent as systemd does, and waits for its end.
    pub fn terminate(&mut self) -> Said {
        let running = self.take_running();
        running.signal(Signal::TERM).expect("the agent runs");
        Said::by(running)
    }

    /// What stands in its audit store, oldest first.
    pub fn audit(&self) -> Vec<Value> {
        audit(&self.state())
    }

    /// Whether a record has all of these words in it, in whatever field.
    pub fn recorded(&self, words: &[&str]) -> bool {
        self.awaits_record(|record| {
            let text = record.to_string();
            words.iter().all(|word| text.contains(word))
        })
    }

    /// Whether there is such a record. Records are written in batches and
    /// denials are folded, so it looks until one is there or patience ends.
    pub fn awaits_record(&self, is_it: impl Fn(&Value) -> bool) -> bool {
        let deadline = Instant::now() + paced(Duration::from_secs(10));
        while !self.audit().iter().any(&is_it) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// Its governed root.
    pub fn root_directory(&self) -> PathBuf {
        cgroup::mount()
            .expect("an agent needs cgroup2")
            .join(self.root())
    }
}

/// The names of the programs that are attached to a cgroup, as `bpftool` tells.
///
/// # Panics
///
/// If `bpftool` is not there or fails.
pub fn attached(cgroup: &std::path::Path) -> Vec<String> {
    let said = Said::of(
        Command::new("bpftool")
            .args(["--json", "cgroup", "show"])
            .arg(cgroup),
    );
    if said.succeeded().is_empty() {
        return Vec::new();
    }
    let Value::Array(programs) = said.json() else {
        panic!("no list of programs: {said:#?}");
    };
    programs
        .iter()
        .filter_map(|program| Some(program["name"].as_str()?.to_owned()))
        .collect()
}

/// The id of the map of this name that the programs at a cgroup use, as
/// `bpftool` tells it.
///
/// # Panics
///
/// If there is none.
pub fn map_of(cgroup: &std::path::Path, name: &str) -> String {
    let bpftool = |arguments: &[&str]| {
        let mut command = Command::new("bpftool");
        Said::of(command.arg("--json").args(arguments)).json()
    };
    let cgroup = cgroup.to_str().expect("a path that is text");
    let programs = bpftool(&["cgroup", "show", cgroup]);
    for program in programs.as_array().into_iter().flatten() {
        let shown = bpftool(&["prog", "show", "id", &program["id"].to_string()]);
        for map in shown["map_ids"].as_array().into_iter().flatten() {
            let id = map.to_string();
            if bpftool(&["map", "show", "id", &id])["name"] == name {
                return id;
            }
        }
    }
    panic!("no program at {cgroup} uses a map {name}");
}
