//! The child's way from clone to exec, in the order in which it is gone.

use super::mounts::see;
use super::privileges::give_away;
use super::signals;
use super::step::encode;
use super::{ExecArrays, Failure, Pipes, Prepared, Role, Step, last_errno};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::UnshareFlags;
use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The descriptor of the report, once all others are closed.
const REPORT: RawFd = 3;

const NO_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Goes the whole way. `extern "C"`: a panic would abort here and not unwind
/// into a copy of the caller.
pub(super) extern "C" fn main(arrays: &ExecArrays<'_>, pipes: Pipes, role: Role) -> ! {
    let Pipes {
        report,
        gate,
        makers_report,
        makers_gate,
    } = pipes;
    // The maker's ends: while this copy is open, the gate never reads as closed.
    drop(makers_report);
    drop(makers_gate);
    let mut reporter = report.as_raw_fd();
    let result = match role {
        Role::Init => rest(arrays.prepared, &gate, &mut reporter),
        Role::Command => become_command(arrays, &gate, &report, &mut reporter),
    };
    let failure = match result {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    let text = encode(failure);
    // SAFETY: `reporter` is the open write end of the report, or a closed number,
    // on which write(2) fails; `text` is alive. `_exit` runs no handlers of the
    // process that this is a copy of.
    unsafe {
        libc::write(reporter, text.as_ptr().cast(), text.len());
        libc::_exit(127)
    }
}

/// The first process of the pid namespace: holds nothing, does nothing.
fn rest(prepared: &Prepared, gate: &OwnedFd, reporter: &mut RawFd) -> Result<Infallible, Failure> {
    pass(gate)?;
    // Leaves the terminal's foreground group: keys are for the command.
    rustix::process::setsid().map_err(at(Step::Signals))?;
    give_away(&prepared.user)?;
    // Its memory is a copy of the launcher's; the same user must not read it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(at(Step::Verify))?;
    die_with_parent(gate)?;
    // Orphans of the namespace become its children; the kernel reaps them then.
    signals::ignore_children().map_err(at(Step::Signals))?;
    // Closing the report, unwritten, is what says that all went well. Nothing
    // can be reported from here, and nothing that follows can fail.
    *reporter = -1;
    close_from(0).map_err(at(Step::Descriptors))?;
    loop {
        // SAFETY: pause(2) takes nothing; every signal stays blocked, so only
        // SIGKILL ends it.
        unsafe { libc::pause() };
    }
}

fn become_command(
    arrays: &ExecArrays<'_>,
    gate: &OwnedFd,
    report: &OwnedFd,
    reporter: &mut RawFd,
) -> Result<Infallible, Failure> {
    let prepared = arrays.prepared;
    pass(gate)?;
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP | UnshareFlags::NEWIPC;
    // SAFETY: the descriptor table, which the contract is about, is not unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(at(Step::Namespaces))?;
    see(&prepared.view)?;
    give_away(&prepared.user)?;
    die_with_parent(gate)?;
    enter_directory(prepared).map_err(at(Step::Directory))?;
    keep_report_only(report, reporter).map_err(at(Step::Descriptors))?;
    signals::reset().map_err(at(Step::Signals))?;
    scope().map_err(at(Step::Scope))?;
    filter_calls(&prepared.filters).map_err(at(Step::Filter))?;
    Err(Failure::new(Step::Exec, exec(arrays)))
}

pub(super) fn at(step: Step) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::new(step, errno)
}

/// Waits until the maker has seen this process in its cgroup.
fn pass(gate: &OwnedFd) -> Result<(), Failure> {
    let mut byte = [0];
    match rustix::io::read(gate, &mut byte) {
        Ok(1) => Ok(()),
        Ok(_) => Err(Failure::new(Step::Gate, Errno::PIPE)),
        Err(errno) => Err(Failure::new(Step::Gate, errno)),
    }
}

/// Asks to be killed when the maker ends, and makes sure that it has not yet.
///
/// It stands after the change of user, which clears the request.
fn die_with_parent(gate: &OwnedFd) -> Result<(), Failure> {
    let failed = at(Step::ParentDeath);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(&failed)?;
    let mut watched = [PollFd::new(gate, PollFlags::IN)];
    rustix::event::poll(&mut watched, Some(&NO_TIME)).map_err(&failed)?;
    if watched[0].revents().contains(PollFlags::HUP) {
        return Err(failed(Errno::PIPE));
    }
    Ok(())
}

/// Enters the directory by its path: one that was inherited would still lead to
/// what is hidden above it.
fn enter_directory(prepared: &Prepared) -> Result<(), Errno> {
    match rustix::process::chdir(prepared.directory.as_c_str()) {
        Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR) if prepared.directory_or_root => {
            rustix::process::chdir(c"/")
        }
        result => result,
    }
}

/// Closes every descriptor but the first three and the report.
fn keep_report_only(report: &OwnedFd, reporter: &mut RawFd) -> Result<(), Errno> {
    if report.as_raw_fd() != REPORT {
        // SAFETY: the number may be another of this copy's descriptors; nothing
        // is done with those any more, since all of them are closed next.
        let moved = unsafe { libc::dup3(report.as_raw_fd(), REPORT, libc::O_CLOEXEC) };
        if moved < 0 {
            return Err(last_errno());
        }
    }
    *reporter = REPORT;
    close_from(REPORT as u32 + 1)
}

fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: the values that own these descriptors are never used or dropped
    // again: this process ends in exec, pause or _exit.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Closes the way to abstract Unix sockets that were made outside: they have no
/// path that could be hidden. Linux 6.12 can; on older kernels, and where
/// Landlock is switched off, they stay reachable (docs/bypasses.md).
fn scope() -> Result<(), Errno> {
    /// `struct landlock_ruleset_attr` (include/uapi/linux/landlock.h).
    #[repr(C)]
    struct Attributes {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    let attributes = Attributes {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET,
    };
    // SAFETY: the kernel reads the structure, of whose size it is told.
    let rules = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<Attributes>(),
            0,
        )
    };
    if rules < 0 {
        return match last_errno() {
            // No Landlock, Landlock switched off, or one that knows no scopes.
            Errno::NOSYS | Errno::OPNOTSUPP | Errno::TOOBIG | Errno::INVAL => Ok(()),
            errno => Err(errno),
        };
    }
    // The descriptor is closed by exec.
    // SAFETY: a number goes in and nothing comes out.
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) } == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Installs the system call filters; from here on they bind this process too.
fn filter_calls(filters: &[seccompiler::BpfProgram]) -> Result<(), Errno> {
    for filter in filters {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
            filter: filter.as_ptr().cast_mut().cast(),
        };
        // SAFETY: `seccompiler::sock_filter` is the kernel's structure under
        // another name, `len` of them are at `filter`, and the kernel only reads.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if result != 0 {
            return Err(last_errno());
        }
    }
    Ok(())
}

/// Tries each file; says why none of them ran.
fn exec(arrays: &ExecArrays<'_>) -> Errno {
    let mut reason = Errno::NOENT;
    for candidate in &arrays.prepared.candidates {
        // SAFETY: both arrays end in a null pointer and point to strings that
        // `prepared` keeps alive.
        unsafe {
            libc::execve(
                candidate.as_ptr(),
                arrays.arguments.as_ptr(),
                arrays.environment.as_ptr(),
            )
        };
        match last_errno() {
            Errno::NOENT | Errno::NOTDIR => {}
            // A later directory may have one that is executable.
            Errno::ACCESS => reason = Errno::ACCESS,
            other => return other,
        }
    }
    reason
}
