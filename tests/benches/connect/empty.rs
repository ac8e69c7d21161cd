//! The floor: programs that say "pass" and nothing else, at every hook that the
//! product uses. What they cost is the kernel's price for having a hook.

#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper for programs without an object"
)]

use egress_agent::enforcer::HOOKS;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const ALLOW_MULTI: u32 = 1 << 1;

/// `mov r0, 1; exit`, in the kernel's encoding (RFC 9669).
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches one at each hook; they stay until the cgroup is removed.
pub fn attach(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    for hook in HOOKS {
        let point = hook.point as u32;
        let program = load(point)?;
        let mut attr = AttachAttr {
            target: cgroup.as_raw_fd() as u32,
            program: program.as_raw_fd() as u32,
            attach_type: point,
            flags: ALLOW_MULTI,
        };
        bpf(PROG_ATTACH, &mut attr)
            .map_err(|error| io::Error::other(format!("empty {}: {error}", hook.program)))?;
    }
    Ok(())
}

/// The program type that an attach point takes (`enum bpf_prog_type`).
const fn program_type(point: u32) -> u32 {
    const CGROUP_SKB: u32 = 8;
    const CGROUP_SOCK: u32 = 9;
    const CGROUP_SOCK_ADDR: u32 = 18;
    const CGROUP_SOCKOPT: u32 = 25;
    match point {
        0 | 1 => CGROUP_SKB,
        // sock_create, post_bind4, post_bind6, sock_release.
        2 | 12 | 13 | 34 => CGROUP_SOCK,
        21 | 22 => CGROUP_SOCKOPT,
        _ => CGROUP_SOCK_ADDR,
    }
}

fn load(point: u32) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        kind: program_type(point),
        instruction_count: PASS.len() as u32,
        instructions: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        name: *b"empty\0\0\0\0\0\0\0\0\0\0\0",
        expected_attach_type: point,
        ..Default::default()
    };
    let fd = bpf(PROG_LOAD, &mut attr)?;
    // SAFETY: on success the kernel has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is an initialised `repr(C)` prefix of `union bpf_attr`
    // without padding, and its true size is passed; the kernel takes missing
    // tail fields as zero. The pointers inside it lead to statics.
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
        Ok(result as i32)
    }
}
