//! The product, driven as a person drives it: by its command line.

use crate::World;
use crate::cgroup;
use crate::feature::Feature;
use crate::probe::{Attempt, PROGRAM};
use crate::process::{Running, patience};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Finds a binary of this workspace beside the running program.
///
/// # Panics
///
/// If it was not built.
pub fn binary(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("a process can find its own program");
    // Tests live in `deps`, one below the binaries.
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not built; run `cargo build` or `cargo xtask test`"))
}

/// `egressctl run --ephemeral` in the near namespace of a world.
#[derive(Debug)]
pub struct Ephemeral<'w> {
    world: &'w World,
    policy: PathBuf,
    state: PathBuf,
    options: Vec<OsString>,
}

impl<'w> Ephemeral<'w> {
    /// Prepares a run under this policy, with the world's upstream resolver.
    pub fn new(world: &'w World, policy: &str) -> Self {
        let directory = world.fresh_directory();
        let file = directory.join("policy.yaml");
        fs::write(&file, policy).expect("the world's directory is writable");
        let state = directory.join("state");
        let upstream = format!("{}:53", crate::address::UPSTREAM_V4);
        let options = ["--upstream".into(), upstream.into()].to_vec();
        Self {
            world,
            policy: file,
            state,
            options,
        }
    }

    /// Adds options of `egressctl run`.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(OsString::from));
        self
    }

    /// The policy's file.
    pub fn policy(&self) -> &Path {
        &self.policy
    }

    /// Where this agent keeps its state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Lets the probe do these steps in a sandbox, and waits for the end.
    pub fn attempt(&self, steps: &[&str]) -> Outcome {
        Outcome::of(self.start(steps))
    }

    /// Lets the probe begin these steps in a sandbox.
    pub fn start(&self, steps: &[&str]) -> Running {
        let probe = self.world.probe();
        let command = std::iter::once(probe.as_os_str()).chain(steps.iter().map(OsStr::new));
        self.run(command)
    }

    /// Starts any command in a sandbox.
    pub fn run<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> Running {
        let mut egressctl = self.command(command);
        self.world
            .near
            .run(|| Running::start(&mut egressctl))
            .expect("egressctl starts")
    }

    /// The `egressctl` that runs a command in a sandbox, for tests that give it
    /// other streams. It has to be started in the near namespace.
    pub fn command<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> Command {
        let mut egressctl = Command::new(binary("egressctl"));
        egressctl
            .args(["run", "--ephemeral", "--policy"])
            .arg(&self.policy)
            .arg("--state")
            .arg(&self.state)
            .args(&self.options)
            .arg("--")
            .args(command);
        egressctl
    }

    /// What stands in the audit store, oldest first.
    pub fn audit(&self) -> Vec<Value> {
        audit(&self.state)
    }
}

/// What stands in the audit store of an agent with this state directory,
/// oldest first.
///
/// # Panics
///
/// If there is none, or `egressctl` cannot read it.
pub fn audit(state: &Path) -> Vec<Value> {
    let output = Command::new(binary("egressctl"))
        .args(["audit", "query", "--oldest-first", "--limit", "10000"])
        .args(["-o", "json", "--file"])
        .arg(state.join("audit.db"))
        .output()
        .expect("egressctl starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "audit query: {said}");
    let document: Value =
        serde_json::from_slice(&output.stdout).expect("audit query prints a JSON document");
    match &document["records"] {
        Value::Array(records) => records.clone(),
        other => panic!("audit query prints no records but {other}"),
    }
}

/// What the probe reported, and how the whole run ended.
#[derive(Debug)]
pub struct Outcome {
    /// One for each step, in order.
    pub attempts: Vec<Attempt>,
    /// Exit status of `egressctl`.
    pub status: ExitStatus,
    /// What was written to stderr.
    pub errors: String,
}

impl Outcome {
    /// Waits for the end of a run of the probe.
    pub fn of(run: Running) -> Self {
        let (status, lines, errors) = run.finish();
        let attempts = lines
            .iter()
            .filter_map(|line| Attempt::parse(line))
            .collect();
        Self {
            attempts,
            status,
            errors,
        }
    }
}

impl std::ops::Index<usize> for Outcome {
    type Output = Attempt;

    fn index(&self, step: usize) -> &Attempt {
        self.attempts
            .get(step)
            .unwrap_or_else(|| panic!("no report of step {step}: {self:#?}"))
    }
}

/// A long-running `egress-agent`, with policies and a control socket of its own.
#[derive(Debug)]
pub struct Agent<'w> {
    world: &'w World,
    directory: PathBuf,
    program: PathBuf,
    control: PathBuf,
    running: Option<Running>,
}

/// How many kernel programs an agent attaches at its root: those that judge, and
/// where this kernel can have them the LSM programs.
pub fn programs() -> usize {
    /// As many as rows of `docs/kernels.md`.
    const JUDGES: usize = 16;
    const LSM: usize = 7;
    if Feature::LsmPrograms.is_there() {
        JUDGES + LSM
    } else {
        JUDGES
    }
}

impl<'w> Agent<'w> {
    /// Starts an agent with these policies (name and text) and waits until it
    /// answers.
    pub fn start(world: &'w World, policies: &[(&str, &str)]) -> Self {
        let mut agent = Self::prepare(world, policies);
        agent.launch();
        agent
    }

    /// Writes everything that an agent needs, and does not start it.
    pub fn prepare(world: &'w World, policies: &[(&str, &str)]) -> Self {
        let own = (binary("egress-agent"), binary("egressctl"));
        Self::prepare_programs(world, policies, own)
    }

    /// The same with the programs of this directory, as a benchmark does whose own program
    /// was built otherwise.
    pub fn prepare_from(world: &'w World, policies: &[(&str, &str)], directory: &Path) -> Self {
        let programs = ["egress-agent", "egressctl"].map(|name| directory.join(name));
        Self::prepare_programs(world, policies, programs.into())
    }

    fn prepare_programs(
        world: &'w World,
        policies: &[(&str, &str)],
        (program, control): (PathBuf, PathBuf),
    ) -> Self {
        let directory = world.fresh_directory();
        let drop_in = directory.join("policies.d");
        fs::create_dir(&drop_in).expect("the world's directory is writable");
        let agent = Self {
            world,
            directory,
            program,
            control,
            running: None,
        };
        for (name, text) in policies {
            agent.write_policy(name, text);
        }
        agent.configure(&agent.configuration());
        agent
    }

    /// Writes another configuration; it counts from the next start.
    pub fn configure(&self, text: &str) {
        fs::write(self.directory.join("agent.toml"), text)
            .expect("the world's directory is writable");
    }

    /// Starts the agent, again if it ran before, and waits until it answers.
    pub fn launch(&mut self) {
        self.running = Some(self.begin());
        self.await_socket();
    }

    /// Starts the agent, and does not wait until it answers.
    pub fn launch_unawaited(&mut self) {
        self.running = Some(self.begin());
    }

    /// Another program is the agent from the next start on.
    pub fn replace_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Starts a process of the agent and waits for nothing.
    pub fn begin(&self) -> Running {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.directory.join("agent.toml"));
        self.world
            .near
            .run(|| Running::start(&mut command))
            .expect("the agent starts")
    }

    /// Writes the file of a policy; it counts after a reload.
    pub fn write_policy(&self, name: &str, text: &str) {
        let file = self
            .directory
            .join("policies.d")
            .join(format!("{name}.yaml"));
        fs::write(file, text).expect("the world's directory is writable");
    }

    /// `egressctl` with these arguments, connected to this agent.
    pub fn egressctl(&self, arguments: &[&str]) -> io::Result<Running> {
        let mut command = Command::new(&self.control);
        command.arg("--socket").arg(self.socket()).args(arguments);
        self.world.near.run(|| Running::start(&mut command))
    }

    /// Lets the probe begin these steps in a sandbox of this agent.
    pub fn probe(&self, sandbox: &str, policy: &str, steps: &[&str]) -> Running {
        let probe = self.world.probe();
        let probe = probe.to_str().expect("the probe's path is text");
        let mut arguments = vec!["run", "--name", sandbox, "--policy", policy, "--", probe];
        arguments.extend(steps);
        self.egressctl(&arguments).expect("egressctl starts")
    }

    /// Kills the agent as the out-of-memory killer would.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running
                .signal(rustix::process::Signal::KILL)
                .expect("the agent runs");
            let ended = running.wait(patience());
            assert!(ended.is_some(), "nothing outlives SIGKILL");
        }
    }

    /// The running process.
    ///
    /// # Panics
    ///
    /// If it was stopped or killed.
    pub fn take_running(&mut self) -> Running {
        self.running.take().expect("the agent runs")
    }

    /// The process id of the running agent.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Where it keeps what survives it: policies, state, runtime files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration that it has unless a test writes another.
    pub fn configuration(&self) -> String {
        let directory = self.directory.display();
        let root = self.root();
        let upstream = crate::address::UPSTREAM_V4;
        format!(
            "root = \"{root}\"\n\
             policies = [\"{directory}/policies.d\"]\n\
             state_directory = \"{directory}/state\"\n\
             runtime_directory = \"{directory}/runtime\"\n\
             socket = \"{directory}/control.sock\"\n\
             upstreams = [\"{upstream}:53\"]\n"
        )
    }

    /// The governed root of this agent alone: a cgroup that nobody else has.
    pub fn root(&self) -> String {
        let world = self
            .world
            .directory()
            .file_name()
            .unwrap_or_default()
            .display();
        let number = self.directory.file_name().unwrap_or_default().display();
        format!("{world}-{number}")
    }

    fn await_socket(&mut self) {
        let deadline = Instant::now() + patience();
        while Instant::now() < deadline {
            if std::os::unix::net::UnixStream::connect(self.socket()).is_ok() {
                return;
            }
            let ended = self
                .running
                .as_mut()
                .and_then(|agent| agent.wait(Duration::from_millis(10)).map(|_| ()));
            if ended.is_some() {
                break;
            }
        }
        let last_words = self.running.take().map(|agent| {
            // A hanging agent says its last words only when it is told to end.
            let _ = agent.signal(rustix::process::Signal::TERM);
            agent.finish()
        });
        panic!("the agent does not answer: {last_words:#?}");
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        drop(self.running.take());
        // Enforcement outlives the agent, which is the product's point; this
        // test machine has to be as it was. With the cgroup its programs go.
        cgroup::remove_all(&self.root_directory());
    }
}

const _: () = assert!(PROGRAM.len() <= 15, "the kernel would cut the probe's name");
