//! The emergency block from outside an agent: found through the programs that are
//! in force, so that it works when the agent is dead, hangs, or is another version.

use super::clock::boot_now;
use super::error::{EnforcerError, MapProblem, chain};
use super::hooks::HOOKS;
use super::sys;
use aya::maps::{Array, Map, MapData};
use aya::programs::loaded_programs;
use egress_common::{Emergency, names};
use std::os::fd::AsFd;
use std::path::Path;

/// Stopped from now on.
pub(super) fn since_now() -> Emergency {
    Emergency(boot_now().max(1))
}

/// Stops everything below a governed root, or lets policy decide again. Returns
/// whether anything is in force there that could obey.
pub fn set_emergency_at(path: &Path, stopped: bool) -> Result<bool, EnforcerError> {
    let directory = std::fs::File::open(path).map_err(|error| EnforcerError::Root {
        path: path.to_owned(),
        error,
    })?;
    let inspect = |error: String| EnforcerError::Inspect {
        path: path.to_owned(),
        error,
    };
    let failed = |error: &dyn std::error::Error| EnforcerError::Map {
        map: names::EMERGENCY,
        problem: MapProblem::Other(chain(error)),
    };
    let mut attached = Vec::new();
    for hook in HOOKS {
        let ids = sys::attached(directory.as_fd(), hook.point, false)
            .map_err(|error| inspect(error.to_string()))?;
        attached.extend(ids);
    }
    let value = if stopped {
        since_now()
    } else {
        Emergency::NONE
    };
    // All programs of one agent share one map; while a start replaces another's
    // programs there is still one. Every one that is found is written.
    let mut written = std::collections::BTreeSet::new();
    for program in loaded_programs().flatten() {
        if !attached.contains(&program.id()) {
            continue;
        }
        for id in program
            .map_ids()
            .map_err(|e| failed(&e))?
            .unwrap_or_default()
        {
            // A map that was unloaded since judges nothing any more.
            let Ok(map) = MapData::from_id(id) else {
                continue;
            };
            let info = map.info().map_err(|e| failed(&e))?;
            if info.name() != names::EMERGENCY.as_bytes() || !written.insert(id) {
                continue;
            }
            let mut array: Array<_, Emergency> =
                Array::try_from(Map::Array(map)).map_err(|e| failed(&e))?;
            array.set(0, value, 0).map_err(|e| failed(&e))?;
        }
    }
    Ok(!written.is_empty())
}
