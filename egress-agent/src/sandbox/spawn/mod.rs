//! Between clone and exec: the only room of this module with `unsafe`.
//!
//! A process is made with `clone3` directly inside its cgroup, waits at a gate
//! until its maker has seen it there, gives everything away, and becomes the
//! command. What it could not give away it reports through a pipe that exec
//! closes: an end of file means that the command runs.
//!
//! The child is a copy of one thread of a process with many. Until exec it makes
//! system calls only: no allocation, no lock, no code that could panic.

#![expect(
    unsafe_code,
    reason = "making a process and becoming another has no safe interface"
)]

mod child;
mod mounts;
mod privileges;
mod signals;
mod step;
mod wiring;

pub(super) use signals::Forwarding;
pub use step::Step;
pub(super) use wiring::devices_cross;

use crate::sandbox::user::User;
use crate::sandbox::view::View;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::{CString, c_char};
use std::io::Read as _;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// Linux 5.7; not in the C library's headers as a number of this width.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Everything a child needs, made before it exists.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The files to try, in order.
    pub candidates: Vec<CString>,
    /// The command and its arguments.
    pub arguments: Vec<CString>,
    /// `NAME=VALUE`.
    pub environment: Vec<CString>,
    /// Who it becomes.
    pub user: User,
    /// Where it starts.
    pub directory: CString,
    /// Whether `/` will do where it may not enter `directory`.
    pub directory_or_root: bool,
    /// What it sees.
    pub view: View,
    /// How long it may run.
    pub time: Option<Duration>,
    /// What it may not ask the kernel for.
    pub filters: Vec<seccompiler::BpfProgram>,
}

/// What a child becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Role {
    /// The first process of the pid namespace: it owns nothing, reaps what is
    /// orphaned, and everything in the namespace dies with it.
    Init,
    /// The command.
    Command,
}

/// A child that got through every step.
#[derive(Debug)]
pub(super) struct Started {
    /// Its number here.
    pub pid: Pid,
    /// Its descriptor.
    pub pidfd: OwnedFd,
    /// Open as long as this process lives: the child sees at it, while it still
    /// can, that nobody waits for it any more.
    _gate: OwnedFd,
}

/// Why a child did not get through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// Where it stopped.
    pub step: Step,
    /// The place in the step's list, for steps that have one.
    pub index: u16,
    /// What the kernel said.
    pub errno: Errno,
}

impl Failure {
    fn new(step: Step, errno: Errno) -> Self {
        Self {
            step,
            index: 0,
            errno,
        }
    }
}

/// The child's ends of its two pipes, and its maker's that it must close.
#[repr(C)]
pub(super) struct Pipes {
    report: OwnedFd,
    gate: OwnedFd,
    makers_report: OwnedFd,
    makers_gate: OwnedFd,
}

/// Pointer arrays for `execve`, with the strings that they point into.
pub(super) struct ExecArrays<'a> {
    prepared: &'a Prepared,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
}

impl<'a> ExecArrays<'a> {
    fn new(prepared: &'a Prepared) -> Self {
        let pointers = |strings: &[CString]| {
            let end = std::iter::once(std::ptr::null());
            strings.iter().map(|s| s.as_ptr()).chain(end).collect()
        };
        Self {
            prepared,
            arguments: pointers(&prepared.arguments),
            environment: pointers(&prepared.environment),
        }
    }
}

/// Gives the calling thread's next children a pid namespace of their own.
pub(super) fn new_pid_namespace() -> Result<(), Failure> {
    // SAFETY: what is unshared is not the descriptor table, which is all that
    // the function's contract is about.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWPID) }
        .map_err(|errno| Failure::new(Step::PidNamespace, errno))
}

/// Gives the calling thread, and its next children, a network namespace of their
/// own, with nothing in it but a loopback device that is down.
pub(super) fn new_network_namespace() -> Result<(), Failure> {
    // SAFETY: as for the pid namespace.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .map_err(|errno| Failure::new(Step::NetworkNamespace, errno))
}

/// Makes a child inside `cgroup` and sees it through to exec (or, for
/// [`Role::Init`], to its rest). The child dies with the calling *thread*.
pub(super) fn start(
    prepared: &Prepared,
    cgroup: BorrowedFd<'_>,
    role: Role,
) -> Result<Started, Failure> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| Failure::new(Step::Clone, e));
    let (makers_report, report) = pipe()?;
    let (gate, makers_gate) = pipe()?;
    let arrays = ExecArrays::new(prepared);
    let pipes = Pipes {
        report,
        gate,
        makers_report,
        makers_gate,
    };
    // A handler of this process must not run in the child; its pipes are shared.
    let blocked = signals::block_all().map_err(|e| Failure::new(Step::Clone, e))?;
    let (pid, pidfd) = match clone_into(cgroup).map_err(|e| Failure::new(Step::Clone, e))? {
        Cloned::Child => child::main(&arrays, pipes, role),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(blocked);
    let Pipes {
        report,
        gate,
        makers_report,
        makers_gate,
    } = pipes;
    // While this copy of the report is open, it never reads as ended.
    drop((report, gate));
    let outcome =
        open_gate(cgroup, pid, &makers_gate).map_or_else(Some, |()| child_report(makers_report));
    match outcome {
        None => Ok(Started {
            pid,
            pidfd,
            _gate: makers_gate,
        }),
        Some(failure) => {
            end(&pidfd);
            Err(failure)
        }
    }
}

/// Kills a child and waits until it is gone, so that no number is left behind.
pub(super) fn end(pidfd: &OwnedFd) {
    // It may have ended by itself; then only the wait is left to do.
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let wait = || rustix::process::waitid(WaitId::PidFd(as_fd(pidfd)), WaitIdOptions::EXITED);
    while matches!(wait(), Err(Errno::INTR)) {}
}

fn as_fd(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}

enum Cloned {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

fn clone_into(cgroup: BorrowedFd<'_>) -> Result<Cloned, Errno> {
    let mut pidfd: i32 = -1;
    // SAFETY: the structure is made of integers only; all-zero is a value that
    // asks for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM and with no stack given this is fork(2): the
    // child goes on with a copy of this memory. The C library is not told, so
    // the child must not call what depends on its thread bookkeeping or locks;
    // `child` keeps to system calls. The kernel reads `arguments` and writes
    // `pidfd`, both of which live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match result {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent {
            pid: Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?,
            // SAFETY: the kernel has just opened this descriptor for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Lets the child go on once it is seen in its cgroup.
fn open_gate(cgroup: BorrowedFd<'_>, pid: Pid, gate: &OwnedFd) -> Result<(), Failure> {
    let failed = |errno| Failure::new(Step::Membership, errno);
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let members = rustix::fs::openat(cgroup, c"cgroup.procs", flags, rustix::fs::Mode::empty())
        .map_err(failed)?;
    let members = std::io::read_to_string(std::fs::File::from(members))
        .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let own = pid.as_raw_nonzero().to_string();
    if !members.lines().any(|line| line == own) {
        return Err(failed(Errno::SRCH));
    }
    match rustix::io::write(gate, &[1]) {
        // It was killed while it waited; its report, or its end, tells.
        Ok(_) | Err(Errno::PIPE) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// What the child reports: nothing, if it got through.
fn child_report(pipe: OwnedFd) -> Option<Failure> {
    let mut report = Vec::new();
    if let Err(error) = std::fs::File::from(pipe).read_to_end(&mut report) {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        return Some(Failure::new(Step::Report, errno));
    }
    if report.is_empty() {
        return None;
    }
    Some(step::decode(&report).unwrap_or(Failure::new(Step::Report, Errno::BADMSG)))
}
