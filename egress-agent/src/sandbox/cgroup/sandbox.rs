//! The cgroup of one sandbox.

use crate::model::SandboxName;
use crate::sandbox::cgroup::root::{check_owner, children, open_directory};
use crate::sandbox::cgroup::{CgroupError, GovernedRoot};
use egress_common::CgroupId;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a freeze or a thaw may take.
const FREEZE_DEADLINE: Duration = Duration::from_secs(5);

/// A wait for the cgroup's events looks again after this long even if none came.
const POLL: rustix::event::Timespec = rustix::event::Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// One sandbox's cgroup, directly below the governed root.
///
/// Dropping it changes nothing: what runs in it goes on under its policy.
#[derive(Debug)]
pub struct SandboxCgroup {
    dir: OwnedFd,
    root: OwnedFd,
    path: PathBuf,
    name: SandboxName,
    id: CgroupId,
}

impl SandboxCgroup {
    /// Makes the cgroup. One that is there already is never adopted: nobody
    /// knows what its processes hold.
    pub fn create(root: &GovernedRoot, name: &SandboxName) -> Result<Self, CgroupError> {
        rustix::fs::mkdirat(root, name.as_str(), Mode::from_raw_mode(0o755))
            .map_err(|e| CgroupError::from_errno("make", root.path().join(name.as_str()), e))?;
        Self::open(root, name)
    }

    /// Opens a cgroup that is there.
    pub fn open(root: &GovernedRoot, name: &SandboxName) -> Result<Self, CgroupError> {
        Self::open_as(root, name.as_str(), name)
    }

    /// Opens a cgroup that is there under another name than its sandbox has.
    pub fn open_as(
        root: &GovernedRoot,
        directory: &str,
        name: &SandboxName,
    ) -> Result<Self, CgroupError> {
        let path = root.path().join(directory);
        let dir = open_directory(root.as_fd(), directory, &path)?;
        let id = check_owner(&dir, &path)?;
        let root = rustix::io::fcntl_dupfd_cloexec(root, 3)
            .map_err(|e| CgroupError::from_errno("open", root.path(), e))?;
        Ok(Self {
            dir,
            root,
            path,
            name: name.clone(),
            id,
        })
    }

    /// Its id, as the kernel programs see it.
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// The sandbox's name.
    pub fn name(&self) -> &SandboxName {
        &self.name
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes that are directly in it. One that this process cannot name,
    /// being in no pid namespace below its own, is left out.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        Ok(self
            .read("cgroup.procs")?
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            .collect())
    }

    /// Whether any process lives in it or below it.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        self.event("populated")
    }

    /// Stops every process in it where it stands. They send nothing until
    /// [`thaw`](Self::thaw), and what they already sent is not held back.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")?;
        self.wait_until("frozen", FREEZE_DEADLINE, |cgroup| cgroup.event("frozen"))
    }

    /// Whether everything in it stands still.
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        self.event("frozen")
    }

    /// Asks every process that is directly in it to end (SIGTERM).
    pub fn terminate(&self) -> Result<(), CgroupError> {
        let failed = |e| CgroupError::from_errno("end a process in", &self.path, e);
        let mut listed = Vec::new();
        for pid in self.processes()? {
            match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => listed.push((pid, process)),
                Err(Errno::SRCH) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        // A number can have gone to a stranger before its descriptor was opened;
        // one that is still here afterwards has not.
        let here = self.processes()?;
        for (pid, process) in listed {
            if !here.contains(&pid) {
                continue;
            }
            match rustix::process::pidfd_send_signal(&process, Signal::TERM) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "0")?;
        self.wait_until("thawed", FREEZE_DEADLINE, |cgroup| {
            cgroup.event("frozen").map(|frozen| !frozen)
        })
    }

    /// Kills everything in it and below it, and waits until it is empty. One that is
    /// removed meanwhile, by whoever waits for its processes, is empty.
    ///
    /// Uses `cgroup.kill` (Linux 5.14); before that, nothing can fork while the
    /// cgroup is frozen, so signalling what is in it reaches all.
    pub fn kill(&self, deadline: Duration) -> Result<(), CgroupError> {
        match self.kill_all(deadline) {
            Err(CgroupError::Missing(_)) => Ok(()),
            killed => killed,
        }
    }

    fn kill_all(&self, deadline: Duration) -> Result<(), CgroupError> {
        match self.write("cgroup.kill", "1") {
            Err(CgroupError::Missing(_)) => self.kill_frozen()?,
            other => other?,
        }
        self.wait_until("empty", deadline, |cgroup| {
            cgroup.populated().map(|populated| !populated)
        })
    }

    /// Kills what is left, then removes the cgroup and any below it.
    pub fn remove(&self, deadline: Duration) -> Result<(), CgroupError> {
        let begun = Instant::now();
        if self.populated()? {
            self.kill(deadline)?;
        }
        remove_below(self.dir.as_fd(), &self.path, 0)?;
        loop {
            match rustix::fs::unlinkat(&self.root, self.name.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // The last process is gone for us and not yet for the kernel.
                Err(Errno::BUSY) if begun.elapsed() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(Errno::BUSY) => return Err(self.late("removable", deadline)),
                Err(e) => return Err(CgroupError::from_errno("remove", &self.path, e)),
            }
        }
    }

    /// Makes the cgroup end with the value, also when a panic unwinds.
    pub fn remove_on_drop(self, deadline: Duration) -> RemoveOnDrop {
        RemoveOnDrop {
            cgroup: self,
            deadline,
        }
    }

    pub(super) fn kill_frozen(&self) -> Result<(), CgroupError> {
        self.freeze()?;
        for pid in self.processes()? {
            match rustix::process::kill_process(pid, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(CgroupError::from_errno("kill in", &self.path, e)),
            }
        }
        self.write("cgroup.freeze", "0")
    }

    fn event(&self, key: &str) -> Result<bool, CgroupError> {
        let events = self.read("cgroup.events")?;
        Ok(events
            .lines()
            .filter_map(|line| line.split_once(' '))
            .any(|(name, value)| name == key && value == "1"))
    }

    /// Waits for a change of `cgroup.events` until `reached` says so.
    fn wait_until(
        &self,
        state: &'static str,
        deadline: Duration,
        reached: impl Fn(&Self) -> Result<bool, CgroupError>,
    ) -> Result<(), CgroupError> {
        let begun = Instant::now();
        let events = self.open_file("cgroup.events", OFlags::RDONLY)?;
        while !reached(self)? {
            if begun.elapsed() >= deadline {
                return Err(self.late(state, deadline));
            }
            let mut watched = [PollFd::new(&events, PollFlags::PRI)];
            match rustix::event::poll(&mut watched, Some(&POLL)) {
                // The file reports a change until it is read through this very
                // descriptor; the short sleep spares a second kind of read.
                Ok(ready) if ready > 0 => std::thread::sleep(Duration::from_millis(1)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(CgroupError::from_errno("watch", &self.path, e)),
            }
        }
        Ok(())
    }

    fn late(&self, state: &'static str, waited: Duration) -> CgroupError {
        CgroupError::Deadline {
            path: self.path.clone(),
            state,
            waited,
            processes: self.processes().map_or(0, |processes| processes.len()),
        }
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, CgroupError> {
        rustix::fs::openat(&self.dir, name, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| CgroupError::from_errno("open", self.path.join(name), e))
    }

    pub(super) fn read(&self, name: &str) -> Result<String, CgroupError> {
        let file = std::fs::File::from(self.open_file(name, OFlags::RDONLY)?);
        std::io::read_to_string(file).map_err(|source| CgroupError::Io {
            action: "read",
            path: self.path.join(name),
            source,
        })
    }

    pub(super) fn write(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        let file = self.open_file(name, OFlags::WRONLY)?;
        rustix::io::write(&file, value.as_bytes())
            .map(drop)
            .map_err(|e| CgroupError::from_errno("write", self.path.join(name), e))
    }
}

impl AsFd for SandboxCgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Removes the directories below a cgroup, deepest first.
fn remove_below(dir: BorrowedFd<'_>, path: &Path, depth: u32) -> Result<(), CgroupError> {
    // Sandboxes cannot make cgroups; what is deeper than this, root made.
    const MAX_DEPTH: u32 = 16;
    for name in children(dir, path)? {
        let path = path.join(&name);
        if depth < MAX_DEPTH {
            let below = open_directory(dir, &name, &path)?;
            remove_below(below.as_fd(), &path, depth + 1)?;
        }
        rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR)
            .map_err(|e| CgroupError::from_errno("remove", &path, e))?;
    }
    Ok(())
}

/// A sandbox's cgroup that is emptied and removed when the value goes.
#[derive(Debug)]
pub struct RemoveOnDrop {
    cgroup: SandboxCgroup,
    deadline: Duration,
}

impl std::ops::Deref for RemoveOnDrop {
    type Target = SandboxCgroup;

    fn deref(&self) -> &SandboxCgroup {
        &self.cgroup
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Err(error) = self.cgroup.remove(self.deadline) {
            tracing::warn!(%error, "a sandbox's cgroup could not be removed");
        }
    }
}
