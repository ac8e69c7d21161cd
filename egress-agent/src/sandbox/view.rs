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
    let control = mounts
        .iter()
        .filter(|mount| CONTROL_FILE_SYSTEMS.contains(&mount.kind.as_str()))
        .map(|mount| mount.point.clone());
    let sockets = SOCKET_DIRECTORIES
        .iter()
        .chain(DEVICE_DIRECTORIES)
        .map(PathBuf::from);
    let wanted: BTreeSet<PathBuf> = control
        .chain(sockets)
        .chain([PathBuf::from(RUN)])
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| path.is_dir())
        .collect();
    wanted
        .iter()
        .filter(|path| !path.ancestors().skip(1).any(|above| wanted.contains(above)))
        .cloned()
        .collect()
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

fn path_of(path: PathBuf) -> Result<CString, ViewError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| ViewError::Path(path))
}

#[cfg(test)]
mod tests {
    use super::{
        ResolvConf, Target, View, hidden_directories, normal, sockets_with_a_path, target,
    };
    use crate::sandbox::mount_table::Mount;
    use std::collections::BTreeSet;
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};

    #[test]
    fn control_file_systems_are_hidden_wherever_they_are_and_only_the_outermost() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("a directory");
        let mount = |point: &Path, kind: &str| Mount {
            root: "/".into(),
            point: point.to_owned(),
            kind: kind.to_owned(),
            read_only: false,
        };
        let table = [
            mount(&inner, "bpf"),
            mount(dir.path(), "cgroup2"),
            mount(Path::new("/usr"), "ext4"),
        ];
        let hidden = hidden_directories(&table);
        assert!(hidden.contains(dir.path()));
        assert!(hidden.contains(Path::new("/run")));
        assert!(!hidden.contains(&inner));
        assert!(!hidden.contains(Path::new("/usr")));
    }

    #[test]
    fn sockets_with_a_path_are_found_in_the_table() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a socket");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let table = std::fs::read("/proc/net/unix").expect("the table");
        assert!(sockets_with_a_path(&table, &BTreeSet::new()).contains(&path));
        let hidden = BTreeSet::from([dir.path().to_owned()]);
        assert!(!sockets_with_a_path(&table, &hidden).contains(&path));
    }

    #[test]
    fn resolv_conf_is_planned_for_where_it_really_lies() {
        let plan = |host| {
            let mut view = View::default();
            view.set_resolv_conf("text".to_owned(), host)
                .expect("a plan");
            view
        };
        assert_eq!(plan(Target::Missing), View::default());
        let plain = plan(Target::At("/etc/resolv.conf".into()));
        assert_eq!(
            plain.resolv_conf,
            Some(ResolvConf {
                file: c"/run/resolv.conf".to_owned(),
                content: b"text".to_vec(),
                covers: Some(c"/etc/resolv.conf".to_owned()),
            })
        );
        let linked = plan(Target::At("/run/systemd/resolve/stub-resolv.conf".into()));
        assert_eq!(
            linked.run_directories,
            [
                c"/run/systemd".to_owned(),
                c"/run/systemd/resolve".to_owned()
            ]
        );
        assert_eq!(linked.resolv_conf.expect("planned").covers, None);
    }

    #[test]
    fn links_into_run_are_followed_even_when_they_dangle() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("resolv.conf");
        for to in [
            "/run/nobody/resolv.conf",
            "/var/run/nobody/../nobody/resolv.conf",
        ] {
            std::os::unix::fs::symlink(to, &link).expect("a link");
            assert_eq!(
                target(&link),
                Target::At(PathBuf::from("/run/nobody/resolv.conf"))
            );
            std::fs::remove_file(&link).expect("removed");
        }
        assert_eq!(target(&link), Target::Missing);
        assert_eq!(normal(Path::new("/etc/../run/./a")), Path::new("/run/a"));
    }
}
