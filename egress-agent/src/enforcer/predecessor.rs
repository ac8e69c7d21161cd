//! What an earlier agent left in force: found by asking the governed root, not
//! by files, and trusted only after it was compared.

use super::error::{EnforcerError, chain};
use super::hooks::{HOOKS, HookPoint, LINK_HOOKS};
use super::object::{Layout, layouts};
use super::sys;
use aya::maps::MapData;
use aya::programs::{ProgramInfo, loaded_programs};
use egress_common::names;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The programs and maps of an earlier agent.
pub(super) struct Predecessor {
    programs: BTreeMap<&'static str, Attached>,
    maps: BTreeMap<&'static str, MapData>,
    link_programs: Vec<(&'static str, Attached)>,
}

/// A program that is attached to the governed root under one of our names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attached {
    /// Kernel id.
    pub(super) id: u32,
    /// The kernel's hash of its instructions.
    pub(super) tag: u64,
}

impl Predecessor {
    /// Looks for one. `None` if nothing of ours is attached.
    ///
    /// Refuses where the maps differ from what this agent would make: the
    /// programs in force then stay in force, untouched.
    pub(super) fn find(root: BorrowedFd<'_>, path: &Path) -> Result<Option<Self>, EnforcerError> {
        let Some(found) = Self::look(root, path)? else {
            return Ok(None);
        };
        found.compare(path)?;
        Ok(Some(found))
    }

    /// Looks for one of whatever version.
    pub(super) fn look(root: BorrowedFd<'_>, path: &Path) -> Result<Option<Self>, EnforcerError> {
        let inspect = |error: String| EnforcerError::Inspect {
            path: path.to_owned(),
            error,
        };
        let mut wanted: BTreeMap<u32, HookPoint> = BTreeMap::new();
        for hook in HOOKS {
            let ids = sys::attached(root, hook.point, false).map_err(|error| {
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    EnforcerError::NotPermitted(error)
                } else {
                    inspect(format!("query of `{}`: {error}", hook.program))
                }
            })?;
            wanted.extend(ids.into_iter().map(|id| (id, *hook)));
        }
        if wanted.is_empty() {
            return Ok(None);
        }

        let mut found = Self {
            programs: BTreeMap::new(),
            maps: BTreeMap::new(),
            link_programs: Vec::new(),
        };
        for info in loaded_programs() {
            // A program can be unloaded between the listing and the look.
            let Ok(info) = info else { continue };
            if let Some(hook) = wanted.get(&info.id())
                && info.name() == hook.program.as_bytes()
            {
                found.programs.insert(
                    hook.program,
                    Attached {
                        id: info.id(),
                        tag: info.tag(),
                    },
                );
                found.take_maps(&info).map_err(inspect)?;
            }
        }
        if found.programs.is_empty() {
            return Ok(None);
        }
        found.find_link_programs().map_err(inspect)?;
        Ok(Some(found))
    }

    /// Finds what is attached to interfaces: programs of our names that read
    /// the same settings. Which interface has one is asked of the interface.
    fn find_link_programs(&mut self) -> Result<(), String> {
        let Some(settings) = self.maps.get(names::SETTINGS) else {
            return Ok(());
        };
        let settings = settings.info().map_err(|error| chain(&error))?.id();
        for info in loaded_programs().flatten() {
            let Some((program, _)) = LINK_HOOKS
                .iter()
                .find(|(program, _)| program.as_bytes() == info.name())
            else {
                continue;
            };
            let maps = info.map_ids().map_err(|error| chain(&error))?;
            if maps.is_some_and(|maps| maps.contains(&settings)) {
                self.link_programs.push((
                    *program,
                    Attached {
                        id: info.id(),
                        tag: info.tag(),
                    },
                ));
                self.take_maps(&info)?;
            }
        }
        Ok(())
    }

    /// Programs that are, or were, attached to interfaces.
    pub(super) fn link_programs(&self) -> &[(&'static str, Attached)] {
        &self.link_programs
    }

    fn take_maps(&mut self, program: &ProgramInfo) -> Result<(), String> {
        let ids = program
            .map_ids()
            .map_err(|error| chain(&error))?
            .unwrap_or_default();
        for id in ids {
            let map = MapData::from_id(id).map_err(|error| chain(&error))?;
            let info = map.info().map_err(|error| chain(&error))?;
            if let Some(name) = names::MAPS
                .iter()
                .find(|name| name.as_bytes() == info.name())
            {
                self.maps.entry(name).or_insert(map);
            }
        }
        Ok(())
    }

    /// Reuse validates nothing by itself, so everything is compared here.
    fn compare(&self, path: &Path) -> Result<(), EnforcerError> {
        let other = |difference| EnforcerError::OtherVersion {
            path: path.to_owned(),
            difference,
        };
        for (name, expected) in layouts()? {
            // One that is missing belongs to a program that was never attached,
            // because its agent died before; it is made anew with the program.
            let Some(map) = self.maps.get(name.as_str()) else {
                continue;
            };
            let actual = Layout::of(map).map_err(other)?;
            if actual != expected {
                return Err(other(format!(
                    "map {name} is {actual:?}, this version has {expected:?}"
                )));
            }
        }
        Ok(())
    }

    /// The program in force under this name.
    pub(super) fn program(&self, name: &str) -> Option<Attached> {
        self.programs.get(name).copied()
    }

    /// A map in force; `None` if the program that would use it was never attached.
    pub(super) fn map(&self, name: &'static str) -> Option<&MapData> {
        self.maps.get(name)
    }
}

/// The names of programs by id, for messages: `sshd_filter (id 17)`.
pub(super) fn describe(ids: &[u32]) -> String {
    let mut names: BTreeMap<u32, String> = ids.iter().map(|id| (*id, format!("id {id}"))).collect();
    for info in loaded_programs().flatten() {
        if let Some(text) = names.get_mut(&info.id()) {
            *text = format!(
                "{} (id {})",
                String::from_utf8_lossy(info.name()),
                info.id()
            );
        }
    }
    names.into_values().collect::<Vec<_>>().join(", ")
}
