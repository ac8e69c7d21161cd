//! The raw-memory room of the LSM programs: structures of the kernel, read at
//! the places that the agent found in the kernel's type information.
//!
//! Every read is a copy that can fail and never faults. What cannot be read is
//! foreign: unknown means refused.

use aya_ebpf::{
    btf_maps::PerCpuArray,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id},
    },
    macros::btf_map,
};
use core::ffi::c_void;
use egress_common::lsm::{KernelLayout, LsmHook};

/// Depth of a sandbox below the cgroup2 root; set when the object is loaded.
#[unsafe(no_mangle)]
static SANDBOX_LEVEL: u32 = 0;

/// Set when the object is loaded.
#[unsafe(no_mangle)]
static KERNEL_LAYOUT: KernelLayout = KernelLayout {
    socket_sk: 0,
    sock_family: 0,
    sock_cgroup: 0,
    cgroup_level: 0,
    cgroup_ancestors: 0,
    cgroup_node: 0,
    node_id: 0,
    file_inode: 0,
    file_private: 0,
    inode_mode: 0,
    inode_super: 0,
    super_magic: 0,
    task_set: 0,
    set_cgroup: 0,
    inode_private: 0,
    node_parent: 0,
    node_name: 0,
    reserved: 0,
};

/// What was refused, by [`LsmHook`].
#[btf_map]
static LSM_REFUSALS: PerCpuArray<u64, 8> = PerCpuArray::new();

/// File types of `st_mode`.
const FILE_TYPE: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

/// Families that reach no network: a pair of pipes, and the kernel itself.
const AF_UNIX: u16 = 1;
const AF_NETLINK: u16 = 16;

/// A pointer into the kernel.
type Address = *const c_void;

/// One field of the layout.
macro_rules! place {
    ($field:ident) => {
        // SAFETY: a static is always valid to read. Volatile, because the loader
        // replaces the value in the object after the compiler has seen it.
        unsafe { core::ptr::read_volatile(&raw const KERNEL_LAYOUT.$field) }
    };
}

#[inline(always)]
fn read<T>(base: Address, offset: u32) -> Option<T> {
    if base.is_null() {
        return None;
    }
    // SAFETY: the helper copies from any address and fails where there is
    // nothing; `T` is an integer or a pointer, of which every bit pattern is one.
    unsafe { bpf_probe_read_kernel(base.wrapping_byte_add(offset as usize).cast::<T>()) }.ok()
}

#[inline(always)]
fn level() -> u32 {
    // SAFETY: as in `place`.
    unsafe { core::ptr::read_volatile(&raw const SANDBOX_LEVEL) }
}

/// Whether a cgroup is not in the sandbox of the running process.
#[inline(always)]
fn is_foreign(cgroup: Address) -> bool {
    // SAFETY: the helper takes any level and reads only the current task.
    let own = unsafe { bpf_get_current_ancestor_cgroup_id(level() as i32) };
    own == 0 || sandbox_of(cgroup) != Some(own)
}

/// The id of the sandbox that a cgroup is or lies in.
#[inline(always)]
fn sandbox_of(cgroup: Address) -> Option<u64> {
    let depth: i32 = read(cgroup, place!(cgroup_level))?;
    if depth < level() as i32 {
        return None;
    }
    let pointer = size_of::<Address>() as u32;
    let sandbox: Address = read(cgroup, place!(cgroup_ancestors) + level() * pointer)?;
    let node: Address = read(sandbox, place!(cgroup_node))?;
    read(node, place!(node_id))
}

/// Whether a `struct socket` can reach a network and was made elsewhere.
#[inline(always)]
pub fn is_foreign_socket(socket: Address) -> bool {
    // None is left of a socket that is being closed: it sends nothing.
    let Some(sk) = read::<Address>(socket, place!(socket_sk)) else {
        return true;
    };
    if sk.is_null() {
        return false;
    }
    match read::<u16>(sk, place!(sock_family)) {
        Some(AF_UNIX | AF_NETLINK) => false,
        Some(_) => read(sk, place!(sock_cgroup)).is_none_or(is_foreign),
        None => true,
    }
}

/// Whether a `struct file` is such a socket.
#[inline(always)]
pub fn holds_foreign_socket(file: Address) -> bool {
    let mode = read::<Address>(file, place!(file_inode))
        .and_then(|inode| read::<u16>(inode, place!(inode_mode)));
    match mode {
        Some(mode) if mode & FILE_TYPE == SOCKET => {
            match read::<Address>(file, place!(file_private)) {
                // The path of a Unix socket, opened as a path.
                Some(socket) if socket.is_null() => false,
                Some(socket) => is_foreign_socket(socket),
                None => true,
            }
        }
        Some(_) => false,
        None => true,
    }
}

/// Whether a `struct task_struct` is in another sandbox, or in none.
#[inline(always)]
pub fn is_foreign_task(task: Address) -> bool {
    read::<Address>(task, place!(task_set))
        .and_then(|set| read::<Address>(set, place!(set_cgroup)))
        .is_none_or(is_foreign)
}

/// The magic number of the file system of a `struct inode`.
#[inline(always)]
pub fn file_system(inode: Address) -> Option<u64> {
    let super_block: Address = read(inode, place!(inode_super))?;
    read(super_block, place!(super_magic))
}

/// Whether a `struct inode` of a cgroup file system is `cgroup.procs` of the very
/// cgroup that the running process is in. Writing there brings nobody anywhere:
/// whoever is elsewhere can only be moved by who may write above both.
#[inline(always)]
pub fn is_own_membership(inode: Address) -> bool {
    let Some(node) = read::<Address>(inode, place!(inode_private)) else {
        return false;
    };
    let cgroup = read::<Address>(node, place!(node_parent))
        .and_then(|parent| read::<u64>(parent, place!(node_id)));
    // SAFETY: the helper takes nothing and reads only the current task.
    let own = unsafe { bpf_get_current_cgroup_id() };
    cgroup == Some(own) && read::<Address>(node, place!(node_name)).is_some_and(is_membership)
}

/// Whether a name in the kernel is `cgroup.procs`, in words: there is no memory to
/// compare.
#[inline(always)]
fn is_membership(name: Address) -> bool {
    read(name, 0) == Some(u64::from_ne_bytes(*b"cgroup.p"))
        && read(name, 8) == Some(u32::from_ne_bytes(*b"rocs"))
        && read(name, 12) == Some(0_u8)
}

/// Counts a refusal.
#[inline(always)]
pub fn count(hook: LsmHook) {
    let Some(value) = LSM_REFUSALS.get_ptr_mut(hook as u32) else {
        return;
    };
    // SAFETY: an element of a per-CPU array is eight aligned, writable bytes
    // that outlive the program. Assembly, for the reason that
    // `context::add_one` of the other object gives.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({pointer} + 0) += {one}",
            pointer = in(reg) value,
            one = in(reg) 1_u64,
        );
    }
}
