//! The kernel object: loading it, alone or onto the maps of a predecessor.

use super::error::{EnforcerError, chain};
use super::hooks::{HOOKS, LINK_HOOKS};
use super::predecessor::Predecessor;
use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use egress_common::names;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

/// The object that was built with this agent, aligned as aya wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("EGRESS_EBPF_OBJECT"));

/// A BPF file system that is mounted nowhere: maps can be handed to aya through
/// it by name, nobody else can see it, and it is gone with its descriptor.
struct PrivateBpffs(OwnedFd);

impl PrivateBpffs {
    fn new() -> rustix::io::Result<Self> {
        let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        fsmount(&context, flags, MountAttrFlags::empty()).map(Self)
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

/// A loaded object: programs that are not attached yet, and their maps.
pub(super) struct Loaded {
    ebpf: Ebpf,
    /// Why the kernel refuses the programs for interfaces, if it does.
    pub(super) no_links: Option<String>,
}

impl Loaded {
    /// Loads for sandboxes at depth `level`. With a predecessor its maps are
    /// used, so that everything that was open or remembered stays so.
    pub(super) fn load(level: u32, onto: Option<&Predecessor>) -> Result<Self, EnforcerError> {
        let bpffs =
            PrivateBpffs::new().map_err(|error| EnforcerError::NotPermitted(error.into()))?;
        let paths: Vec<_> = names::MAPS
            .iter()
            .map(|name| (*name, bpffs.path(name)))
            .collect();
        if let Some(predecessor) = onto {
            for (name, path) in &paths {
                if let Some(map) = predecessor.map(name) {
                    map.pin(path)
                        .map_err(|error| EnforcerError::Object(chain(&error)))?;
                }
            }
        }
        let mut loader = EbpfLoader::new();
        loader.override_global(names::SANDBOX_LEVEL, &level, true);
        if onto.is_some() {
            for (name, path) in &paths {
                loader.map_pin_path(name, path.clone());
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| refusal(&error))?;
        for hook in HOOKS {
            load_program(&mut ebpf, hook.program)?;
        }
        // A kernel that refuses these has everything but interfaces.
        let mut links = LINK_HOOKS.iter();
        let no_links = match links.try_for_each(|(name, _)| load_program(&mut ebpf, name)) {
            Ok(()) => None,
            Err(error @ EnforcerError::NotPermitted(_)) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "no interface can be a sandbox on this kernel");
                Some(error.to_string())
            }
        };
        Ok(Self { ebpf, no_links })
    }

    /// A loaded program.
    pub(super) fn program(&self, name: &'static str) -> Result<&Program, EnforcerError> {
        self.ebpf
            .program(name)
            .ok_or_else(|| EnforcerError::Object(format!("it has no program `{name}`")))
    }

    /// A map that is still to be taken out.
    pub(super) fn map(&self, name: &'static str) -> Result<&Map, EnforcerError> {
        self.ebpf
            .map(name)
            .ok_or_else(|| EnforcerError::Object(format!("it has no map `{name}`")))
    }

    /// Takes a map out.
    pub(super) fn take_map(&mut self, name: &'static str) -> Result<Map, EnforcerError> {
        self.ebpf
            .take_map(name)
            .ok_or_else(|| EnforcerError::Object(format!("it has no map `{name}`")))
    }
}

/// The layouts that this agent's object would create, to compare with what is
/// in force: the object is parsed, nothing is loaded.
pub(super) fn layouts() -> Result<Vec<(String, Layout)>, EnforcerError> {
    let object =
        aya_obj::Object::parse(OBJECT).map_err(|error| EnforcerError::Object(error.to_string()))?;
    Ok(object
        .maps
        .iter()
        .filter(|(name, _)| names::MAPS.contains(&name.as_str()))
        .map(|(name, map)| {
            let layout = Layout {
                kind: map.map_type(),
                key: map.key_size(),
                // The object notes the event type; the kernel's ring has no values.
                value: if map.map_type() == RING_BUFFER {
                    0
                } else {
                    map.value_size()
                },
                entries: map.max_entries(),
                flags: map.map_flags(),
            };
            (name.clone(), layout)
        })
        .collect())
}

/// The functions of the object, for tests of what they need.
#[cfg(test)]
pub(super) fn functions() -> Result<Vec<aya_obj::Function>, aya_obj::ParseError> {
    let object = aya_obj::Object::parse(OBJECT)?;
    Ok(object.functions.into_values().collect())
}

/// `BPF_MAP_TYPE_RINGBUF`.
const RING_BUFFER: u32 = 27;

/// What must be equal for a map to be taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) kind: u32,
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
}

impl Layout {
    /// Reads it off a map in force.
    pub(super) fn of(map: &MapData) -> Result<Self, String> {
        let info = map.info().map_err(|error| chain(&error))?;
        Ok(Self {
            kind: info.map_type().map_err(|error| chain(&error))? as u32,
            key: info.key_size(),
            value: info.value_size(),
            entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }
}

fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), EnforcerError> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| EnforcerError::Object(format!("it has no program `{name}`")))?;
    let result = match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::CgroupDevice(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        other => {
            let kind = other.prog_type();
            return Err(EnforcerError::Object(format!(
                "`{name}` is of the unexpected kind {kind:?}"
            )));
        }
    };
    result.map_err(|error| {
        let log = match &error {
            ProgramError::LoadError { verifier_log, .. } => last_lines(&verifier_log.to_string()),
            _ => String::new(),
        };
        match &error {
            ProgramError::LoadError { io_error, .. }
                if io_error.kind() == std::io::ErrorKind::PermissionDenied && log.is_empty() =>
            {
                EnforcerError::NotPermitted(std::io::Error::from(io_error.kind()))
            }
            _ => EnforcerError::Program {
                program: name,
                error: chain(&error),
                log,
            },
        }
    })
}

/// The verifier names the offending instruction at the end.
fn last_lines(log: &str) -> String {
    const SHOWN: usize = 12;
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// Why the object was refused; lack of permission is by far the most frequent.
fn refusal(error: &aya::EbpfError) -> EnforcerError {
    let text = chain(error);
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return EnforcerError::NotPermitted(std::io::Error::other(text));
        }
        source = cause.source();
    }
    EnforcerError::Object(text)
}
