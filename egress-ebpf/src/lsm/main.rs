//! The LSM programs: an object of its own, so that the other programs never
//! depend on what few kernels let run.
//!
//! They are attached to the governed root as `lsm_cgroup` and run for the
//! *process* that is below it, whatever socket it uses: where the cgroup hooks
//! of `egress-ebpf` go by the socket, these compare the two.

#![no_std]
#![no_main]
// For one atomic addition in `kernel`, as in the other object.
#![feature(asm_experimental_arch)]
#![allow(
    missing_docs,
    reason = "the attribute macros make undocumented twins of the entry points"
)]

mod kernel;

use aya_ebpf::{macros::lsm_cgroup, programs::LsmContext};
use core::ffi::c_void;
use egress_common::lsm::{FAMILIES, LsmHook};

/// The kernel's words: `EPERM` for the caller, and going on.
const REFUSE: i32 = 0;
const PASS: i32 = 1;

/// `MAY_WRITE` of `include/linux/fs.h`.
const MAY_WRITE: i32 = 2;

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC` of `include/uapi/linux/magic.h`.
const CGROUP_FILE_SYSTEMS: [u64; 2] = [0x6367_7270, 0x0027_e0eb];

#[inline(always)]
fn conclude(hook: LsmHook, refused: bool) -> i32 {
    if refused {
        kernel::count(hook);
        return REFUSE;
    }
    PASS
}

/// `socket(2)` and io_uring's, of every family. Sockets that the kernel makes
/// for itself are none of a process's.
#[lsm_cgroup(hook = "socket_create")]
pub fn lsm_create(ctx: LsmContext) -> i32 {
    let family: i32 = ctx.arg(0);
    let by_kernel: i32 = ctx.arg(3);
    let refused = by_kernel == 0 && !FAMILIES.contains(&family);
    conclude(LsmHook::SocketCreate, refused)
}

/// `connect(2)` on a socket of somebody else's.
#[lsm_cgroup(hook = "socket_connect")]
pub fn lsm_connect(ctx: LsmContext) -> i32 {
    let socket: *const c_void = ctx.arg(0);
    conclude(LsmHook::SocketConnect, kernel::is_foreign_socket(socket))
}

/// `send(2)` and its like on a socket of somebody else's.
#[lsm_cgroup(hook = "socket_sendmsg")]
pub fn lsm_send(ctx: LsmContext) -> i32 {
    let socket: *const c_void = ctx.arg(0);
    conclude(LsmHook::SocketSendmsg, kernel::is_foreign_socket(socket))
}

/// A socket of somebody else's arrives.
#[lsm_cgroup(hook = "file_receive")]
pub fn lsm_receive(ctx: LsmContext) -> i32 {
    let file: *const c_void = ctx.arg(0);
    conclude(LsmHook::FileReceive, kernel::holds_foreign_socket(file))
}

/// A process outside of the sandbox is looked into.
#[lsm_cgroup(hook = "ptrace_access_check")]
pub fn lsm_trace(ctx: LsmContext) -> i32 {
    let task: *const c_void = ctx.arg(0);
    conclude(LsmHook::PtraceAccessCheck, kernel::is_foreign_task(task))
}

/// `bpf(2)`, whatever is asked.
#[lsm_cgroup(hook = "bpf")]
pub fn lsm_bpf(_: LsmContext) -> i32 {
    conclude(LsmHook::Bpf, true)
}

/// A cgroup is written: moving processes, making and removing cgroups. But a
/// process may put itself where it is: systemd's services do, after systemd has.
#[lsm_cgroup(hook = "inode_permission")]
pub fn lsm_write(ctx: LsmContext) -> i32 {
    let inode: *const c_void = ctx.arg(0);
    let mask: i32 = ctx.arg(1);
    let refused = mask & MAY_WRITE != 0
        && kernel::file_system(inode).is_none_or(|magic| CGROUP_FILE_SYSTEMS.contains(&magic))
        && !kernel::is_own_membership(inode);
    conclude(LsmHook::InodePermission, refused)
}

/// Never runs: a program with a path to it is refused by the verifier.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets the programs call helpers that the kernel offers to GPL-compatible code.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
