//! The system calls that a sandboxed command cannot make, each with its reason.
//!
//! The kernel programs judge sockets of the internet families only, and only
//! what a process does itself. Everything here is a way round them: sockets of
//! other families, calls that no filter of socket(2) sees, and calls that make
//! the kernel or another process act instead. What is not listed is allowed.
//!
//! A filter cannot be taken off and is inherited by every descendant.

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// When a listed call is refused.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Whatever its arguments are.
    Always,
    /// When its first argument is no socket family that the programs judge or
    /// that stays on this host.
    Family,
    /// When its first argument is netlink and its third no protocol of
    /// [`NETLINK_PROTOCOLS`].
    NetlinkProtocol,
    /// When its first argument asks for a user namespace.
    UserNamespace,
    /// When its second argument is this request.
    Request(u64),
}

/// A refused call.
struct Refused {
    call: c_long,
    when: When,
    /// Says why, for the reader and the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the tests print it"))]
    why: &'static str,
}

/// Families that may be used: the two that the programs judge, sockets with a
/// path (the host's are hidden), and the kernel's own answers about addresses.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Netlink protocols that only ask the kernel: routes and addresses, sockets,
/// devices. Others carry messages between processes.
const NETLINK_PROTOCOLS: [i32; 3] = [
    libc::NETLINK_ROUTE,
    libc::NETLINK_SOCK_DIAG,
    libc::NETLINK_KOBJECT_UEVENT,
];

const fn refused(call: c_long, when: When, why: &'static str) -> Refused {
    Refused { call, when, why }
}

/// Refused with `EPERM`.
#[rustfmt::skip]
const REFUSED: &[Refused] = &[
    refused(libc::SYS_socket, When::Family, "packet, vsock, TIPC, SMC, Bluetooth and others have no cgroup hook"),
    refused(libc::SYS_socket, When::NetlinkProtocol, "NETLINK_USERSOCK carries messages to any process outside"),
    refused(libc::SYS_socketpair, When::Family, "as socket(2)"),
    refused(libc::SYS_io_uring_setup, When::Always, "a ring makes sockets that no filter of socket(2) sees"),
    refused(libc::SYS_io_uring_enter, When::Always, "a ring that was passed in is no better"),
    refused(libc::SYS_io_uring_register, When::Always, "a ring that was passed in is no better"),
    refused(libc::SYS_keyctl, When::Always, "instantiating a key runs /sbin/request-key as root, outside every sandbox"),
    refused(libc::SYS_request_key, When::Always, "the kernel resolves names for it, as root, outside every sandbox"),
    refused(libc::SYS_add_key, When::Always, "keys are shared with processes outside"),
    refused(libc::SYS_bpf, When::Always, "programs and maps are how the fence is made"),
    refused(libc::SYS_perf_event_open, When::Always, "observes and slows what runs outside"),
    refused(libc::SYS_ptrace, When::Always, "makes another process act"),
    refused(libc::SYS_process_vm_readv, When::Always, "reads another process"),
    refused(libc::SYS_process_vm_writev, When::Always, "writes another process"),
    refused(libc::SYS_pidfd_getfd, When::Always, "takes a socket that was made outside"),
    refused(libc::SYS_setns, When::Always, "enters namespaces that were made outside"),
    refused(libc::SYS_unshare, When::UserNamespace, "brings every capability back, over namespaces of its own"),
    refused(libc::SYS_clone, When::UserNamespace, "as unshare(2)"),
    refused(libc::SYS_mount, When::Always, "brings hidden file systems back"),
    refused(libc::SYS_umount2, When::Always, "uncovers what is hidden"),
    refused(libc::SYS_pivot_root, When::Always, "changes what is seen"),
    refused(libc::SYS_open_tree, When::Always, "as mount(2)"),
    refused(libc::SYS_move_mount, When::Always, "as mount(2)"),
    refused(libc::SYS_mount_setattr, When::Always, "as mount(2)"),
    refused(libc::SYS_fsopen, When::Always, "as mount(2)"),
    refused(libc::SYS_fsconfig, When::Always, "as mount(2)"),
    refused(libc::SYS_fsmount, When::Always, "as mount(2)"),
    refused(libc::SYS_fspick, When::Always, "as mount(2)"),
    refused(libc::SYS_ioctl, When::Request(libc::TIOCSTI), "types into the terminal; the caller's shell runs it after the sandbox has ended"),
    refused(libc::SYS_ioctl, When::Request(libc::TIOCLINUX), "pastes into a text console, as TIOCSTI"),
];

/// Refused with `ENOSYS`, at which every C library falls back to what can be
/// judged: the flags of clone3 lie in memory, where no filter looks.
const UNKNOWN: &[c_long] = &[libc::SYS_clone3];

/// Why no filter could be made.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// There is no profile for this machine.
    #[error(
        "there is no system call filter for {0}; this build runs sandboxes on x86_64, aarch64 and riscv64"
    )]
    Architecture(&'static str),
    /// The profile has a defect.
    #[error("the system call filter cannot be built: {0}")]
    Profile(#[from] seccompiler::BackendError),
}

/// Builds the programs, in the order in which they are installed. Each kills a
/// process that calls through another architecture's table.
pub(super) fn programs() -> Result<Vec<BpfProgram>, SeccompError> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| SeccompError::Architecture(std::env::consts::ARCH))?;
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for refused in REFUSED {
        rules
            .entry(refused.call)
            .or_default()
            .extend(rule(refused.when)?);
    }
    let unknown = UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    let compile = |rules, errno: i32| {
        let errno = SeccompAction::Errno(errno.unsigned_abs());
        SeccompFilter::new(rules, SeccompAction::Allow, errno, machine)?.try_into()
    };
    let mut programs = vec![
        compile(rules, libc::EPERM)?,
        compile(unknown, libc::ENOSYS)?,
    ];
    if cfg!(target_arch = "x86_64") {
        programs.push(no_x32());
    }
    Ok(programs)
}

/// The condition as the filter compiler wants it; none means always.
fn rule(when: When) -> Result<Option<SeccompRule>, seccompiler::BackendError> {
    let word = |argument, operator, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    let conditions = match when {
        When::Always => return Ok(None),
        When::Family => FAMILIES
            .iter()
            .map(|family| word(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())))
            .collect::<Result<_, _>>()?,
        When::NetlinkProtocol => {
            let netlink = u64::from(libc::AF_NETLINK.unsigned_abs());
            let is_netlink = word(0, SeccompCmpOp::Eq, netlink);
            let is_other = NETLINK_PROTOCOLS
                .iter()
                .map(|protocol| word(2, SeccompCmpOp::Ne, u64::from(protocol.unsigned_abs())));
            std::iter::once(is_netlink)
                .chain(is_other)
                .collect::<Result<_, _>>()?
        }
        When::UserNamespace => {
            let flag = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
            vec![word(0, SeccompCmpOp::MaskedEq(flag), flag)?]
        }
        When::Request(request) => vec![word(1, SeccompCmpOp::Eq, request)?],
    };
    SeccompRule::new(conditions).map(Some)
}

/// Refuses the x32 table: it has the architecture of x86_64, and its numbers
/// begin at bit 30, so no rule above would match them.
fn no_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const X32: u32 = 0x4000_0000;
    let instruction = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    vec![
        instruction(LOAD_NUMBER, 0, 0),
        instruction(JUMP_IF_AT_LEAST, 1, X32),
        instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        instruction(
            RETURN,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{REFUSED, When, programs};
    use std::collections::BTreeMap;

    #[test]
    fn every_refusal_says_why_and_none_makes_another_void() {
        let mut seen: BTreeMap<_, Vec<When>> = BTreeMap::new();
        for refused in REFUSED {
            assert!(!refused.why.is_empty(), "{}", refused.call);
            seen.entry(refused.call).or_default().push(refused.when);
        }
        for (call, whens) in seen {
            // An unconditional entry is an empty list of rules, so it must be alone.
            let always = whens.iter().any(|when| matches!(when, When::Always));
            assert!(!always || whens.len() == 1, "call {call}: {whens:?}");
        }
    }

    #[test]
    fn the_profile_compiles_to_programs_that_the_kernel_takes() {
        let programs = programs().expect("a profile for this machine");
        assert!(
            programs
                .iter()
                .all(|program| (4..4096).contains(&program.len()))
        );
    }
}
