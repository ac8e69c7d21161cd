//! Programs of other people, as an agent may find them: made and attached with
//! bare `bpf(2)` calls, so that nothing of the product is in them. And questions
//! to the kernel about what it offers, put to it in the same way.

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
    pub const PROG_DETACH: i64 = 9;
    pub const PROG_GET_FD_BY_ID: i64 = 13;
    pub const PROG_QUERY: i64 = 16;
}

/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const CGROUP_SKB: u32 = 8;
/// `BPF_PROG_TYPE_LSM`, and `BPF_LSM_CGROUP` of `enum bpf_attach_type`.
const LSM: u32 = 29;
const LSM_CGROUP: u32 = 43;

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

/// [`ProgramAttr`] and on to the function that a program belongs to.
#[repr(C)]
struct LsmProgramAttr {
    program: ProgramAttr,
    types: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
    lines: u64,
    line_count: u32,
    attach_type_id: u32,
}

#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

impl ProgramAttr {
    /// What loads `code`, which has to live until the call is over.
    fn new(kind: u32, attach_type: u32, name: &str, code: &[u64]) -> Self {
        Self {
            kind,
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
            attach_type,
        }
    }
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
        let mut attr = ProgramAttr::new(CGROUP_SKB, direction as u32, name, &code);
        let descriptor = load_program(&mut attr)?;
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

/// Takes every place for programs at what an interface of this network namespace
/// receives, with ones that let others decide. Fails with `EINVAL` where the
/// kernel has no `tcx`.
pub fn fill_interface(interface: u32) -> io::Result<()> {
    const SCHED_CLS: u32 = 3;
    const TCX_INGRESS: u32 = 46;
    /// `ERANGE`: there is no more room.
    const FULL: i32 = 34;
    // r0 = TCX_NEXT; exit.
    let code = [instruction(0xb7, 0, u32::MAX), instruction(0x95, 0, 0)];
    for _ in 0..=64 {
        let mut attr = ProgramAttr::new(SCHED_CLS, 0, "foreign", &code);
        let descriptor = load_program(&mut attr)?;
        let mut attr = AttachAttr {
            target: interface,
            program: number(&descriptor),
            attach_type: TCX_INGRESS,
            flags: 0,
        };
        match bpf(command::PROG_ATTACH, &mut attr) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(FULL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the kernel finds room for ever more"))
}

/// Loads a program that does nothing for an LSM hook of cgroups, and drops it.
/// `function` is the hook's in the kernel, `bpf_lsm_…`.
pub fn load_lsm_program(function: &str) -> io::Result<()> {
    let code = [instruction(0xb7, 0, 1), instruction(0x95, 0, 0)];
    let types = std::fs::read("/sys/kernel/btf/vmlinux")?;
    let id = function_id(&types, function.as_bytes());
    let mut attr = LsmProgramAttr {
        program: ProgramAttr::new(LSM, LSM_CGROUP, "tests_lsm", &code),
        types: 0,
        function_size: 0,
        functions: 0,
        function_count: 0,
        line_size: 0,
        lines: 0,
        line_count: 0,
        attach_type_id: id.ok_or(io::ErrorKind::NotFound)?,
    };
    load_program(&mut attr).map(drop)
}

#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
    flags_of_programs: u64,
}

/// The ids of the LSM programs that are attached to a cgroup.
pub fn lsm_programs(cgroup: &Path) -> io::Result<Vec<u32>> {
    const ROOM: usize = 64;
    let directory = File::open(cgroup)?;
    let (mut ids, mut flags) = ([0_u32; ROOM], [0_u32; ROOM]);
    let mut attr = QueryAttr {
        target: number(&directory),
        attach_type: LSM_CGROUP,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ROOM as u32,
        reserved: 0,
        flags_of_programs: flags.as_mut_ptr() as u64,
    };
    bpf(command::PROG_QUERY, &mut attr)?;
    Ok(ids[..attr.count as usize].to_vec())
}

/// Takes them out, and says how many there were.
pub fn detach_lsm_programs(cgroup: &Path) -> io::Result<usize> {
    let directory = File::open(cgroup)?;
    let ids = lsm_programs(cgroup)?;
    for id in &ids {
        let descriptor = bpf(command::PROG_GET_FD_BY_ID, &mut [*id, 0, 0])?;
        // SAFETY: the kernel has just opened it for this process.
        let program = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let mut attr = AttachAttr {
            target: number(&directory),
            program: number(&program),
            attach_type: LSM_CGROUP,
            flags: 0,
        };
        bpf(command::PROG_DETACH, &mut attr)?;
    }
    Ok(ids.len())
}

/// The id of a function in type information (`Documentation/bpf/btf.rst`).
fn function_id(bytes: &[u8], function: &[u8]) -> Option<u32> {
    const FUNCTION: u32 = 12;
    let word = |place: usize| {
        let word = bytes.get(place..place + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(word) as usize)
    };
    let (header, end, strings) = (word(4)?, word(12)?, word(16)?);
    let strings = bytes.get(header + strings..)?;
    let mut at = header + word(8)?;
    let end = at + end;
    let mut id = 0;
    while at < end {
        id += 1;
        let (name, info) = (word(at)?, word(at + 4)? as u32);
        let (parts, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
        let named = strings.get(name..)?.split(|byte| *byte == 0).next()?;
        if kind == FUNCTION && named == function {
            return Some(id);
        }
        at += 12
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => parts * 12,
                6 | 13 => parts * 8,
                _ => 0,
            };
    }
    None
}

/// The version of Landlock's interface.
pub fn landlock_version() -> io::Result<i64> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel takes no pointer and makes nothing.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) };
    match version {
        0.. => Ok(version),
        _ => Err(io::Error::last_os_error()),
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

/// Loads a program; `attr` is or begins with a [`ProgramAttr`].
fn load_program<T>(attr: &mut T) -> io::Result<OwnedFd> {
    let descriptor = bpf(command::PROG_LOAD, attr)?;
    // SAFETY: the kernel has just opened it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
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
