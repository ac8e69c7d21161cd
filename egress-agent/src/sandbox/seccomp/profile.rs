//! The profile: the refused system calls, each with its reason, as data.
//!
//! Everything here is a way round the kernel programs, or a way to make
//! somebody else act. A call that is not listed is allowed.

use crate::model::Relaxation;
use libc::c_long;

/// When a listed call is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Whatever its arguments are.
    Always,
    /// When its first argument is none of [`FAMILIES`].
    Family,
    /// When its first argument is netlink and its third no protocol of
    /// [`NETLINK_PROTOCOLS`].
    NetlinkProtocol,
    /// When its first argument asks for a user namespace (`CLONE_NEWUSER`).
    UserNamespace,
    /// When its second argument is this request.
    Request(u64),
}

/// What a caller of a refused call is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `EPERM`.
    NotPermitted,
    /// `ENOSYS`, at which every C library falls back to what can be judged.
    Unknown,
}

/// A refused call.
#[derive(Debug)]
pub struct RefusedCall {
    /// Its name, as in the manual's section 2.
    pub name: &'static str,
    /// Its number on this machine.
    pub number: c_long,
    /// For which arguments.
    pub when: When,
    /// What its caller is told.
    pub refusal: Refusal,
    /// The point of the fence that a policy can open, and with it this call.
    pub opened_by: Option<Relaxation>,
    /// Why it is refused: a sentence's rest, to follow "since it" or a colon.
    pub why: &'static str,
}

impl RefusedCall {
    /// Whether one of these points opens it.
    pub fn is_opened_by(&self, relaxed: &[Relaxation]) -> bool {
        let opened_by = self.opened_by.as_ref();
        opened_by.is_some_and(|point| relaxed.contains(point))
    }
}

/// Families that may be used: the two that the programs judge, sockets with a
/// path (the host's are hidden), and the kernel's own answers about addresses.
pub const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Netlink protocols that only ask the kernel: routes and addresses, sockets,
/// devices. Others carry messages between processes.
pub const NETLINK_PROTOCOLS: [i32; 3] = [
    libc::NETLINK_ROUTE,
    libc::NETLINK_SOCK_DIAG,
    libc::NETLINK_KOBJECT_UEVENT,
];

macro_rules! refused {
    ($name:literal, $number:ident, $when:expr, $opened_by:expr, $why:literal) => {
        refused!(
            $name,
            $number,
            $when,
            $opened_by,
            Refusal::NotPermitted,
            $why
        )
    };
    ($name:literal, $number:ident, $when:expr, $opened_by:expr, $refusal:expr, $why:literal) => {
        RefusedCall {
            name: $name,
            number: libc::$number,
            when: $when,
            refusal: $refusal,
            opened_by: $opened_by,
            why: $why,
        }
    };
}

/// All of them.
#[rustfmt::skip]
pub static PROFILE: &[RefusedCall] = &[
    refused!("socket", SYS_socket, When::Family, None, "packet, vsock, TIPC, SMC, Bluetooth and others have no cgroup hook"),
    refused!("socket", SYS_socket, When::NetlinkProtocol, None, "NETLINK_USERSOCK carries messages to any process outside"),
    refused!("socketpair", SYS_socketpair, When::Family, None, "as socket(2)"),
    refused!("io_uring_setup", SYS_io_uring_setup, When::Always, None, "a ring makes sockets that no filter of socket(2) sees"),
    refused!("io_uring_enter", SYS_io_uring_enter, When::Always, None, "a ring that was passed in is no better"),
    refused!("io_uring_register", SYS_io_uring_register, When::Always, None, "a ring that was passed in is no better"),
    refused!("keyctl", SYS_keyctl, When::Always, None, "instantiating a key runs /sbin/request-key as root, outside every sandbox"),
    refused!("request_key", SYS_request_key, When::Always, None, "the kernel resolves names for it, as root, outside every sandbox"),
    refused!("add_key", SYS_add_key, When::Always, None, "keys are shared with processes outside"),
    refused!("bpf", SYS_bpf, When::Always, None, "programs and maps are how the fence is made"),
    refused!("perf_event_open", SYS_perf_event_open, When::Always, None, "observes and slows what runs outside"),
    refused!("ptrace", SYS_ptrace, When::Always, Some(Relaxation::Ptrace), "makes another process act"),
    refused!("process_vm_readv", SYS_process_vm_readv, When::Always, Some(Relaxation::Ptrace), "reads another process"),
    refused!("process_vm_writev", SYS_process_vm_writev, When::Always, Some(Relaxation::Ptrace), "writes another process"),
    refused!("pidfd_getfd", SYS_pidfd_getfd, When::Always, None, "takes a socket that was made outside"),
    refused!("setns", SYS_setns, When::Always, None, "enters namespaces that were made outside"),
    refused!("unshare", SYS_unshare, When::UserNamespace, Some(Relaxation::UserNamespaces), "brings every capability back, over namespaces of its own"),
    refused!("clone", SYS_clone, When::UserNamespace, Some(Relaxation::UserNamespaces), "as unshare(2)"),
    refused!("mount", SYS_mount, When::Always, Some(Relaxation::UserNamespaces), "brings hidden file systems back"),
    refused!("umount2", SYS_umount2, When::Always, Some(Relaxation::UserNamespaces), "uncovers what is hidden"),
    refused!("pivot_root", SYS_pivot_root, When::Always, Some(Relaxation::UserNamespaces), "changes what is seen"),
    refused!("open_tree", SYS_open_tree, When::Always, Some(Relaxation::UserNamespaces), "as mount(2)"),
    refused!("move_mount", SYS_move_mount, When::Always, Some(Relaxation::UserNamespaces), "as mount(2)"),
    refused!("mount_setattr", SYS_mount_setattr, When::Always, Some(Relaxation::UserNamespaces), "as mount(2)"),
    refused!("fsopen", SYS_fsopen, When::Always, Some(Relaxation::UserNamespaces), "as mount(2)"),
    refused!("fsconfig", SYS_fsconfig, When::Always, Some(Relaxation::UserNamespaces), "as mount(2)"),
    refused!("fsmount", SYS_fsmount, When::Always, Some(Relaxation::UserNamespaces), "as mount(2)"),
    refused!("fspick", SYS_fspick, When::Always, Some(Relaxation::UserNamespaces), "as mount(2)"),
    refused!("ioctl", SYS_ioctl, When::Request(libc::TIOCSTI), None, "types into the terminal; the caller's shell runs it after the sandbox has ended"),
    refused!("ioctl", SYS_ioctl, When::Request(libc::TIOCLINUX), None, "pastes into a text console, as TIOCSTI"),
    refused!("clone3", SYS_clone3, When::Always, None, Refusal::Unknown, "its flags lie in memory, where no filter looks"),
];

#[cfg(test)]
mod tests {
    use super::{PROFILE, When};
    use std::collections::BTreeMap;

    #[test]
    fn every_refusal_says_why_and_none_makes_another_void() {
        let mut seen: BTreeMap<_, Vec<When>> = BTreeMap::new();
        for refused in PROFILE {
            assert!(!refused.why.is_empty(), "{}", refused.name);
            seen.entry(refused.name).or_default().push(refused.when);
        }
        for (call, whens) in seen {
            // An unconditional entry is an empty list of rules, so it must be alone.
            let always = whens.contains(&When::Always);
            assert!(!always || whens.len() == 1, "{call}: {whens:?}");
        }
    }
}
