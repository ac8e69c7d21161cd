//! Programs of other people, as an agent may find them: made and attached with
//! bare `bpf(2)` calls, so that nothing of the product is in them.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Commands of `bpf(2)`.
mod command {
    pub const MAP_CREATE: i64 = 0;
    pub const PROG_LOAD: i64 = 5;
    pub const PROG_ATTACH: i64 = 8;
}

/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const CGROUP_SKB: u32 = 8;

/// Where a packet program is attached (`enum bpf_attach_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Direction {
    /// What enters.
    Ingress = 0,
    /// What leaves.
    Egress = 1,
}

/// Who else may attach there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Sharing {
    /// Nobody.
    Exclusive = 0,
    /// Everybody (`BPF_F_ALLOW_MULTI`).
    Multi = 2,
}

/// A program that lets every packet pass.
#[derive(Debug)]
pub struct Program {
    descriptor: OwnedFd,
}

#[repr(C)]
struct MapAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct ProgramAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

impl Program {
    /// Loads a program for `direction`, with a hash map of this name and number
    /// of entries if one is given.
    pub fn load(name: &str, direction: Direction, map: Option<(&str, u32)>) -> io::Result<Self> {
        let map = map
            .map(|(name, entries)| make_map(name, entries))
            .transpose()?;
        let mut code: Vec<u64> = Vec::new();
        if let Some(map) = &map {
            // r1 = map: that it stands here is what makes the map the program's.
            code.extend([instruction(0x18, 0x11, number(map)), 0]);
        }
        // r0 = 1; exit.
        code.extend([instruction(0xb7, 0, 1), instruction(0x95, 0, 0)]);
        let mut attr = ProgramAttr {
            kind: CGROUP_SKB,
            instruction_count: code.len() as u32,
            instructions: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: cut(name),
            interface: 0,
            attach_type: direction as u32,
        };
        let descriptor = bpf(command::PROG_LOAD, &mut attr)?;
        // SAFETY: the kernel has just opened it for this process.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor })
    }

    /// Attaches it; it stays until the cgroup goes.
    pub fn attach(&self, cgroup: &Path, direction: Direction, sharing: Sharing) -> io::Result<()> {
        let directory = File::open(cgroup)?;
        let mut attr = AttachAttr {
            target: number(&directory),
            program: number(&self.descriptor),
            attach_type: direction as u32,
            flags: sharing as u32,
        };
        bpf(command::PROG_ATTACH, &mut attr).map(drop)
    }
}

fn make_map(name: &str, entries: u32) -> io::Result<OwnedFd> {
    let mut attr = MapAttr {
        kind: HASH,
        key_size: 4,
        value_size: 8,
        entries,
        flags: 0,
        inner: 0,
        node: 0,
        name: cut(name),
    };
    let descriptor = bpf(command::MAP_CREATE, &mut attr)?;
    // SAFETY: the kernel has just opened it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `struct bpf_insn`: operation, two registers, no offset, immediate value.
const fn instruction(operation: u8, registers: u8, immediate: u32) -> u64 {
    operation as u64 | (registers as u64) << 8 | (immediate as u64) << 32
}

/// The kernel keeps 15 bytes of a name.
fn cut(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *place = byte;
    }
    bytes
}

fn number(descriptor: &impl AsRawFd) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

fn bpf<T>(command: i64, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a `repr(C)` prefix of `union bpf_attr` of the length that
    // is passed, and what it points to lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(descriptor) if descriptor >= 0 => Ok(descriptor),
        _ => Err(io::Error::last_os_error()),
    }
}
