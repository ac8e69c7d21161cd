//! What a command sees of the file system: the plan of its mount namespace.
//!
//! Network access is judged in the kernel; what is left is asking somebody
//! outside to act. So every door to somebody outside is closed here: control
//! file systems, `/run`, and each Unix socket that has a path. The plan is made
//! before the process exists, since nothing may be allocated after the clone.
//!
//! `/run` is replaced as a whole: a socket that is hidden by itself comes back
//! when its owner makes it anew.

use crate::model::Relaxation;
use crate::sandbox::mount_table::{self, Mount};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

/// File systems through which processes are moved, programs are found, the
/// kernel is steered, or messages reach processes outside.
const CONTROL_FILE_SYSTEMS: &[&str] = &[
    "cgroup", "cgroup2", "bpf", "tracefs", "debugfs", "configfs", "efivarfs", "mqueue",
];

/// Directories of daemons' sockets outside `/run`. The single sockets in them
/// are made anew while a sandbox runs.
const SOCKET_DIRECTORIES: &[&str] = &[
    "/var/run",
    "/tmp/.X11-unix",
    "/tmp/.ICE-unix",
    "/var/lib/sss/pipes",
    "/var/spool/postfix/private",
    "/var/spool/postfix/public",
];

/// Directories of devices that carry packets past every hook: TUN and TAP, and
/// the user-space queues of RDMA adapters.
const DEVICE_DIRECTORIES: &[&str] = &["/dev/net", "/dev/infiniband"];

/// Single devices of that kind: virtual machines' queues, the hypervisor's
/// sockets, PPP.
const DEVICES: &[&str] = &[
    "/dev/vhost-net",
    "/dev/vhost-vsock",
    "/dev/vsock",
    "/dev/ppp",
];

/// Memory that processes share by name: the sandbox gets its own.
const SHARED_MEMORY: &str = "/dev/shm";

/// The directory that becomes the sandbox's own.
const RUN: &str = "/run";

/// More sockets than this are not hidden one by one.
const MAX_SOCKETS: usize = 8192;

/// More of the host's sockets cannot be kept in reach: the child that keeps them
/// cannot allocate.
pub(super) const MAX_HOST_SOCKETS: usize = 16;

/// A plan: what happens to which path, in the order of the fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct View {
    /// Directories that become empty.
    pub hidden_directories: Vec<CString>,
    /// Sockets and devices that lead nowhere.
    pub hidden_files: Vec<CString>,
    /// The host's sockets that can be reached all the same.
    pub host_sockets: Vec<CString>,
    /// Directories that are made for them, outermost first.
    pub host_socket_directories: Vec<CString>,
    /// Directories that are made in the sandbox's own `/run`, outermost first.
    pub run_directories: Vec<CString>,
    /// The resolver configuration.
    pub resolv_conf: Option<ResolvConf>,
    /// Places that become read-only: those through which root's mere ownership
    /// of files steers the kernel.
    pub read_only: Vec<CString>,
    /// With it everything is read-only but a `/tmp` that is mounted with these
    /// options.
    pub tmp: Option<CString>,
}

/// A `resolv.conf` of the sandbox's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ResolvConf {
    /// The file that is written, below `/run`.
    pub file: CString,
    /// What is in it.
    pub content: Vec<u8>,
    /// The host's file that it covers, unless it lies in its place already.
    pub covers: Option<CString>,
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// What is mounted, or which sockets there are, cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Too many to hide.
    #[error(
        "more than {MAX_SOCKETS} Unix sockets with a path are open on this host; they cannot all be hidden"
    )]
    TooManySockets,
    /// Without a `/run` of the sandbox's own, files would be made in the host's.
    #[error("/run is not a directory of this host; make it: `mkdir -m 755 /run`")]
    NoRun,
    /// What a policy names is no socket.
    #[error(
        "the policy opens the host's socket {0}, and there is none: {1}; start its service, or take \
         it out of `sandbox.relax`"
    )]
    NoHostSocket(PathBuf, io::Error),
    /// More than can be kept.
    #[error("`sandbox.relax` names more than {MAX_HOST_SOCKETS} sockets of the host")]
    TooManyHostSockets,
    /// A path holds a zero byte, so the table it came from was not understood.
    #[error("{0:?} is no path")]
    Path(PathBuf),
}

/// The text of a `resolv.conf` that brings queries to port 53 and nothing else.
///
/// Every packet to port 53 reaches the agent's resolver, whatever its address.
/// The host's file may name none, or one that clients cannot send to (a
/// link-local address); and its search list would turn each short name into
/// queries for the host's own domains. `search .` keeps the C library from
/// making up such a list from the host name.
pub fn resolv_conf(nameserver: IpAddr) -> String {
    format!(
        "# Written by egressctl for this sandbox.\nnameserver {nameserver}\nsearch .\noptions edns0\n"
    )
}

impl View {
    /// Looks at the host and plans.
    pub(super) fn plan(
        resolv_conf: Option<String>,
        root_user: bool,
        relaxed: &[Relaxation],
    ) -> Result<Self, ViewError> {
        let read = |path: &'static str| move |source| ViewError::Read { path, source };
        let mounts = mount_table::read().map_err(read("/proc/self/mountinfo"))?;
        let sockets = std::fs::read("/proc/net/unix").map_err(read("/proc/net/unix"))?;
        let hidden = hidden_directories(&mounts);
        if !hidden.contains(Path::new(RUN)) {
            return Err(ViewError::NoRun);
        }
        let sockets = sockets_with_a_path(&sockets, &hidden);
        if sockets.len() > MAX_SOCKETS {
            return Err(ViewError::TooManySockets);
        }
        let (shown, above) = host_sockets(relaxed, &hidden)?;
        let devices = DEVICES.iter().map(PathBuf::from).filter(|d| d.exists());
        let mut view = Self {
            hidden_directories: paths(hidden)?,
            hidden_files: paths(sockets.into_iter().chain(devices))?,
            host_sockets: paths(shown)?,
            host_socket_directories: paths(above)?,
            ..Self::default()
        };
        if let Some(content) = resolv_conf {
            view.set_resolv_conf(content, target(Path::new("/etc/resolv.conf")))?;
        }
        if root_user {
            let places = [
                "/proc/sys",
                "/proc/sysrq-trigger",
                "/proc/irq",
                "/proc/bus",
                "/sys",
            ];
            let places = places.iter().map(PathBuf::from).filter(|p| p.exists());
            view.read_only = paths(places)?;
        }
        Ok(view)
    }

    /// Empties further directories, and makes further places read-only: what is
    /// not there, or lies in the sandbox's own `/proc`, is left out.
    pub(super) fn without(
        mut self,
        hidden: &[PathBuf],
        read_only: &[PathBuf],
    ) -> Result<Self, ViewError> {
        let real = |paths: &[PathBuf]| -> BTreeSet<PathBuf> {
            let real = paths.iter().filter_map(|path| path.canonicalize().ok());
            let own = |path: &PathBuf| path.starts_with("/proc") || path.parent().is_none();
            real.filter(|path| !own(path)).collect()
        };
        let before = self.hidden_directories.iter().map(path_from);
        let mut emptied: BTreeSet<PathBuf> = before.collect();
        emptied.extend(real(hidden).into_iter().filter(|path| path.is_dir()));
        let emptied = outermost(&emptied);
        let gone = |path: &Path| path.ancestors().any(|above| emptied.contains(above));
        self.hidden_files.retain(|path| !gone(&path_from(path)));
        let kept = real(read_only).into_iter().filter(|path| !gone(path));
        self.read_only.extend(paths(kept)?);
        self.hidden_directories = paths(emptied)?;
        Ok(self)
    }

    /// Makes everything read-only but a `/tmp` of so many bytes.
    pub(super) fn with_disk(mut self, bytes: Option<u64>) -> Result<Self, ViewError> {
        if bytes.is_some() {
            // The new /tmp hides what lies in the host's.
            let below_tmp = |path: &CString| path.as_bytes().starts_with(b"/tmp/");
            self.hidden_directories.retain(|path| !below_tmp(path));
            self.hidden_files.retain(|path| !below_tmp(path));
            self.read_only.retain(|path| !below_tmp(path));
        }
        // Files without content have no bytes to be counted by.
        let options =
            bytes.map(|bytes| format!("mode=1777,size={bytes},nr_inodes={}", bytes / 4096 + 16));
        self.tmp = options.map(|options| path_of(options.into())).transpose()?;
        Ok(self)
    }

    /// Plans the resolver configuration for where the host's file really lies.
    fn set_resolv_conf(&mut self, content: String, host: Target) -> Result<(), ViewError> {
        let own = PathBuf::from(RUN).join("resolv.conf");
        let (file, covers) = match host {
            // Every C library asks 127.0.0.1 port 53 then, which is what is wanted.
            Target::Missing => return Ok(()),
            Target::At(path) if path.starts_with(RUN) => {
                let above: Vec<_> = path
                    .ancestors()
                    .skip(1)
                    .take_while(|above| *above != Path::new(RUN))
                    .map(Path::to_owned)
                    .collect();
                self.run_directories = paths(above.into_iter().rev())?;
                (path, None)
            }
            Target::At(path) => (own, Some(path_of(path)?)),
        };
        self.resolv_conf = Some(ResolvConf {
            file: path_of(file)?,
            content: content.into_bytes(),
            covers,
        });
        Ok(())
    }
}

/// Where a file really lies.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    At(PathBuf),
    Missing,
}

/// Follows a file that may be a link, also into what is not there (yet): the
/// target of `resolv.conf` is often made in `/run` by a daemon.
fn target(file: &Path) -> Target {
    if let Ok(path) = file.canonicalize() {
        return Target::At(path);
    }
    let Ok(link) = std::fs::read_link(file) else {
        return Target::Missing;
    };
    let joined = normal(&file.parent().unwrap_or(Path::new("/")).join(link));
    let joined = match joined.strip_prefix("/var/run") {
        Ok(rest) => Path::new(RUN).join(rest),
        Err(_) => joined,
    };
    if joined.starts_with(RUN) {
        Target::At(joined)
    } else {
        Target::Missing
    }
}

/// Resolves `.` and `..` by their letters alone.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Every directory to empty; none lies in another, since emptying the outer one
/// takes the inner one's place away.
fn hidden_directories(mounts: &[Mount]) -> BTreeSet<PathBuf> {
    // Whoever looks for a name below such a map has the host ask for that name
    // and call on its server.
    let asks = |mount: &&Mount| mount.kind == "autofs" && mount.source == Path::new("-hosts");
    let control = mounts
        .iter()
        .filter(|mount| CONTROL_FILE_SYSTEMS.contains(&mount.kind.as_str()) || asks(mount))
        .map(|mount| mount.point.clone());
    let sockets = SOCKET_DIRECTORIES
        .iter()
        .chain(DEVICE_DIRECTORIES)
        .map(PathBuf::from);
    let wanted: BTreeSet<PathBuf> = control
        .chain(sockets)
        .chain([PathBuf::from(RUN), PathBuf::from(SHARED_MEMORY)])
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| path.is_dir())
        .collect();
    outermost(&wanted)
}

/// Those that lie in none of the others.
fn outermost(paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let inner = |path: &&PathBuf| path.ancestors().skip(1).any(|above| paths.contains(above));
    paths.iter().filter(|path| !inner(path)).cloned().collect()
}

/// The sockets in the table (`/proc/net/unix`) that stand at a path and are not
/// hidden with a directory.
fn sockets_with_a_path(table: &[u8], hidden: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            // Seven fields, then the path, which may hold spaces.
            let start = line.windows(2).position(|pair| pair == b" /")? + 1;
            Some(PathBuf::from(std::ffi::OsString::from_vec(
                line[start..].to_vec(),
            )))
        })
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| !path.ancestors().any(|above| hidden.contains(above)))
        .filter(|path| {
            path.symlink_metadata()
                .is_ok_and(|metadata| metadata.file_type().is_socket())
        })
        .collect()
}

/// The host's sockets that stay in reach, where they really lie, and the
/// directories above them that are empty inside.
fn host_sockets(
    relaxed: &[Relaxation],
    hidden: &BTreeSet<PathBuf>,
) -> Result<(BTreeSet<PathBuf>, BTreeSet<PathBuf>), ViewError> {
    let mut shown = BTreeSet::new();
    let mut above = BTreeSet::new();
    for relaxation in relaxed {
        let Relaxation::HostSocket(named) = relaxation else {
            continue;
        };
        let none = |error| ViewError::NoHostSocket(named.clone(), error);
        let path = named.canonicalize().map_err(none)?;
        let metadata = path.symlink_metadata().map_err(none)?;
        if !metadata.file_type().is_socket() {
            return Err(none(io::Error::other("it is something else")));
        }
        let emptied = path.ancestors().position(|above| hidden.contains(above));
        // Of the path's ancestors, itself first, those below the emptied one.
        above.extend(
            path.ancestors()
                .take(emptied.unwrap_or(0))
                .skip(1)
                .map(Path::to_owned),
        );
        shown.insert(path);
    }
    if shown.len() > MAX_HOST_SOCKETS {
        return Err(ViewError::TooManyHostSockets);
    }
    Ok((shown, above))
}

fn paths(all: impl IntoIterator<Item = PathBuf>) -> Result<Vec<CString>, ViewError> {
    all.into_iter().map(path_of).collect()
}

fn path_from(path: &CString) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

fn path_of(path: PathBuf) -> Result<CString, ViewError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| ViewError::Path(path))
}

#[cfg(test)]
mod tests;
