//! Detached sandboxes: a small process of their own sees to each.
//!
//! The supervisor is the parent of the command, as `egressctl run` is in the
//! foreground. So the command does not depend on the agent's life, and dies with
//! its supervisor; what happens is told to whichever agent runs.
//! See decision 0031.

mod output;
mod restart;

pub use restart::Restart;

use super::exit::{Exit, Problem};
use super::run::{AGENTS_TURN, launch_problem, spec_of};
use crate::api::wire::{Created, NewSandbox, Progress};
use crate::api::{Client, ClientError};
use crate::model::SandboxName;
use crate::sandbox::{Child, Ending, GovernedRoot, Hierarchy, LaunchSpec, SandboxCgroup, launch};
use output::Log;
use restart::Plan;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The hidden command that is a supervisor.
pub const COMMAND: &str = "supervise";

/// How long a stopped sandbox's agent is asked whether it is being stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Without a health command, how long is waited for the end at a time.
const LOOK: Duration = Duration::from_secs(3600);

/// What a supervisor is told.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Errand {
    /// The sandbox; its owner is the supervisor.
    pub wanted: NewSandbox,
    /// The command.
    pub command: Vec<OsString>,
    /// Variables for it.
    pub env: Vec<String>,
    /// Where it starts.
    pub directory: PathBuf,
    /// When it is started again.
    pub restart: Restart,
    /// How often at most.
    pub max_restarts: Option<u32>,
    /// Whether it is well.
    pub health: Option<Health>,
    /// The directory of its log.
    pub logs: PathBuf,
}

/// How to find out whether a command is well.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A command for `/bin/sh`, run in the same sandbox; 0 means well.
    pub command: String,
    /// Seconds between two runs.
    pub interval: u64,
    /// Seconds that one may take.
    pub timeout: u64,
    /// Failures in a row after which the command is killed.
    pub retries: u32,
}

/// What a supervisor says once the command runs, or cannot.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Runs { name: String, log: PathBuf },
    Fails { code: u8, message: String },
}

/// Starts a supervisor and waits until the command runs. Gives the sandbox's name
/// and its log.
pub fn start(socket: &Path, errand: &Errand) -> Result<(String, PathBuf), Problem> {
    let (mut ours, theirs) = UnixStream::pair().map_err(Problem::failure)?;
    let program = std::env::current_exe().map_err(Problem::failure)?;
    Command::new(program)
        .arg("--socket")
        .arg(socket)
        .arg(COMMAND)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Problem::failure)?;
    let text = serde_json::to_vec(errand).map_err(Problem::failure)?;
    let mut answer = String::new();
    ours.write_all(&text)
        .and_then(|()| ours.shutdown(std::net::Shutdown::Write))
        .and_then(|()| ours.read_to_string(&mut answer))
        .map_err(Problem::failure)?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Runs { name, log }) => Ok((name, log)),
        Ok(Answer::Fails { code, message }) => Err(Problem::new(Exit::of_code(code), message)),
        Err(_) => Err(Problem::failure(
            "the supervisor ended before the command ran",
        )),
    }
}

/// The life of a supervisor: its errand comes on standard input.
pub fn run(socket: &Path) -> Result<Exit, Problem> {
    let mut caller = UnixStream::from(
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(Problem::failure)?,
    );
    // Away from the terminal of whoever started it. It fails only for a process
    // that leads a group already, which a child never does.
    let _ = rustix::process::setsid();
    let supervisor = Supervisor::begin(socket, &mut caller);
    let (mut supervisor, child) = match supervisor {
        Ok(begun) => begun,
        Err(problem) => {
            answer(
                &mut caller,
                &Answer::Fails {
                    code: problem.exit().code(),
                    message: problem.to_string(),
                },
            );
            return Ok(problem.exit());
        }
    };
    answer(
        &mut caller,
        &Answer::Runs {
            name: supervisor.created.name.clone(),
            log: supervisor.log.clone(),
        },
    );
    drop(caller);
    supervisor.see_to_it(child);
    Ok(Exit::Ok)
}

fn answer(caller: &mut UnixStream, answer: &Answer) {
    if let Ok(text) = serde_json::to_vec(answer) {
        // Whoever asked may be gone; the command runs all the same.
        let _ = caller.write_all(&text);
    }
}

struct Supervisor {
    client: Client,
    calls: tokio::runtime::Runtime,
    errand: Errand,
    created: Created,
    cgroup: SandboxCgroup,
    spec: LaunchSpec,
    log: PathBuf,
    began: Instant,
    plan: Plan,
    progress: Progress,
}

impl Supervisor {
    /// Makes the sandbox and starts the command.
    fn begin(socket: &Path, caller: &mut UnixStream) -> Result<(Self, Child), Problem> {
        let mut text = Vec::new();
        caller.read_to_end(&mut text).map_err(Problem::failure)?;
        let mut errand: Errand = serde_json::from_slice(&text).map_err(Problem::failure)?;
        errand.wanted.owner = std::process::id();
        let calls = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Problem::failure)?;
        let client = Client::new(socket);
        let created = calls.block_on(client.create(&errand.wanted))?;
        let begun = Self::prepare(&errand, &created).and_then(|(cgroup, spec, log)| {
            let mut supervisor = Self {
                client: client.clone(),
                plan: Plan::new(errand.restart, errand.max_restarts),
                progress: Progress {
                    log: log.clone(),
                    ..Progress::default()
                },
                created: created.clone(),
                calls,
                errand,
                cgroup,
                spec,
                log,
                began: Instant::now(),
            };
            let child = supervisor.launch()?;
            Ok((supervisor, child))
        });
        if begun.is_err() {
            remove(&client, &created.name);
        }
        begun
    }

    fn prepare(
        errand: &Errand,
        created: &Created,
    ) -> Result<(SandboxCgroup, LaunchSpec, PathBuf), Problem> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&errand.logs)
            .map_err(|error| Problem::failure(format!("{}: {error}", errand.logs.display())))?;
        let path = errand.logs.join(format!("{}.log", created.name));
        let failed = |error: io::Error| Problem::failure(format!("{}: {error}", path.display()));
        let mut log = Log::open(&path).map_err(failed)?;
        let (reader, writer) = io::pipe().map_err(failed)?;
        rustix::stdio::dup2_stdout(&writer).map_err(Problem::failure)?;
        rustix::stdio::dup2_stderr(&writer).map_err(Problem::failure)?;
        let nothing = File::open("/dev/null").map_err(Problem::failure)?;
        rustix::stdio::dup2_stdin(&nothing).map_err(Problem::failure)?;
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || log.take(reader))
            .map_err(Problem::failure)?;
        let hierarchy = Hierarchy::find().map_err(Problem::failure)?;
        let root = GovernedRoot::open(&hierarchy, &created.root).map_err(Problem::failure)?;
        let name = SandboxName::parse(&created.name).map_err(Problem::failure)?;
        let cgroup = SandboxCgroup::open(&root, &name).map_err(Problem::failure)?;
        let mut spec = spec_of(created, &errand.command, &errand.env)?;
        spec.directory = Some(errand.directory.clone());
        spec.forward_signals = false;
        Ok((cgroup, spec, path))
    }

    fn launch(&mut self) -> Result<Child, Problem> {
        let mut spec = self.spec.clone();
        spec.time = self
            .created
            .timeout_ms
            .map(|timeout| Duration::from_millis(timeout) + AGENTS_TURN)
            .map(|time| time.saturating_sub(self.began.elapsed()));
        let child = launch(&spec, &self.cgroup).map_err(|error| launch_problem(&error))?;
        self.progress.starts = self.plan.started();
        self.progress.health = self.errand.health.as_ref().map(|_| "starting".to_owned());
        self.tell(format!("started, {} times by now", self.progress.starts));
        Ok(child)
    }

    /// Until nothing is to be started any more.
    fn see_to_it(&mut self, mut child: Child) {
        loop {
            let begun = Instant::now();
            let ending = self.wait(child);
            let words = match ending {
                Ending::Exited(status) => format!("ended with status {status}"),
                Ending::Killed(signal) => format!("was killed by signal {signal}"),
                Ending::Overdue => "was killed, since its time was up".to_owned(),
            };
            self.progress.last_ending = Some(words.clone());
            let pause = self
                .plan
                .after(ending, begun.elapsed())
                .filter(|_| !self.is_to_end());
            let Some(pause) = pause else {
                self.tell(format!("the command {words}"));
                break;
            };
            self.tell(format!("the command {words}; starting again in {pause:?}"));
            std::thread::sleep(pause);
            if self.is_to_end() {
                break;
            }
            child = match self.launch() {
                Ok(child) => child,
                Err(problem) => {
                    self.tell(format!("cannot be started again: {problem}"));
                    break;
                }
            };
        }
        remove(&self.client, &self.created.name);
    }

    /// Waits for the command's end, and asks how it is meanwhile.
    fn wait(&mut self, mut child: Child) -> Ending {
        let health = self.errand.health.clone();
        let interval = health
            .as_ref()
            .map_or(LOOK, |health| Duration::from_secs(health.interval));
        let mut failures = 0;
        loop {
            match child.wait_for(interval) {
                Ok(Some(ending)) => return ending,
                Ok(None) => {}
                Err(error) => {
                    eprintln!("egressctl: {error}");
                    return Ending::Killed(libc::SIGKILL);
                }
            }
            let Some(health) = &health else { continue };
            if self.cgroup.frozen().unwrap_or(false) {
                continue;
            }
            let before = self.progress.health.clone();
            match self.examine(health) {
                Ok(()) => {
                    failures = 0;
                    self.progress.health = Some("healthy".to_owned());
                }
                Err(why) => {
                    failures += 1;
                    self.progress.health = Some(why);
                }
            }
            if failures >= health.retries {
                let why = self.progress.health.clone().unwrap_or_default();
                self.tell(format!(
                    "unhealthy {failures} times in a row: {why}; the command is killed"
                ));
                if let Err(error) = child.kill() {
                    eprintln!("egressctl: {error}");
                }
                failures = 0;
            } else if before != self.progress.health {
                let now = self.progress.health.clone().unwrap_or_default();
                self.tell(format!("health: {now}"));
            }
        }
    }

    /// Runs the health command once.
    fn examine(&self, health: &Health) -> Result<(), String> {
        let spec = LaunchSpec {
            command: ["/bin/sh", "-c", health.command.as_str()]
                .map(OsString::from)
                .to_vec(),
            time: Some(Duration::from_secs(health.timeout)),
            ..self.spec.clone()
        };
        let child = launch(&spec, &self.cgroup).map_err(|error| error.to_string())?;
        match child.wait().map_err(|error| error.to_string())? {
            Ending::Exited(0) => Ok(()),
            Ending::Exited(status) => Err(format!("the health command ended with status {status}")),
            Ending::Killed(signal) => {
                Err(format!("the health command was killed by signal {signal}"))
            }
            Ending::Overdue => Err(format!(
                "the health command took longer than {}s",
                health.timeout
            )),
        }
    }

    /// Whether the sandbox is being stopped or is gone. While no agent answers it
    /// goes on: nobody stops it then.
    fn is_to_end(&self) -> bool {
        let asked = self.calls.block_on(async {
            tokio::time::timeout(PATIENCE, self.client.sandbox(&self.created.name)).await
        });
        match asked {
            Ok(Ok(sandbox)) => sandbox.state == "stopping" || sandbox.time_left_ms == Some(0),
            Ok(Err(ClientError::Refused(_))) => true,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Tells the agent, and the log.
    fn tell(&mut self, happened: String) {
        eprintln!("egressctl: {happened}");
        self.progress.happened = happened;
        let told = self.calls.block_on(async {
            let call = self.client.progress(&self.created.name, &self.progress);
            tokio::time::timeout(PATIENCE, call).await
        });
        if !matches!(told, Ok(Ok(()))) {
            eprintln!("egressctl: no agent could be told");
        }
    }
}

/// Ends the sandbox. Where no agent answers, the next one collects it, once this
/// process is gone.
fn remove(client: &Client, name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    if let Ok(runtime) = runtime
        && let Err(error) = runtime.block_on(client.remove(name))
    {
        eprintln!("egressctl: {error}");
    }
}
