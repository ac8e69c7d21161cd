//! Proves that the programs refuse what they should, and only that, with a
//! process of the agent's own in a cgroup of the agent's own.
//!
//! A kernel can load and attach LSM programs and never ask them, and it is the
//! kernel's affair whether it asks by the socket's cgroup or by the process's.
//! Both are seen here, before anybody relies on it.

#![expect(
    unsafe_code,
    reason = "a process in a cgroup of its own has no safe interface"
)]

use super::super::Place;
use super::super::sys::{self, AttachPoint};
use super::{Loaded, RUNNING, fd};
use egress_common::lsm::LsmHook;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Pid;
use rustix::process::{WaitId, WaitIdOptions};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the process found, as bits of its status.
mod found {
    /// Its own socket connects.
    pub const OWN: i32 = 1;
    /// A socket that was made outside does not.
    pub const FOREIGN: i32 = 2;
    /// A socket of a family that no other hook sees is refused.
    pub const FAMILY: i32 = 4;
    /// `bpf(2)` is refused.
    pub const BPF: i32 = 8;
    /// It could not enter the cgroup, so it found nothing.
    pub const OUTSIDE: i32 = 16;
}

/// Two cgroups, one in the other, removed at the end: the inner one is as deep
/// as a sandbox.
struct Ground {
    outer: PathBuf,
    inner: PathBuf,
}

impl Ground {
    fn make(place: &Place) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let beside = place.path.parent().ok_or(io::ErrorKind::NotFound)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let outer = beside.join(format!("egress-lsm-trial-{}-{number}", std::process::id()));
        let inner = outer.join("process");
        std::fs::create_dir(&outer)?;
        let ground = Self { outer, inner };
        std::fs::create_dir(&ground.inner)?;
        Ok(ground)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for directory in [&self.inner, &self.outer] {
            if let Err(error) = std::fs::remove_dir(directory)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, directory = %directory.display(), "an empty cgroup stays behind");
            }
        }
    }
}

/// Tries the programs; the error says why they cannot be relied on.
pub(super) fn run(place: &Place, loaded: &Loaded) -> Result<(), String> {
    let failed = |error: io::Error| format!("they could not be tried: {error}");
    let ground = Ground::make(place).map_err(failed)?;
    let outer = File::open(&ground.outer).map_err(failed)?;
    for hook in &loaded.hooks {
        let program = fd(&loaded.ebpf, *hook).map_err(failed)?;
        sys::attach(outer.as_fd(), program.as_fd(), AttachPoint::LsmCgroup, None)
            .map_err(|error| format!("`{}` cannot be attached: {error}", hook.name()))?;
    }
    let seen = process_in(&ground.inner).map_err(failed)?;
    let judge = |bit: i32, hook: LsmHook| loaded.hooks.contains(&hook) && seen & bit == 0;
    if seen & (found::FOREIGN | found::FAMILY | found::BPF) == 0 {
        let running = std::fs::read_to_string(RUNNING).unwrap_or_else(|error| error.to_string());
        return Err(format!(
            "the programs load and are never asked; `bpf` has to stand in the kernel's `lsm=`, and \
             {RUNNING} says: {}",
            running.trim()
        ));
    }
    if seen & found::OWN == 0 {
        return Err("a process cannot use its own socket under them".into());
    }
    for (bit, hook) in [
        (found::FOREIGN, LsmHook::SocketConnect),
        (found::FAMILY, LsmHook::SocketCreate),
        (found::BPF, LsmHook::Bpf),
    ] {
        if judge(bit, hook) {
            return Err(format!("`{}` refuses nothing", hook.name()));
        }
    }
    Ok(())
}

/// Makes the process and waits for what it found.
///
/// It enters the cgroup by itself: a service that systemd keeps from making
/// namespaces may not call `clone3(2)`, the only call that could put it there.
fn process_in(cgroup: &Path) -> io::Result<i32> {
    let members = File::options()
        .write(true)
        .open(cgroup.join("cgroup.procs"))?;
    let outside = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: with no flag but the signal this is fork(2), of one thread of many:
    // the child makes system calls only, and ends.
    let result = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    let child = match result {
        0 => try_everything(members.as_raw_fd(), outside.as_raw_fd()),
        number => i32::try_from(number).ok().and_then(Pid::from_raw),
    };
    let Some(child) = child.filter(|_| result > 0) else {
        return Err(io::Error::last_os_error());
    };
    loop {
        match rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED) {
            Ok(status) => {
                let seen = status
                    .and_then(|status| status.exit_status())
                    .ok_or_else(|| io::Error::other("the process was killed"))?;
                return match seen {
                    found::OUTSIDE => {
                        Err(io::Error::other("the process could not enter its cgroup"))
                    }
                    seen => Ok(seen),
                };
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The child: tries, and tells by its status.
fn try_everything(members: RawFd, outside: RawFd) -> ! {
    let mut seen = 0;
    let itself = b"0";
    // SAFETY: system calls with numbers, and with a structure that lives across
    // them; each goes to the kernel directly, so no lock of the C library, which
    // another thread may have held at the time of the fork, is taken.
    unsafe {
        if libc::syscall(libc::SYS_write, members, itself.as_ptr(), itself.len()) < 0 {
            libc::_exit(found::OUTSIDE);
        }
        let own = libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0);
        if connect(own as RawFd) == 0 {
            seen |= found::OWN;
        }
        if connect(outside) == libc::EPERM {
            seen |= found::FOREIGN;
        }
        let odd = libc::syscall(libc::SYS_socket, libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
        if odd < 0 && *libc::__errno_location() == libc::EPERM {
            seen |= found::FAMILY;
        }
        // BPF_PROG_GET_NEXT_ID, which root may ask: answered, or ENOENT.
        let next_id = 11;
        let mut attributes = [0_u32; 3];
        let size = size_of_val(&attributes);
        let answer = libc::syscall(libc::SYS_bpf, next_id, attributes.as_mut_ptr(), size);
        if answer < 0 && *libc::__errno_location() == libc::EPERM {
            seen |= found::BPF;
        }
        libc::_exit(seen)
    }
}

/// Connects a UDP socket, which sends nothing; 0 or the error.
fn connect(socket: RawFd) -> i32 {
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(to.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the kernel reads the structure, of whose size it is told.
    unsafe {
        let size = size_of::<libc::sockaddr_in>();
        match libc::syscall(libc::SYS_connect, socket, &raw const address, size) {
            0 => 0,
            _ => *libc::__errno_location(),
        }
    }
}
