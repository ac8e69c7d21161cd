//! What can go wrong with cgroups.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a cgroup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Only cgroup v1 controllers are mounted.
    #[error(
        "this host mounts only cgroup v1; boot with `systemd.unified_cgroup_hierarchy=1`, or mount \
         cgroup2 beside v1: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    OnlyVersion1,
    /// No cgroup file system is mounted at all.
    #[error("no cgroup2 file system is mounted; mount one: `mount -t cgroup2 none /sys/fs/cgroup`")]
    NotMounted,
    /// Every cgroup2 mount is read-only.
    #[error(
        "cgroup2 is mounted read-only at {0}; run on the host, or give the container a writable cgroup file system"
    )]
    ReadOnly(PathBuf),
    /// Only a part of the hierarchy is visible.
    #[error(
        "this process sees only a part of the cgroup hierarchy ({0}); run it in the host's cgroup namespace, \
         where levels and ids are those that the kernel programs see"
    )]
    NotInitialNamespace(String),
    /// The name would leave the hierarchy, or is one of the kernel's own.
    #[error(
        "`{0}` cannot be a governed root: use one to eight parts of a-z, A-Z, 0-9, `-`, `_`, `.`, joined by `/`, \
         none of them a name of the kernel's own files"
    )]
    Name(String),
    /// Somebody else than root may change the directory.
    #[error(
        "{path} belongs to uid {uid} with mode {mode:o}; it must belong to root and be writable by root only, \
         otherwise its processes could be moved out of it"
    )]
    NotRootOnly {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// A sandbox of this name is there already; it is never adopted.
    #[error("{0} exists already; stop the sandbox of that name or choose another name")]
    Exists(PathBuf),
    /// The cgroup is not there.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// The caller is not root.
    #[error("{0}: permission denied; cgroups are made by root, try again with sudo")]
    NotPermitted(PathBuf),
    /// A state was not reached in time.
    #[error("{path} was not {state} within {waited:?}; {processes} processes are left in it")]
    Deadline {
        /// The directory.
        path: PathBuf,
        /// The state that was waited for, such as `empty`.
        state: &'static str,
        /// How long.
        waited: Duration,
        /// How many processes are still there.
        processes: usize,
    },
    /// The kernel refused something else.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CgroupError {
    /// Turns an errno into the variant that says most about it.
    pub(super) fn from_errno(
        action: &'static str,
        path: impl Into<PathBuf>,
        errno: rustix::io::Errno,
    ) -> Self {
        use rustix::io::Errno;
        let path = path.into();
        match errno {
            Errno::NOENT => Self::Missing(path),
            Errno::EXIST => Self::Exists(path),
            Errno::ROFS => Self::ReadOnly(path),
            Errno::ACCESS | Errno::PERM => Self::NotPermitted(path),
            other => Self::Io {
                action,
                path,
                source: other.into(),
            },
        }
    }
}
