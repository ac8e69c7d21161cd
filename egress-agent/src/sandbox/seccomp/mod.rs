//! The system calls that a sandboxed command cannot make, each with its reason.
//!
//! The kernel programs judge sockets of the internet families only, and only
//! what a process does itself. Everything here is a way round them: sockets of
//! other families, calls that no filter of socket(2) sees, and calls that make
//! the kernel or another process act instead. What is not listed is allowed.
//!
//! A filter cannot be taken off and is inherited by every descendant.

mod profile;

pub use profile::{FAMILIES, NETLINK_PROTOCOLS, PROFILE, Refusal, RefusedCall, When};

use crate::model::Relaxation;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

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
/// process that calls through another architecture's table. What one of the
/// `relaxed` points opens is left out.
pub(super) fn programs(relaxed: &[Relaxation]) -> Result<Vec<BpfProgram>, SeccompError> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| SeccompError::Architecture(std::env::consts::ARCH))?;
    let mut refused: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    let mut unknown: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for entry in PROFILE.iter().filter(|entry| !entry.is_opened_by(relaxed)) {
        let rules = match entry.refusal {
            Refusal::NotPermitted => &mut refused,
            Refusal::Unknown => &mut unknown,
        };
        rules
            .entry(entry.number)
            .or_default()
            .extend(rule(entry.when)?);
    }
    let compile = |rules, errno: i32| {
        let errno = SeccompAction::Errno(errno.unsigned_abs());
        SeccompFilter::new(rules, SeccompAction::Allow, errno, machine)?.try_into()
    };
    let mut programs = vec![
        compile(refused, libc::EPERM)?,
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
    use super::programs;
    use crate::model::Relaxation;

    #[test]
    fn the_profile_compiles_to_programs_that_the_kernel_takes() {
        let length = |relaxed: &[Relaxation]| -> usize {
            let programs = programs(relaxed).expect("a profile for this machine");
            let fits = |program: &super::BpfProgram| (4..4096).contains(&program.len());
            assert!(programs.iter().all(fits));
            programs.iter().map(Vec::len).sum()
        };
        let usual = length(&[]);
        assert!(length(&[Relaxation::Ptrace]) < usual);
        assert!(length(&[Relaxation::UserNamespaces]) < usual);
        let socket = Relaxation::HostSocket("/run/a".into());
        assert_eq!(length(&[Relaxation::Root, socket]), usual);
    }
}
