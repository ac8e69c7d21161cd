//! Where the cgroup2 file system is.

use crate::sandbox::cgroup::CgroupError;
use crate::sandbox::cgroup::root::children;
use crate::sandbox::mount_table::{self, Mount};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The inode number of the first cgroup namespace
/// (`CGROUP_NS_INIT_INO`, include/uapi/linux/nsfs.h; the same on every kernel).
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// The whole cgroup2 hierarchy of this machine, open for use.
#[derive(Debug)]
pub struct Hierarchy {
    dir: OwnedFd,
    path: PathBuf,
}

impl Hierarchy {
    /// Finds the mounted hierarchy: pure (`/sys/fs/cgroup`), hybrid
    /// (`/sys/fs/cgroup/unified`) or anywhere else.
    ///
    /// Refused when only a part of it is visible, since the depth at which the
    /// kernel programs look for a sandbox counts from the real root.
    pub fn find() -> Result<Self, CgroupError> {
        let table = mount_table::read().map_err(|source| CgroupError::Io {
            action: "read the mount table",
            path: "/proc/self/mountinfo".into(),
            source,
        })?;
        let path = select(&table)?.to_owned();
        let namespace = rustix::fs::stat("/proc/self/ns/cgroup")
            .map_err(|e| CgroupError::from_errno("look at", "/proc/self/ns/cgroup", e))?;
        if namespace.st_ino != INITIAL_CGROUP_NAMESPACE {
            return Err(CgroupError::NotInitialNamespace(format!(
                "cgroup namespace {}",
                namespace.st_ino
            )));
        }
        let dir = rustix::fs::open(
            &path,
            OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| CgroupError::from_errno("open", &path, e))?;
        let magic = rustix::fs::fstatfs(&dir)
            .map_err(|e| CgroupError::from_errno("look at", &path, e))?
            .f_type;
        // Something was mounted over it after the table was read, or hides it.
        if magic != libc::CGROUP2_SUPER_MAGIC {
            return Err(CgroupError::NotMounted);
        }
        Ok(Self { dir, path })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the cgroups directly below the cgroup2 root, in order: among
    /// them the governed roots that an agent left behind when it was killed.
    pub fn names(&self) -> Result<Vec<String>, CgroupError> {
        let dir = rustix::fs::openat(
            &self.dir,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| CgroupError::from_errno("open", &self.path, e))?;
        let mut names = children(dir.as_fd(), &self.path)?;
        names.sort();
        Ok(names)
    }
}

impl AsFd for Hierarchy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Chooses a writable mount of the whole hierarchy.
fn select(table: &[Mount]) -> Result<&Path, CgroupError> {
    let mounts = || table.iter().filter(|mount| mount.kind == "cgroup2");
    let whole = || mounts().filter(|mount| mount.root == Path::new("/"));
    if let Some(mount) = whole().find(|mount| !mount.read_only) {
        return Ok(&mount.point);
    }
    Err(match (whole().next(), mounts().next()) {
        (Some(mount), _) => CgroupError::ReadOnly(mount.point.clone()),
        (None, Some(mount)) => CgroupError::NotInitialNamespace(format!(
            "{} shows {}",
            mount.point.display(),
            mount.root.display()
        )),
        (None, None) if table.iter().any(|mount| mount.kind == "cgroup") => {
            CgroupError::OnlyVersion1
        }
        (None, None) => CgroupError::NotMounted,
    })
}

#[cfg(test)]
mod tests {
    use super::{CgroupError, Mount, select};
    use std::path::Path;

    fn mount(root: &str, point: &str, kind: &str, read_only: bool) -> Mount {
        Mount {
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            source: kind.into(),
            read_only,
        }
    }

    #[test]
    fn pure_and_hybrid_layouts_are_found_wherever_they_are() {
        let pure = [mount("/", "/sys/fs/cgroup", "cgroup2", false)];
        let hybrid = [
            mount("/", "/sys/fs/cgroup/cpu", "cgroup", false),
            mount("/", "/ro", "cgroup2", true),
            mount("/", "/elsewhere/unified", "cgroup2", false),
        ];
        assert_eq!(select(&pure).expect("pure"), Path::new("/sys/fs/cgroup"));
        assert_eq!(
            select(&hybrid).expect("hybrid"),
            Path::new("/elsewhere/unified")
        );
    }

    #[test]
    fn what_cannot_work_is_named() {
        let v1 = [mount("/", "/sys/fs/cgroup/cpu", "cgroup", false)];
        let read_only = [mount("/", "/c", "cgroup2", true)];
        let part = [mount("/../..", "/c", "cgroup2", false)];
        assert!(matches!(select(&v1), Err(CgroupError::OnlyVersion1)));
        assert!(matches!(select(&[]), Err(CgroupError::NotMounted)));
        assert!(matches!(select(&read_only), Err(CgroupError::ReadOnly(_))));
        assert!(matches!(
            select(&part),
            Err(CgroupError::NotInitialNamespace(_))
        ));
    }
}
