//! Interfaces: putting the programs at them, and what stands about them in the maps.
//!
//! Attached without a link object, as at the cgroup: through `tcx` where the
//! kernel has it (6.6), else as filters of a `clsact` queueing discipline. Both
//! stay with the interface when the agent ends, and go with the interface.

use super::Enforcer;
use super::attach::Change;
use super::clsact;
use super::error::EnforcerError;
use super::hooks::LINK_HOOKS;
use super::object::Loaded;
use super::predecessor::Predecessor;
use super::sys::{self, Side};
use egress_common::{Connection, ConnectionKey, Link, LinkUse};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How programs are attached to interfaces on this kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkAttachment {
    /// Linux 6.6 and newer.
    Tcx,
    /// A queueing discipline with filters.
    Clsact,
}

/// One of the two programs.
struct LinkProgram {
    name: &'static str,
    side: Side,
    /// Ids under which the current version is attached: this agent's own, and
    /// those of predecessors with the same instructions.
    current: Vec<u32>,
    /// Ids of earlier versions, to be replaced.
    earlier: Vec<u32>,
}

/// The programs for interfaces, and how they are attached.
pub(super) struct LinkPrograms {
    programs: Vec<LinkProgram>,
    how: LinkAttachment,
    /// Why there are none, if the kernel refuses them.
    refused: Option<String>,
    /// Held while the count of what was swept is read and written.
    counting: Mutex<()>,
}

impl LinkPrograms {
    /// Takes the loaded programs, and those of a predecessor that may be in force.
    pub(super) fn take(
        loaded: &Loaded,
        predecessor: Option<&Predecessor>,
    ) -> Result<Self, EnforcerError> {
        let mut programs = Vec::with_capacity(LINK_HOOKS.len());
        let hooks = if loaded.no_links.is_some() {
            &[][..]
        } else {
            &LINK_HOOKS[..]
        };
        for &(name, side) in hooks {
            let info = loaded
                .program(name)?
                .info()
                .map_err(|error| EnforcerError::Object(error.to_string()))?;
            let mut program = LinkProgram {
                name,
                side,
                current: vec![info.id()],
                earlier: Vec::new(),
            };
            let old = predecessor.map_or(&[][..], Predecessor::link_programs);
            for (_, attached) in old.iter().filter(|(other, _)| *other == name) {
                if attached.tag == info.tag() {
                    program.current.push(attached.id);
                } else {
                    program.earlier.push(attached.id);
                }
            }
            programs.push(program);
        }
        Ok(Self {
            programs,
            how: probe(),
            refused: loaded.no_links.clone(),
            counting: Mutex::new(()),
        })
    }
}

impl LinkPrograms {
    fn counting(&self) -> MutexGuard<'_, ()> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The programs that this agent loaded, with their ids.
    pub(super) fn loaded(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let first = |program: &LinkProgram| Some((program.name, *program.current.first()?));
        self.programs.iter().filter_map(first)
    }
}

/// Takes the programs of one agent off every interface of this network
/// namespace; for an off switch without an agent.
pub(super) fn disarm(ids: &[u32]) -> io::Result<usize> {
    let how = probe();
    let mut count = 0;
    for interface in interfaces()? {
        for (_, side) in LINK_HOOKS {
            for id in how.attached(interface, side).unwrap_or_default() {
                if !ids.contains(&id) {
                    continue;
                }
                match how {
                    LinkAttachment::Clsact => clsact::detach(interface, side)?,
                    LinkAttachment::Tcx => {
                        let program = sys::program_by_id(id)?;
                        sys::detach_from_link(interface, program.as_fd(), side)?;
                    }
                }
                count += 1;
            }
        }
    }
    Ok(count)
}

/// The interfaces of this thread's network namespace. `/sys/class/net` would show
/// those of the namespace in which it was mounted.
fn interfaces() -> io::Result<Vec<u32>> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    // Two lines of headings, then one for each interface: `  NAME: …`.
    let names = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'));
    // One that goes meanwhile takes its programs along.
    let index = |(name, _): (&str, &str)| netdevice::name_to_index(&any, name.trim()).ok();
    Ok(names.filter_map(index).collect())
}

/// Asks the loopback device, which every network namespace has.
fn probe() -> LinkAttachment {
    const LOOPBACK: u32 = 1;
    match sys::attached_to_link(LOOPBACK, Side::Ingress) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => LinkAttachment::Clsact,
        Ok(_) | Err(_) => LinkAttachment::Tcx,
    }
}

impl LinkAttachment {
    fn attached(self, interface: u32, side: Side) -> io::Result<Vec<u32>> {
        match self {
            Self::Tcx => sys::attached_to_link(interface, side),
            Self::Clsact => clsact::attached(interface, side),
        }
    }
}

impl Enforcer {
    /// How programs are attached to interfaces here.
    pub fn link_attachment(&self) -> LinkAttachment {
        self.links.how
    }

    /// Puts both programs at an interface of this network namespace, or leaves
    /// them there. Until the interface stands in the maps they let nothing pass.
    pub fn attach_link(&self, interface: u32) -> Result<Change, EnforcerError> {
        if let Some(reason) = &self.links.refused {
            return Err(EnforcerError::Object(format!(
                "no interface can be a sandbox on this kernel: {reason}"
            )));
        }
        let mut result = Change::Kept;
        for program in &self.links.programs {
            let error = |error| EnforcerError::Link {
                what: "attach",
                interface,
                program: program.name,
                error,
            };
            let ids = self
                .links
                .how
                .attached(interface, program.side)
                .map_err(error)?;
            // Whatever stands before it could let a packet pass that it refuses.
            if ids.first().is_some_and(|id| program.current.contains(id)) {
                continue;
            }
            let loaded = self.loaded.program(program.name)?;
            let fd = loaded
                .fd()
                .map_err(|e| error(io::Error::other(e.to_string())))?;
            let of_ours = |id: &&u32| program.current.contains(id) || program.earlier.contains(id);
            let old = ids.iter().find(of_ours).copied();
            match self.links.how {
                LinkAttachment::Clsact => {
                    clsact::attach(interface, fd.as_fd(), program.side, program.name)
                        .map_err(error)?;
                }
                LinkAttachment::Tcx => match old {
                    // In its place only if that is the first one.
                    Some(id) if ids.first() == Some(&id) => {
                        let old = sys::program_by_id(id).map_err(error)?;
                        let instead = Some(old.as_fd());
                        sys::attach_to_link(interface, fd.as_fd(), program.side, instead)
                            .map_err(error)?;
                    }
                    Some(id) => {
                        let old = sys::program_by_id(id).map_err(error)?;
                        sys::detach_from_link(interface, old.as_fd(), program.side)
                            .map_err(error)?;
                        sys::attach_to_link(interface, fd.as_fd(), program.side, None)
                            .map_err(error)?;
                    }
                    None => sys::attach_to_link(interface, fd.as_fd(), program.side, None)
                        .map_err(error)?,
                },
            }
            result = match (result, old) {
                (Change::Attached, _) | (_, None) => Change::Attached,
                (Change::Kept | Change::Replaced, Some(_)) => Change::Replaced,
            };
        }
        Ok(result)
    }

    /// Takes the programs off an interface. One that is gone is no error.
    pub fn detach_link(&self, interface: u32) -> Result<(), EnforcerError> {
        for program in self.links.programs.iter().rev() {
            let error = |error| EnforcerError::Link {
                what: "detach",
                interface,
                program: program.name,
                error,
            };
            let ids = match self.links.how.attached(interface, program.side) {
                Ok(ids) => ids,
                Err(e) if is_gone(&e) => return Ok(()),
                Err(e) => return Err(error(e)),
            };
            let of_ours = |id: &&u32| program.current.contains(id) || program.earlier.contains(id);
            for id in ids.iter().filter(of_ours) {
                match self.links.how {
                    LinkAttachment::Clsact => {
                        clsact::detach(interface, program.side).map_err(error)?;
                    }
                    LinkAttachment::Tcx => {
                        let old = sys::program_by_id(*id).map_err(error)?;
                        sys::detach_from_link(interface, old.as_fd(), program.side)
                            .map_err(error)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The programs that are missing at an interface, or are not the first
    /// there; `None` if the interface is gone.
    pub fn inspect_link(&self, interface: u32) -> Result<Option<Vec<&'static str>>, EnforcerError> {
        let mut missing = Vec::new();
        for program in &self.links.programs {
            match self.links.how.attached(interface, program.side) {
                Ok(ids) if ids.first().is_some_and(|id| program.current.contains(id)) => {}
                Ok(_) => missing.push(program.name),
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => {
                    return Err(EnforcerError::Link {
                        what: "look for",
                        interface,
                        program: program.name,
                        error,
                    });
                }
            }
        }
        Ok(Some(missing))
    }

    /// Writes down what is behind an interface. The count of what was swept
    /// goes on where it stood.
    pub fn put_link(&self, interface: u32, link: &Link) -> Result<(), EnforcerError> {
        let _counting = self.links.counting();
        let swept = self.maps.links.get(&interface)?.map_or(0, |old| old.swept);
        if self.maps.link_use.get(&interface)?.is_none() {
            self.maps.link_use.put(&interface, &LinkUse::default())?;
        }
        self.maps.links.put(&interface, &Link { swept, ..*link })
    }

    /// What stands in the maps about interfaces.
    pub fn links(&self) -> Result<Vec<(u32, Link)>, EnforcerError> {
        self.maps.links.entries()
    }

    /// Forgets an interface: from then on nothing crosses it while the programs
    /// are there. Its connections go with it.
    pub fn remove_link(&self, interface: u32) -> Result<(), EnforcerError> {
        self.maps.links.remove(&interface)?;
        self.maps.link_use.remove(&interface)?;
        for (key, _) in self.maps.connections.entries()? {
            if key.interface == interface {
                self.maps.connections.remove(&key)?;
            }
        }
        Ok(())
    }

    /// The connections of all interfaces.
    pub fn connections(&self) -> Result<Vec<(ConnectionKey, Connection)>, EnforcerError> {
        self.maps.connections.entries()
    }

    /// Takes connections out of the table, and counts that for their interfaces.
    pub fn remove_connections(&self, keys: &[ConnectionKey]) -> Result<(), EnforcerError> {
        let mut swept = std::collections::BTreeMap::<u32, u64>::new();
        for key in keys {
            self.maps.connections.remove(key)?;
            *swept.entry(key.interface).or_default() += 1;
        }
        let _counting = self.links.counting();
        for (interface, count) in swept {
            if let Some(mut link) = self.maps.links.get(&interface)? {
                link.swept = link.swept.wrapping_add(count);
                self.maps.links.put(&interface, &link)?;
            }
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}
