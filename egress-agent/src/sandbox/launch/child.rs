//! The running command.

use crate::sandbox::cgroup::SandboxCgroup;
use crate::sandbox::launch::{LaunchError, LaunchSpec, streams};
use crate::sandbox::spawn::{self, Failure, Forwarding, Prepared, Role, Started, Step};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(i32),
    /// By its launcher, because its time was up.
    Overdue,
}

impl Ending {
    /// The exit status that shells give: the command's own, or 128 and the signal.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            Self::Overdue => 128 + Signal::KILL.as_raw() as u8,
        }
    }
}

/// A command that runs. Dropped before its end, it and all that it started is killed.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    init: OwnedFd,
    ending: Receiver<io::Result<Ending>>,
    thread: Option<JoinHandle<()>>,
}

impl Child {
    /// Its number outside its pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for its end. What it started and left behind ends with it.
    ///
    /// Blocks the thread; in asynchronous code use `spawn_blocking`.
    pub fn wait(mut self) -> io::Result<Ending> {
        let ending = self.ending.recv();
        self.join();
        ending.unwrap_or_else(|_| Err(io::Error::other("the thread of the command is gone")))
    }

    /// Waits for its end, at most so long; `None` if it still runs.
    pub fn wait_for(&mut self, time: Duration) -> io::Result<Option<Ending>> {
        match self.ending.recv_timeout(time) {
            Ok(ending) => {
                self.join();
                ending.map(Some)
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the thread of the command is gone"))
            }
        }
    }

    /// Kills it and everything that it started.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.init, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was reported as a lost ending.
            let _ = thread.join();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.thread.is_some() && self.kill().is_ok() {
            self.join();
        }
    }
}

/// Starts a command in a sandbox's cgroup.
///
/// Returns when the command runs; if any step fails, nothing of it ever did.
/// Needs Linux 5.9 (`clone3` into a cgroup, `close_range`).
/// The cgroup belongs to the caller, who removes it after the command's end.
pub fn launch(spec: &LaunchSpec, cgroup: &SandboxCgroup) -> Result<Child, LaunchError> {
    launch_with(spec, cgroup, None)
}

/// Wires a network namespace to the host, for the process with this number, which
/// stays in it to its end.
pub type Wire = Box<dyn FnOnce(Pid) -> io::Result<()> + Send>;

/// As [`launch`], in a network namespace of its own. The command starts when it is
/// wired.
pub fn launch_apart(
    spec: &LaunchSpec,
    cgroup: &SandboxCgroup,
    wire: Wire,
) -> Result<Child, LaunchError> {
    launch_with(spec, cgroup, Some(wire))
}

fn launch_with(
    spec: &LaunchSpec,
    cgroup: &SandboxCgroup,
    wire: Option<Wire>,
) -> Result<Child, LaunchError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LaunchError::NotPermitted);
    }
    streams::check()?;
    let prepared = spec.prepare()?;
    let program = spec.command.first().cloned().unwrap_or_default();
    let forwarding = spec
        .forward_signals
        .then(Forwarding::install)
        .transpose()
        .map_err(|_| LaunchError::SignalsTaken)?;
    launch_prepared(prepared, program, cgroup, forwarding, wire)
}

/// Starts what is prepared, in a thread that stays with it to its end.
pub(super) fn launch_prepared(
    prepared: Prepared,
    program: OsString,
    cgroup: &SandboxCgroup,
    forwarding: Option<Forwarding>,
    wire: Option<Wire>,
) -> Result<Child, LaunchError> {
    let cgroup = cgroup
        .as_fd()
        .try_clone_to_owned()
        .map_err(LaunchError::Thread)?;
    let (tell_start, start) = sync_channel(1);
    let (tell_ending, ending) = sync_channel(1);
    // The kernel kills the command when the *thread* that made it ends, and a
    // thread with a pid namespace for its children can make no threads. So it
    // has one of its own, that does nothing else.
    let thread = std::thread::Builder::new()
        .name("sandbox-command".to_owned())
        .spawn(move || {
            accompany(
                &prepared,
                &program,
                &cgroup,
                forwarding,
                wire,
                &tell_start,
                &tell_ending,
            )
        })
        .map_err(LaunchError::Thread)?;
    let gone = || LaunchError::Thread(io::Error::other("it ended before the command began"));
    match start.recv().unwrap_or_else(|_| Err(gone())) {
        Ok((pid, init)) => Ok(Child {
            pid,
            init,
            ending,
            thread: Some(thread),
        }),
        Err(error) => {
            // With the thread, the signals are given back; only then may the
            // caller try again.
            let _ = thread.join();
            Err(error)
        }
    }
}

/// The life of the command's thread.
fn accompany(
    prepared: &Prepared,
    program: &OsStr,
    cgroup: &OwnedFd,
    forwarding: Option<Forwarding>,
    wire: Option<Wire>,
    tell_start: &SyncSender<Result<(Pid, OwnedFd), LaunchError>>,
    tell_ending: &SyncSender<io::Result<Ending>>,
) {
    let started = start(prepared, program, cgroup, wire).and_then(|(init, command)| {
        let handle = init.pidfd.try_clone().map_err(LaunchError::Thread)?;
        Ok((handle, init, command))
    });
    let (handle, init, command) = match started {
        Ok(started) => started,
        Err(error) => {
            // Whoever asked waits for exactly this message.
            let _ = tell_start.send(Err(error));
            return;
        }
    };
    let _ = tell_start.send(Ok((command.pid, handle)));
    let ending = wait(
        &command.pidfd,
        &init.pidfd,
        forwarding.as_ref(),
        prepared.time,
    );
    // The namespace ends with its first process, and that with this call.
    spawn::end(&init.pidfd);
    // The receiver may be gone: then nobody wants to know.
    let _ = tell_ending.send(ending);
}

fn start(
    prepared: &Prepared,
    program: &OsStr,
    cgroup: &OwnedFd,
    wire: Option<Wire>,
) -> Result<(Started, Started), LaunchError> {
    let explain = |failure| explain(failure, prepared, program);
    spawn::new_pid_namespace().map_err(explain)?;
    if wire.is_some() {
        spawn::new_network_namespace().map_err(explain)?;
    }
    let init = spawn::start(prepared, cgroup.as_fd(), Role::Init).map_err(explain)?;
    let wired = wire.map_or(Ok(()), |wire| wire(init.pid));
    let command = wired
        .map_err(LaunchError::Network)
        .and_then(|()| spawn::start(prepared, cgroup.as_fd(), Role::Command).map_err(explain));
    match command {
        Ok(command) => Ok((init, command)),
        Err(error) => {
            spawn::end(&init.pidfd);
            Err(error)
        }
    }
}

/// Hands signals on until the command has ended, or its time is up.
fn wait(
    command: &OwnedFd,
    init: &OwnedFd,
    forwarding: Option<&Forwarding>,
    time: Option<Duration>,
) -> io::Result<Ending> {
    let end = time.and_then(|time| Instant::now().checked_add(time));
    let mut overdue = false;
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) && !overdue {
            overdue = true;
            // With the namespace's first process everything in it dies.
            let _ = rustix::process::pidfd_send_signal(init, Signal::KILL);
        }
        let left = left
            .filter(|_| !overdue)
            .and_then(|left| rustix::event::Timespec::try_from(left).ok());
        let mut watched = vec![PollFd::new(command, PollFlags::IN)];
        watched.extend(forwarding.map(|forwarding| PollFd::new(forwarding, PollFlags::IN)));
        match rustix::event::poll(&mut watched, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended = watched[0].revents().contains(PollFlags::IN);
        if ended {
            break;
        }
        while let Some(arrived) = forwarding.and_then(Forwarding::next) {
            if arrived.by_process {
                // It may have ended in between; the next turn sees that.
                let _ = rustix::process::pidfd_send_signal(command, arrived.signal);
            }
            if arrived.signal == Signal::TSTP {
                // The terminal's Ctrl-Z has stopped the command; this process
                // stops with it, so that the shell takes its prompt back.
                rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
            }
        }
    }
    loop {
        match rustix::process::waitid(WaitId::PidFd(command.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(_)) if overdue => return Ok(Ending::Overdue),
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    // Only the low byte of a status reaches a waiting process.
                    (Some(code), _) => Ok(Ending::Exited((code & 0xff) as u8)),
                    (None, Some(signal)) => Ok(Ending::Killed(signal)),
                    (None, None) => Err(io::Error::other("the command neither exited nor died")),
                };
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Says in the caller's words where a child stopped.
fn explain(failure: Failure, prepared: &Prepared, program: &OsStr) -> LaunchError {
    let source = io::Error::from(failure.errno);
    let command = OsString::from(program);
    let nth = |list: &[CString]| {
        let path = list.get(usize::from(failure.index))?;
        Some(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
    };
    let path = match failure.step {
        Step::Exec if failure.errno == Errno::NOENT => {
            return LaunchError::CommandNotFound(command);
        }
        Step::Exec => {
            return LaunchError::NotExecutable {
                command,
                uid: prepared.user.uid,
                source,
            };
        }
        Step::HideDirectory => nth(&prepared.view.hidden_directories),
        Step::HideFile => nth(&prepared.view.hidden_files),
        Step::ReadOnly => nth(&prepared.view.read_only),
        Step::HostSocket => nth(&prepared.view.host_sockets),
        Step::Directory => nth(std::slice::from_ref(&prepared.directory)),
        Step::PidNamespace
        | Step::NetworkNamespace
        | Step::Clone
        | Step::Membership
        | Step::Gate
        | Step::Namespaces
        | Step::Propagation
        | Step::Proc
        | Step::ReadOnlyRoot
        | Step::Tmp
        | Step::ResolvConf
        | Step::BoundingSet
        | Step::SecureBits
        | Step::Groups
        | Step::Group
        | Step::User
        | Step::Capabilities
        | Step::NoNewPrivileges
        | Step::Verify
        | Step::ParentDeath
        | Step::Descriptors
        | Step::Signals
        | Step::Scope
        | Step::Filter
        | Step::Report => None,
    };
    LaunchError::Step {
        step: failure.step,
        path,
        source,
    }
}
