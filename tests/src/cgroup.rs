//! Cgroups that are removed with everything in them.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The place of the cgroup2 hierarchy, found in the mount table: on hybrid
/// systems it is not `/sys/fs/cgroup`.
pub fn mount() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        after.starts_with("cgroup2 ").then(|| PathBuf::from(point))
    })
}

/// The cgroup of process `pid`.
pub fn of(pid: u32) -> Option<PathBuf> {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    Some(mount()?.join(path.trim_start_matches('/')))
}

/// A cgroup of the test's own. Dropping it ends its processes and removes it
/// and its children.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup directly below the root, with a name that nobody else has.
    pub fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("egress-test-{}-{count}", std::process::id());
        let path = mount()
            .ok_or_else(|| io::Error::other("no cgroup2 mount"))?
            .join(name);
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it.
    pub fn adopt(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_all(&self.path);
    }
}

/// Ends the processes of a cgroup and its children and removes all of it; that
/// it is gone already is fine.
pub fn remove_all(path: &Path) {
    // Ending processes takes the kernel a moment; a cgroup is only removable
    // when the last one is gone.
    for _ in 0..100 {
        match remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => return,
        }
    }
    eprintln!("{} could not be removed", path.display());
}

/// Removes what a container's runtime makes beside a cgroup of version 2, given
/// relative to its hierarchy: on a hybrid host it makes one of the same name in
/// every hierarchy of version 1, and leaves it.
pub fn remove_beside(relative: &str) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines().filter(|line| line.contains(" - cgroup ")) {
        if let Some(mount) = line.split(' ').nth(4) {
            remove_all(&Path::new(mount).join(relative.trim_start_matches('/')));
        }
    }
}

/// Ends the processes of a cgroup and its children and removes the directories,
/// children first.
fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            // It may have ended by itself since it was listed.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    fs::remove_dir(path)
}
