//! The kernel's resource controllers: which of them the sandboxes have.

use super::root::open_directory;
use super::{GovernedRoot, Hierarchy};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A resource controller that limits need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Memory and swap.
    Memory,
    /// Processes.
    Pids,
    /// Block devices.
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Pids, Self::Io];

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which controllers the sandboxes of a governed root have, and why not the others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Controllers {
    missing: BTreeMap<Controller, String>,
}

impl Controllers {
    /// Gives the sandboxes below `root` every controller that there is, level by
    /// level from the top. One that cannot be had is no failure here: it is one
    /// for a policy that needs it.
    pub fn enable(hierarchy: &Hierarchy, root: &GovernedRoot) -> Self {
        let mut missing = BTreeMap::new();
        for controller in Controller::ALL {
            if let Err(why) = enable(hierarchy, root, controller) {
                missing.insert(controller, why);
            }
        }
        Self { missing }
    }

    /// Why sandboxes do not have this controller; `None` if they do.
    pub fn lack(&self, controller: Controller) -> Option<&str> {
        self.missing.get(&controller).map(String::as_str)
    }
}

fn enable(
    hierarchy: &Hierarchy,
    root: &GovernedRoot,
    controller: Controller,
) -> Result<(), String> {
    let below = root
        .path()
        .strip_prefix(hierarchy.path())
        .map_err(|error| error.to_string())?;
    let mut path = hierarchy.path().to_owned();
    let mut dir: Option<OwnedFd> = None;
    let mut parts = below.iter();
    loop {
        let at = dir.as_ref().map_or(hierarchy.as_fd(), AsFd::as_fd);
        enable_at(at, controller).map_err(|why| format!("{}: {why}", path.display()))?;
        let Some(part) = parts.next() else {
            return Ok(());
        };
        path.push(part);
        let name = part.to_str().ok_or("a path that is no text")?;
        dir = Some(open_directory(at, name, &path).map_err(|error| error.to_string())?);
    }
}

/// Hands a controller on to the children of one cgroup.
fn enable_at(dir: BorrowedFd<'_>, controller: Controller) -> Result<(), String> {
    let has = |text: &str| {
        text.split_whitespace()
            .any(|name| name == controller.name())
    };
    let words = |error: io::Error| error.to_string();
    if has(&read(dir, "cgroup.subtree_control").map_err(words)?) {
        return Ok(());
    }
    if !has(&read(dir, "cgroup.controllers").map_err(words)?) {
        return Err(format!(
            "the controller `{controller}` is not there; cgroup v1 has it, or the kernel was built or \
             booted without it (`cat /proc/cgroups`)"
        ));
    }
    let file = open(dir, "cgroup.subtree_control", OFlags::WRONLY).map_err(words)?;
    rustix::io::write(&file, format!("+{controller}").as_bytes())
        .map(drop)
        .map_err(|errno| match errno {
            rustix::io::Errno::BUSY => format!(
                "`{controller}` cannot be handed on, because processes live in this cgroup itself"
            ),
            other => format!("`{controller}` cannot be handed on: {other}"),
        })
}

fn open(dir: BorrowedFd<'_>, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        name,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn read(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    io::read_to_string(std::fs::File::from(open(dir, name, OFlags::RDONLY)?))
}
