//! The `bpf(2)` calls that aya does not offer: attaching without a link, asking
//! what is attached, and taking programs up by id.
//!
//! Attaching with `BPF_PROG_ATTACH` and not through a link is what lets
//! enforcement outlive the agent without hanging on a pinned file
//! (`docs/decisions/0002-attach-without-links.md`).

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Commands of `bpf(2)`, from `include/uapi/linux/bpf.h`.
mod command {
    pub const PROG_ATTACH: i32 = 8;
    pub const PROG_DETACH: i32 = 9;
    pub const PROG_GET_FD_BY_ID: i32 = 13;
    pub const PROG_QUERY: i32 = 16;
}

/// Gives the memory back that was needed once: parsing the kernel's type
/// information takes some 30 MiB, which the C library would keep for later.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and may be called at any time, from
    // any thread; memory that is in use stays as it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;
/// Before the program that is named, or before all if none is.
const BEFORE: u32 = 1 << 3;
/// Also what ancestors contribute.
const QUERY_EFFECTIVE: u32 = 1;

/// Where on a cgroup a program is attached: `enum bpf_attach_type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum AttachPoint {
    InetIngress = 0,
    InetEgress = 1,
    SockCreate = 2,
    Device = 6,
    Inet4Connect = 10,
    Inet6Connect = 11,
    Inet4PostBind = 12,
    Inet6PostBind = 13,
    Udp4Sendmsg = 14,
    Udp6Sendmsg = 15,
    Udp4Recvmsg = 19,
    Udp6Recvmsg = 20,
    Setsockopt = 22,
    Inet4Getpeername = 29,
    Inet6Getpeername = 30,
    SockRelease = 34,
    /// Of whichever LSM hook the program is for. Linux 6.1.
    LsmCgroup = 43,
}

/// Which side of an interface a program is attached to through `tcx`, Linux 6.6:
/// `enum bpf_attach_type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Side {
    /// What the interface receives: what the sandbox behind it sends.
    Ingress = 46,
    /// What the interface sends: what reaches the sandbox.
    Egress = 47,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttachAttr {
    interface: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
    replace_fd: u32,
    relative: u32,
    expected_revision: u64,
}

/// Whole, because the kernel writes `revision`.
#[repr(C)]
#[derive(Default)]
struct LinkQueryAttr {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
    attach_flags_of_programs: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
    replace_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
    attach_flags_of_programs: u64,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The kernel reads and writes exactly `size_of::<T>()` bytes.
fn bpf<T>(command: i32, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: `attr` is an initialised `repr(C)` prefix of `union bpf_attr`
    // without padding, and its true size is passed; the kernel takes missing
    // tail fields as zero. Pointers inside it are set by the callers below to
    // buffers that live across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// File descriptors are never negative.
fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Attaches beside other programs (`BPF_F_ALLOW_MULTI`), or in place of `instead`.
pub fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    point: AttachPoint,
    instead: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        program_fd: raw(program),
        attach_type: point as u32,
        flags: ALLOW_MULTI | if instead.is_some() { REPLACE } else { 0 },
        replace_fd: instead.map_or(0, raw),
    };
    bpf(command::PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches one program.
pub fn detach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    point: AttachPoint,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        program_fd: raw(program),
        attach_type: point as u32,
        ..Default::default()
    };
    bpf(command::PROG_DETACH, &mut attr).map(drop)
}

/// The ids of the programs at a point of a cgroup, in the order in which they
/// run; with `effective`, those that ancestors contribute too, which the kernel
/// does not tell of LSM programs.
pub fn attached(
    cgroup: BorrowedFd<'_>,
    point: AttachPoint,
    effective: bool,
) -> io::Result<Vec<u32>> {
    /// The kernel allows 64 programs per cgroup and point; ancestors add theirs.
    const ROOM: usize = 1024;
    let mut ids = vec![0_u32; ROOM];
    // Of LSM programs the kernel tells nothing to who does not ask for these.
    let mut flags = vec![0_u32; ROOM];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: point as u32,
        query_flags: if effective { QUERY_EFFECTIVE } else { 0 },
        ids: ids.as_mut_ptr() as u64,
        count: ROOM as u32,
        attach_flags_of_programs: match point {
            AttachPoint::LsmCgroup => flags.as_mut_ptr() as u64,
            _ => 0,
        },
        ..Default::default()
    };
    bpf(command::PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

/// A descriptor of a loaded program.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr {
        id,
        ..Default::default()
    };
    let fd = bpf(command::PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: on success the kernel has made this descriptor for us, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches to an interface of this network namespace, before all other
/// programs there, or in place of `instead`. Stays when the process ends.
pub fn attach_to_link(
    interface: u32,
    program: BorrowedFd<'_>,
    side: Side,
    instead: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = LinkAttachAttr {
        interface,
        program_fd: raw(program),
        attach_type: side as u32,
        flags: if instead.is_some() { REPLACE } else { BEFORE },
        replace_fd: instead.map_or(0, raw),
        ..Default::default()
    };
    bpf(command::PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches from an interface.
pub fn detach_from_link(interface: u32, program: BorrowedFd<'_>, side: Side) -> io::Result<()> {
    let mut attr = LinkAttachAttr {
        interface,
        program_fd: raw(program),
        attach_type: side as u32,
        ..Default::default()
    };
    bpf(command::PROG_DETACH, &mut attr).map(drop)
}

/// The ids of the programs at a side of an interface, in the order in which
/// they run. Fails with `EINVAL` where the kernel has no `tcx`.
pub fn attached_to_link(interface: u32, side: Side) -> io::Result<Vec<u32>> {
    /// The kernel allows 63 programs per interface and side.
    const ROOM: usize = 64;
    let mut ids = vec![0_u32; ROOM];
    let mut attr = LinkQueryAttr {
        interface,
        attach_type: side as u32,
        ids: ids.as_mut_ptr() as u64,
        count: ROOM as u32,
        ..Default::default()
    };
    bpf(command::PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}
