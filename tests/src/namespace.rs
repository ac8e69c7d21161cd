//! Network namespaces that vanish by themselves.

#![expect(unsafe_code, reason = "unshare(2) has no safe wrapper")]

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

/// A network namespace without a name. The kernel removes it, with its links
/// and routes, when this handle and every process inside it are gone.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback device that is down.
    pub fn new() -> io::Result<Self> {
        // Only the thread moves, and it ends here: the test stays where it was.
        let made = thread::spawn(|| {
            // SAFETY: the danger of unshare is `FILES`, which would give this
            // thread a descriptor table that others do not see; only the
            // network namespace of this thread changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        });
        let handle = made
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Self { handle })
    }

    /// A namespace that another process made, by its [`Self::path`].
    pub fn open(path: &str) -> io::Result<Self> {
        File::open(path).map(|handle| Self { handle })
    }

    /// The path by which another process can open the namespace while this
    /// handle lives.
    pub fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
    }

    /// Runs `work` inside the namespace and waits for it. Sockets that it opens
    /// stay in the namespace, processes that it starts live there.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.handle);
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let handle = self
            .handle
            .try_clone()
            .expect("the namespace's handle can be cloned");
        thread::spawn(move || {
            enter(&handle);
            work();
        })
    }

    /// Runs lines of `ip -batch` inside the namespace.
    pub fn configure(&self, lines: &str) -> io::Result<()> {
        self.run(|| {
            let mut ip = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = ip.stdin.take() {
                stdin.write_all(lines.as_bytes())?;
            }
            let output = ip.wait_with_output()?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(io::Error::other(format!("ip -batch: {said}")))
        })
    }

    /// Sets a value below `/proc/sys/net`, of this namespace only.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/net/{key}"), value))
    }
}

fn enter(handle: &File) {
    move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("a privileged thread may enter a namespace that it holds");
}
