//! The second wall: LSM programs, where the kernel lets them run.
//!
//! Nothing depends on them. They are an object of their own, loaded one by one;
//! where the kernel refuses them, or takes them and never asks them (`bpf` is
//! missing in `lsm=`), that is told and the start goes on. Whether they work is
//! not read from a list but tried: see [`trial`].
//!
//! Like the other programs they are attached with `BPF_PROG_ATTACH`, so they
//! outlive the agent and no pinned file holds them. Minimum kernel 6.1; needs
//! `CONFIG_BPF_LSM`, `bpf` among the running LSMs, and BTF.

mod btf;
mod trial;

use super::sys::{self, AttachPoint};
use super::{Place, error::chain};
use aya::maps::PerCpuArray;
use aya::programs::{Program, ProgramError, ProgramFd, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use egress_common::lsm::{KERNEL_LAYOUT, LsmHook, REFUSALS};
use egress_common::names;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The object that was built with this agent, aligned as aya wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("EGRESS_LSM_OBJECT"));

/// The kernel's list of running LSMs, for messages only.
const RUNNING: &str = "/sys/kernel/security/lsm";

/// The programs in force.
pub(super) struct Wall {
    /// Holds the programs, so that one that is taken away can be put back.
    ebpf: Ebpf,
    refusals: PerCpuArray<aya::maps::MapData, u64>,
    own: Mutex<BTreeMap<LsmHook, u32>>,
    /// What this kernel does not take, and why.
    missing: Vec<(LsmHook, String)>,
}

/// A program that is loaded and not attached yet.
struct Loaded {
    ebpf: Ebpf,
    hooks: Vec<LsmHook>,
    missing: Vec<(LsmHook, String)>,
}

impl Wall {
    /// Loads, tries and attaches. The error says why there is no wall.
    pub fn start(place: &Place, root: BorrowedFd<'_>) -> Result<Self, String> {
        let mut loaded = Loaded::load(place.level + 1)?;
        trial::run(place, &loaded)?;
        let before =
            in_force(root).map_err(|error| format!("the root cannot be asked: {error}"))?;
        let mut own = BTreeMap::new();
        for hook in std::mem::take(&mut loaded.hooks) {
            match loaded.put(root, hook, before.get(&hook).copied()) {
                Ok(id) => {
                    own.insert(hook, id);
                }
                Err(error) => loaded.missing.push((hook, error)),
            }
        }
        let refusals = loaded
            .ebpf
            .take_map(REFUSALS)
            .ok_or("its object has no map of refusals")?;
        let refusals = PerCpuArray::try_from(refusals).map_err(|error| chain(&error))?;
        Ok(Self {
            ebpf: loaded.ebpf,
            refusals,
            own: Mutex::new(own),
            missing: loaded.missing,
        })
    }

    /// What is in force, in words.
    pub fn describe(&self) -> String {
        let own = self.own();
        let names: Vec<_> = own.keys().map(|hook| hook.name()).collect();
        let mut text = format!("in force: {}", names.join(", "));
        for (hook, why) in &self.missing {
            text.push_str(&format!("; not {}: {why}", hook.name()));
        }
        text
    }

    /// What was refused since the agent began, by hook.
    pub fn refusals(&self) -> Vec<(LsmHook, u64)> {
        let count = |hook: LsmHook| {
            let values = self.refusals.get(&(hook as u32), 0).ok()?;
            Some((hook, values.iter().sum()))
        };
        LsmHook::ALL.into_iter().filter_map(count).collect()
    }

    /// Which of ours somebody took away.
    pub fn gone(&self, root: BorrowedFd<'_>) -> io::Result<Vec<LsmHook>> {
        let ids = sys::attached(root, AttachPoint::LsmCgroup, false)?;
        let own = self.own();
        let gone = own.iter().filter(|(_, id)| !ids.contains(id));
        Ok(gone.map(|(hook, _)| *hook).collect())
    }

    /// Attaches one anew.
    pub fn put_back(&self, root: BorrowedFd<'_>, hook: LsmHook) -> io::Result<()> {
        sys::attach(
            root,
            fd(&self.ebpf, hook)?.as_fd(),
            AttachPoint::LsmCgroup,
            None,
        )
    }

    fn own(&self) -> MutexGuard<'_, BTreeMap<LsmHook, u32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    fn load(level: u32) -> Result<Self, String> {
        let layout = btf::Btf::of_the_kernel()?.layout()?;
        let kernel = aya::Btf::from_sys_fs().map_err(|error| chain(&error))?;
        let mut loader = EbpfLoader::new();
        loader.override_global(names::SANDBOX_LEVEL, &level, true);
        loader.override_global(KERNEL_LAYOUT, &layout, true);
        let mut ebpf = loader.load(OBJECT).map_err(|error| chain(&error))?;
        let (mut hooks, mut missing) = (Vec::new(), Vec::new());
        for hook in LsmHook::ALL {
            let program = ebpf.program_mut(hook.program());
            let result = match program {
                Some(Program::LsmCgroup(program)) => program.load(hook.name(), &kernel),
                _ => return Err(format!("its object has no program `{}`", hook.program())),
            };
            match result {
                Ok(()) => hooks.push(hook),
                Err(error) if is_forbidden(&error) => {
                    return Err("the kernel refuses LSM programs (Operation not permitted)".into());
                }
                Err(error) => missing.push((hook, reason(&error))),
            }
        }
        if hooks.is_empty() {
            let (_, why) = missing.remove(0);
            return Err(format!("none of the programs loads: {why}"));
        }
        Ok(Self {
            ebpf,
            hooks,
            missing,
        })
    }

    /// Attaches a program, in place of an earlier agent's. Returns its id.
    fn put(&self, root: BorrowedFd<'_>, hook: LsmHook, before: Option<u32>) -> Result<u32, String> {
        let attach = || -> io::Result<()> {
            let before = before.map(sys::program_by_id).transpose()?;
            let before = before.as_ref().map(AsFd::as_fd);
            let program = fd(&self.ebpf, hook)?;
            sys::attach(root, program.as_fd(), AttachPoint::LsmCgroup, before)
        };
        attach().map_err(|error| error.to_string())?;
        let program = self.ebpf.program(hook.program());
        let info = program.ok_or("it is gone")?.info();
        info.map(|info| info.id()).map_err(|error| chain(&error))
    }
}

fn fd(ebpf: &Ebpf, hook: LsmHook) -> io::Result<&ProgramFd> {
    let program = ebpf
        .program(hook.program())
        .ok_or(io::ErrorKind::NotFound)?;
    program
        .fd()
        .map_err(|error| io::Error::other(chain(&error)))
}

/// The programs of ours that an agent left attached, by hook.
fn in_force(root: BorrowedFd<'_>) -> io::Result<BTreeMap<LsmHook, u32>> {
    let ids = match sys::attached(root, AttachPoint::LsmCgroup, false) {
        Ok(ids) => ids,
        // A kernel without this kind of attachment.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Vec::new(),
        Err(error) => return Err(error),
    };
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ours = loaded_programs().flatten().filter_map(|info| {
        let hook = LsmHook::ALL
            .into_iter()
            .find(|hook| hook.program().as_bytes() == info.name())?;
        ids.contains(&info.id()).then(|| (hook, info.id()))
    });
    Ok(ours.collect())
}

/// Takes all of ours out; returns how many there were.
pub(super) fn disarm(root: BorrowedFd<'_>) -> io::Result<usize> {
    let ours = in_force(root)?;
    for id in ours.values() {
        let program = sys::program_by_id(*id)?;
        sys::detach(root, program.as_fd(), AttachPoint::LsmCgroup)?;
    }
    Ok(ours.len())
}

fn is_forbidden(error: &ProgramError) -> bool {
    matches!(
        error,
        ProgramError::LoadError { io_error, verifier_log }
            if io_error.kind() == io::ErrorKind::PermissionDenied
                && verifier_log.to_string().trim().is_empty()
    )
}

/// In a line: the verifier's last word, or the loader's.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let last = log.lines().rev().find(|line| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with("processed ")
            });
            format!(
                "{io_error}: {}",
                last.unwrap_or("no word from the verifier")
            )
        }
        other => chain(other),
    }
}
