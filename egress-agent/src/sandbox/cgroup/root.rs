//! The governed root: the cgroup that the kernel programs are attached to.

use crate::model::SandboxName;
use crate::sandbox::cgroup::{CgroupError, Hierarchy};
use egress_common::CgroupId;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// No deeper than this: every level costs the kernel a step per packet.
const MAX_PARTS: usize = 8;

/// Root may do everything, others may look.
const MODE: u32 = 0o755;

/// A cgroup owned by root, below which sandboxes are made.
#[derive(Debug)]
pub struct GovernedRoot {
    dir: OwnedFd,
    path: PathBuf,
    level: u32,
    id: CgroupId,
    made: bool,
}

impl GovernedRoot {
    /// Opens the governed root, making what is missing of it.
    ///
    /// `name` is relative to the cgroup2 root: `egress`, `egress.slice`,
    /// `egress.slice/run-1`. The cgroup2 root itself is no governed root.
    pub fn ensure(hierarchy: &Hierarchy, name: &str) -> Result<Self, CgroupError> {
        Self::descend(hierarchy, name, true)
    }

    /// Opens a governed root that is there already.
    pub fn open(hierarchy: &Hierarchy, name: &str) -> Result<Self, CgroupError> {
        Self::descend(hierarchy, name, false)
    }

    fn descend(hierarchy: &Hierarchy, name: &str, make: bool) -> Result<Self, CgroupError> {
        let parts = parts(name)?;
        let mut path = hierarchy.path().to_owned();
        let mut dir: Option<OwnedFd> = None;
        let mut id = CgroupId(0);
        let mut made = false;
        for part in &parts {
            let above = dir.as_ref().map_or(hierarchy.as_fd(), AsFd::as_fd);
            path.push(part);
            if make {
                made = make_directory(above, part, &path)?;
            }
            let below = open_directory(above, part, &path)?;
            id = check_owner(&below, &path)?;
            dir = Some(below);
        }
        let (Some(dir), Ok(level)) = (dir, u32::try_from(parts.len())) else {
            return Err(CgroupError::Name(name.to_owned()));
        };
        Ok(Self {
            dir,
            path,
            level,
            id,
            made,
        })
    }

    /// Whether it was not there before this value.
    pub fn was_made(&self) -> bool {
        self.made
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its depth below the cgroup2 root, which is at 0; counted as
    /// `bpf_skb_ancestor_cgroup_id` counts. Sandboxes are one deeper.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Its id, the number of its inode.
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// The names of the sandboxes below it, in order. A directory whose name no
    /// sandbox can have was not made by an agent and is left out.
    pub fn sandboxes(&self) -> Result<Vec<SandboxName>, CgroupError> {
        let mut names: Vec<_> = children(self.as_fd(), &self.path)?
            .iter()
            .filter_map(|name| SandboxName::parse(name).ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes the directory, which must be empty; directories above it stay.
    pub fn remove(self) -> Result<(), CgroupError> {
        // A cgroup cannot be removed through its own descriptor, and the path
        // is owned by root all the way.
        rustix::fs::rmdir(&self.path).map_err(|e| CgroupError::from_errno("remove", &self.path, e))
    }
}

impl AsFd for GovernedRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Splits a name into directory names that can neither leave the hierarchy nor
/// be taken for the kernel's own files.
fn parts(name: &str) -> Result<Vec<&str>, CgroupError> {
    let parts: Vec<_> = name.split('/').collect();
    let fits = parts.len() <= MAX_PARTS && parts.iter().all(|p| SandboxName::parse(p).is_ok());
    if fits {
        Ok(parts)
    } else {
        Err(CgroupError::Name(name.to_owned()))
    }
}

/// Makes one directory; that it is there already is fine. Whether it was made.
fn make_directory(above: BorrowedFd<'_>, name: &str, path: &Path) -> Result<bool, CgroupError> {
    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(MODE)) {
        // The process's umask may have taken bits away.
        Ok(()) => rustix::fs::chmodat(above, name, Mode::from_raw_mode(MODE), AtFlags::empty())
            .map(|()| true)
            .map_err(|e| CgroupError::from_errno("set the mode of", path, e)),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(CgroupError::from_errno("make", path, e)),
    }
}

/// Opens one directory without following anything out of the one above: neither a
/// link nor a mount. `openat2(2)` would say so in one call, and a service that
/// systemd keeps from making set-user-id files may not call it.
pub(super) fn open_directory(
    above: BorrowedFd<'_>,
    name: &str,
    path: &Path,
) -> Result<OwnedFd, CgroupError> {
    let failed = |action| move |e| CgroupError::from_errno(action, path, e);
    if name.contains('/') || name == ".." {
        return Err(failed("open")(Errno::INVAL));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = rustix::fs::openat(above, name, flags, Mode::empty()).map_err(failed("open"))?;
    let mount = |dir: BorrowedFd<'_>| {
        let stat = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .map_err(failed("look at"))?;
        Ok(stat.stx_mnt_id)
    };
    if mount(above)? != mount(below.as_fd())? {
        return Err(failed("open")(Errno::XDEV));
    }
    Ok(below)
}

/// Refuses a directory that anybody but root may change; gives its id.
pub(super) fn check_owner(dir: &OwnedFd, path: &Path) -> Result<CgroupId, CgroupError> {
    let stat = rustix::fs::fstat(dir).map_err(|e| CgroupError::from_errno("look at", path, e))?;
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        return Err(CgroupError::NotRootOnly {
            path: path.to_owned(),
            uid: stat.st_uid,
            mode: stat.st_mode & 0o7777,
        });
    }
    Ok(CgroupId(stat.st_ino))
}

/// The names of the directories in a cgroup.
pub(super) fn children(dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<String>, CgroupError> {
    let failed = |e| CgroupError::from_errno("list", path, e);
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type() != FileType::Directory {
            continue;
        }
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn names_stay_below_the_cgroup2_root() {
        for name in [
            "",
            "/",
            ".",
            "..",
            "/egress",
            "egress/",
            "a//b",
            "a/../b",
            "cgroup.procs",
            "a/cgroup.kill",
            "a/b/c/d/e/f/g/h/i",
            "a b",
        ] {
            assert!(parts(name).is_err(), "{name:?}");
        }
        assert_eq!(parts("egress").expect("a name"), ["egress"]);
        assert_eq!(
            parts("egress.slice/run-1").expect("a name"),
            ["egress.slice", "run-1"]
        );
    }
}
