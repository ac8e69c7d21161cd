//! The second wall: LSM programs at the governed root, where the kernel lets
//! them run. They know the running process where the other hooks know the
//! socket, so they stop what is carried in: sockets that were made outside, and
//! processes that were moved in by hand. Minimum kernel 6.1, with BPF LSM.

use crate::layout::shared;

/// An LSM hook with a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum LsmHook {
    /// A socket of whatever family is made.
    SocketCreate = 0,
    /// `connect(2)`.
    SocketConnect = 1,
    /// Anything is sent on a socket.
    SocketSendmsg = 2,
    /// A descriptor arrives: `SCM_RIGHTS`, `pidfd_getfd(2)`.
    FileReceive = 3,
    /// A process is looked into: `ptrace(2)`, `/proc/PID/mem`.
    PtraceAccessCheck = 4,
    /// `bpf(2)`.
    Bpf = 5,
    /// A file is about to be written, a cgroup's among them.
    InodePermission = 6,
}

impl LsmHook {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::SocketCreate,
        Self::SocketConnect,
        Self::SocketSendmsg,
        Self::FileReceive,
        Self::PtraceAccessCheck,
        Self::Bpf,
        Self::InodePermission,
    ];

    /// The kernel's name of it (`include/linux/lsm_hook_defs.h`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::SocketCreate => "socket_create",
            Self::SocketConnect => "socket_connect",
            Self::SocketSendmsg => "socket_sendmsg",
            Self::FileReceive => "file_receive",
            Self::PtraceAccessCheck => "ptrace_access_check",
            Self::Bpf => "bpf",
            Self::InodePermission => "inode_permission",
        }
    }

    /// The program's name in the object and in the kernel, at most 15 bytes.
    pub const fn program(self) -> &'static str {
        match self {
            Self::SocketCreate => "lsm_create",
            Self::SocketConnect => "lsm_connect",
            Self::SocketSendmsg => "lsm_send",
            Self::FileReceive => "lsm_receive",
            Self::PtraceAccessCheck => "lsm_trace",
            Self::Bpf => "lsm_bpf",
            Self::InodePermission => "lsm_write",
        }
    }
}

/// The symbol that holds the [`KernelLayout`], set when the object is loaded.
pub const KERNEL_LAYOUT: &str = "KERNEL_LAYOUT";

/// The map of refusals: [`LsmHook`] → count, per CPU.
pub const REFUSALS: &str = "LSM_REFUSALS";

/// Socket families that may be made or used; others have no other hook.
/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`.
pub const FAMILIES: [i32; 4] = [1, 2, 10, 16];

/// Where the fields lie that the programs read, in bytes from the beginning of
/// their structure. It differs between kernels; the agent reads it from the
/// running one's own type information.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct KernelLayout {
    /// `struct socket`, `sk`.
    pub socket_sk: u32,
    /// `struct sock`, `__sk_common.skc_family`, 16 bits.
    pub sock_family: u32,
    /// `struct sock`, `sk_cgrp_data.cgroup`.
    pub sock_cgroup: u32,
    /// `struct cgroup`, `level`, 32 bits.
    pub cgroup_level: u32,
    /// `struct cgroup`, `ancestors`, an array of pointers.
    pub cgroup_ancestors: u32,
    /// `struct cgroup`, `kn`.
    pub cgroup_node: u32,
    /// `struct kernfs_node`, `id`, 64 bits.
    pub node_id: u32,
    /// `struct file`, `f_inode`.
    pub file_inode: u32,
    /// `struct file`, `private_data`.
    pub file_private: u32,
    /// `struct inode`, `i_mode`, 16 bits.
    pub inode_mode: u32,
    /// `struct inode`, `i_sb`.
    pub inode_super: u32,
    /// `struct super_block`, `s_magic`, a word.
    pub super_magic: u32,
    /// `struct task_struct`, `cgroups`.
    pub task_set: u32,
    /// `struct css_set`, `dfl_cgrp`.
    pub set_cgroup: u32,
    /// `struct inode`, `i_private`.
    pub inode_private: u32,
    /// `struct kernfs_node`, its parent.
    pub node_parent: u32,
    /// `struct kernfs_node`, `name`.
    pub node_name: u32,
    /// Zero.
    pub reserved: u32,
}

shared! {
    KernelLayout: 72 = {
        socket_sk: u32, sock_family: u32, sock_cgroup: u32, cgroup_level: u32,
        cgroup_ancestors: u32, cgroup_node: u32, node_id: u32, file_inode: u32,
        file_private: u32, inode_mode: u32, inode_super: u32, super_magic: u32,
        task_set: u32, set_cgroup: u32, inode_private: u32, node_parent: u32,
        node_name: u32, reserved: u32,
    }
}
