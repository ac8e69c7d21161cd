//! The child's own mounts: what it sees of the file system.

use super::child::at;
use super::{Failure, Step, last_errno};
use crate::sandbox::view::{MAX_HOST_SOCKETS, ResolvConf, View};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// The hidden directories that the sandbox can write.
const RUN: &CStr = c"/run";
const SHARED_MEMORY: &CStr = c"/dev/shm";

/// Makes the file system look as planned.
pub(super) fn see(view: &View) -> Result<(), Failure> {
    // What is made here must be readable whatever the caller's umask is.
    let callers = rustix::process::umask(Mode::from_raw_mode(0o022));
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private).map_err(at(Step::Propagation))?;
    if view.tmp.is_some() {
        make_all_read_only().map_err(at(Step::ReadOnlyRoot))?;
    }
    rustix::mount::mount(c"proc", c"/proc", c"proc", TIGHT, None).map_err(at(Step::Proc))?;
    let mut host_sockets = [const { None }; MAX_HOST_SOCKETS];
    keep_host_sockets(view, &mut host_sockets)?;
    if let Some(options) = &view.tmp {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(c"tmpfs", c"/tmp", c"tmpfs", flags, options.as_c_str())
            .map_err(at(Step::Tmp))?;
    }
    let mut empty = None;
    for (index, path) in view.hidden_directories.iter().enumerate() {
        hide_directory(path, view, &mut empty).map_err(nth(Step::HideDirectory, index))?;
    }
    for (index, path) in view.hidden_files.iter().enumerate() {
        match rustix::mount::mount_bind(c"/dev/null", path.as_c_str()) {
            // Gone since the plan was made: nothing is there to be hidden.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(nth(Step::HideFile, index)(errno)),
        }
    }
    for path in &view.run_directories {
        make_directory(path).map_err(at(Step::ResolvConf))?;
    }
    show_host_sockets(view, &host_sockets)?;
    if let Some(resolv_conf) = &view.resolv_conf {
        write_resolv_conf(resolv_conf).map_err(at(Step::ResolvConf))?;
    }
    for (index, path) in view.read_only.iter().enumerate() {
        make_read_only(path).map_err(nth(Step::ReadOnly, index))?;
    }
    rustix::process::umask(callers | Mode::from_raw_mode(0o022));
    Ok(())
}

fn nth(step: Step, index: usize) -> impl Fn(Errno) -> Failure {
    move |errno| Failure {
        step,
        index: u16::try_from(index).unwrap_or(u16::MAX),
        errno,
    }
}

const TIGHT: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Puts an empty file system there. Those of `/run` and `/dev/shm` can be written,
/// and others' if something is to be put into them yet; else `empty`, the first of
/// them, stands for all: a file system of its own costs the kernel a hundred times
/// what one more mount of it does.
fn hide_directory<'v>(
    path: &'v CStr,
    view: &View,
    empty: &mut Option<&'v CStr>,
) -> Result<(), Errno> {
    let own =
        |flags, options: &CStr| rustix::mount::mount(c"tmpfs", path, c"tmpfs", flags, options);
    if path == RUN {
        return own(TIGHT, c"mode=0755,size=1m");
    }
    if path == SHARED_MEMORY {
        // What lies there counts as the sandbox's memory; where `/tmp` is bounded
        // it is bounded alike.
        return own(TIGHT, view.tmp.as_deref().unwrap_or(c"mode=1777"));
    }
    if !view.host_sockets.is_empty() {
        return own(TIGHT, c"mode=0555,size=4k");
    }
    if let Some(empty) = *empty {
        return rustix::mount::mount_bind(empty, path);
    }
    *empty = Some(path);
    own(TIGHT | MountFlags::RDONLY, c"mode=0555,size=4k")
}

/// Takes hold of the host's sockets while they can still be seen.
fn keep_host_sockets(
    view: &View,
    kept: &mut [Option<OwnedFd>; MAX_HOST_SOCKETS],
) -> Result<(), Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    for (index, (path, place)) in view.host_sockets.iter().zip(kept).enumerate() {
        let tree = rustix::mount::open_tree(CWD, path.as_c_str(), flags);
        *place = Some(tree.map_err(nth(Step::HostSocket, index))?);
    }
    Ok(())
}

/// Puts them back where they were, each by itself: what lay beside them stays
/// hidden.
fn show_host_sockets(
    view: &View,
    kept: &[Option<OwnedFd>; MAX_HOST_SOCKETS],
) -> Result<(), Failure> {
    for path in &view.host_socket_directories {
        make_directory(path).map_err(nth(Step::HostSocket, 0))?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for (index, (path, socket)) in view.host_sockets.iter().zip(kept).enumerate() {
        let Some(socket) = socket else { continue };
        let failed = nth(Step::HostSocket, index);
        // Something to mount on. Where nothing was hidden it is the socket
        // itself, which cannot be opened and need not be made.
        match rustix::fs::openat(CWD, path.as_c_str(), flags, Mode::from_raw_mode(0o600)) {
            Ok(_) | Err(Errno::NXIO) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(socket, c"", CWD, path.as_c_str(), empty).map_err(failed)?;
    }
    if view.host_sockets.is_empty() {
        return Ok(());
    }
    for (index, path) in view.hidden_directories.iter().enumerate() {
        if path.as_c_str() != RUN && path.as_c_str() != SHARED_MEMORY {
            let read_only = TIGHT | MountFlags::RDONLY;
            rustix::mount::mount_remount(path.as_c_str(), read_only, c"mode=0555,size=4k")
                .map_err(nth(Step::HideDirectory, index))?;
        }
    }
    Ok(())
}

fn make_directory(path: &CStr) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn write_resolv_conf(resolv_conf: &ResolvConf) -> Result<(), Errno> {
    let file = rustix::fs::openat(
        CWD,
        resolv_conf.file.as_c_str(),
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )?;
    let mut rest = resolv_conf.content.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    match &resolv_conf.covers {
        Some(host) => rustix::mount::mount_bind(resolv_conf.file.as_c_str(), host.as_c_str()),
        None => Ok(()),
    }
}

/// Makes whatever is mounted until now read-only, for this namespace.
fn make_all_read_only() -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a string that ends in a zero byte, and the kernel reads
    // the structure, of whose size it is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// A place is bound onto itself without what is mounted below it, and turned.
fn make_read_only(path: &CStr) -> Result<(), Errno> {
    rustix::mount::mount_bind(path, path)?;
    let flags = TIGHT | MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(path, flags, c"")
}
