//! Signals: kept from a child that is being made, and handed to the command.

use super::last_errno;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// What is handed to the command. `SIGWINCH` is not: the terminal sends it to
/// the whole foreground group, to which the command belongs.
const FORWARDED: [c_int; 8] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGCONT,
];

/// The number after the last signal.
const SIGNALS_END: c_int = 65;

/// The calling thread's signal mask, to be restored.
pub(super) struct Blocked(libc::sigset_t);

/// Blocks every signal in the calling thread.
pub(super) fn block_all() -> Result<Blocked, Errno> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set that it is given; pthread_sigmask
    // initialises `before` when it returns 0.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
            0 => Ok(Blocked(before.assume_init())),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was initialised by the kernel; setting a mask that was
        // in force cannot fail.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

/// In a child: handlers become defaults, what is ignored stays ignored (`nohup`)
/// except `SIGPIPE`, which Rust's start-up ignores; then nothing is blocked.
pub(super) fn reset() -> Result<(), Errno> {
    for signal in 1..SIGNALS_END {
        if let Some(action) = action(signal)
            && (action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE)
        {
            set_handler(signal, libc::SIG_DFL, 0);
        }
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; the mask is this thread's own.
    let result = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// In a child: its children need not be waited for.
pub(super) fn ignore_children() -> Result<(), Errno> {
    if set_handler(libc::SIGCHLD, libc::SIG_IGN, 0) {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// What happens at a signal; none for the C library's own and the unknown.
fn action(signal: c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: sigaction initialises `action` when it returns 0.
    unsafe {
        match libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) {
            0 => Some(action.assume_init()),
            _ => None,
        }
    }
}

fn set_handler(signal: c_int, handler: libc::sighandler_t, flags: c_int) -> bool {
    // SAFETY: all-zero is a value of the structure: an empty mask, no flags. The
    // handler is SIG_DFL, SIG_IGN or `note`, which matches SA_SIGINFO.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut()) == 0
    }
}

/// Where `note` writes; -1 while nobody forwards.
static NOTES: AtomicI32 = AtomicI32::new(-1);

/// Signals of this process on their way to the command, while the value lives.
pub(in crate::sandbox) struct Forwarding {
    notes: OwnedFd,
    before: Vec<(c_int, libc::sigaction)>,
}

/// One signal that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sandbox) struct Forwarded {
    /// Which.
    pub signal: Signal,
    /// Whether a process sent it to this one. What the terminal sends
    /// (Ctrl-C) goes to the whole group, so the command has it already.
    pub by_process: bool,
}

impl Forwarding {
    /// Takes the signals over, except those that the caller was told to ignore.
    /// `BUSY` if another launch of this process does so already.
    pub(in crate::sandbox) fn install() -> Result<Self, Errno> {
        let (notes, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let writer = writer.into_raw_fd();
        if NOTES
            .compare_exchange(-1, writer, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: the descriptor was just made and is nobody else's.
            unsafe { libc::close(writer) };
            return Err(Errno::BUSY);
        }
        let before: Vec<_> = FORWARDED
            .into_iter()
            .filter_map(|signal| Some((signal, action(signal)?)))
            .filter(|(_, action)| action.sa_sigaction != libc::SIG_IGN)
            .collect();
        let note: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = note;
        for (signal, _) in &before {
            set_handler(
                *signal,
                note as libc::sighandler_t,
                libc::SA_SIGINFO | libc::SA_RESTART,
            );
        }
        Ok(Self { notes, before })
    }

    /// The next signal, if one has arrived.
    pub(in crate::sandbox) fn next(&self) -> Option<Forwarded> {
        let mut note = [0; 2];
        let [number, by_process] = match rustix::io::read(&self.notes, &mut note) {
            Ok(2) => note,
            _ => return None,
        };
        Some(Forwarded {
            signal: Signal::from_named_raw(i32::from(number))?,
            by_process: by_process == 1,
        })
    }
}

impl AsFd for Forwarding {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notes.as_fd()
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        for (signal, action) in &self.before {
            // SAFETY: the action is what sigaction gave for this very signal.
            unsafe { libc::sigaction(*signal, action, std::ptr::null_mut()) };
        }
        let writer = NOTES.swap(-1, Ordering::AcqRel);
        // SAFETY: `install` made it and nobody else closes it. A handler that is
        // running right now would write to a closed number, or at worst two
        // bytes into a pipe that was opened within the same instant.
        unsafe { libc::close(writer) };
    }
}

/// The handler: writes down which signal came, and from whom. Both bytes are
/// written at once, so notes never mix; when the pipe is full, the command has
/// thousands of signals waiting and one more tells it nothing.
extern "C" fn note(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    // write(2) may be called in a handler; errno is put back as it was.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let by_process = (*info).si_code <= 0;
        let note = [signal as u8, u8::from(by_process)];
        libc::write(NOTES.load(Ordering::Acquire), note.as_ptr().cast(), 2);
        *errno = before;
    }
}
