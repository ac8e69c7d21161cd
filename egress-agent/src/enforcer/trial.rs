//! Questions about this kernel and a place in it, which change nothing.

use super::attach;
use super::error::EnforcerError;
use super::hooks::HOOKS;
use super::object::Loaded;
use super::predecessor::describe;
use super::sys;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Loads every program and map as a start would, attaches nothing, and lets go.
/// What this kernel lacks shows here and nowhere else.
pub fn try_load() -> Result<usize, EnforcerError> {
    // Any level: it is a constant in the programs.
    Loaded::load(2, None).map(|_| HOOKS.len())
}

/// Whether something is in force at a governed root: without the gate nothing is.
pub fn is_armed(path: &Path) -> Result<bool, EnforcerError> {
    attach::has_gate(path)
}

/// Programs of somebody else that run where ours do, above the governed root or
/// at it, in words.
pub fn strangers(path: &Path) -> Result<Option<String>, EnforcerError> {
    let directory = File::open(path).map_err(|error| EnforcerError::Root {
        path: path.to_owned(),
        error,
    })?;
    let mut ids = BTreeSet::new();
    for hook in HOOKS {
        let attached = sys::attached(directory.as_fd(), hook.point, true).map_err(|error| {
            EnforcerError::Inspect {
                path: path.to_owned(),
                error: format!("query of `{}`: {error}", hook.program),
            }
        })?;
        ids.extend(attached);
    }
    for info in aya::programs::loaded_programs().flatten() {
        if HOOKS
            .iter()
            .any(|hook| info.name() == hook.program.as_bytes())
        {
            ids.remove(&info.id());
        }
    }
    let ids: Vec<u32> = ids.into_iter().collect();
    Ok((!ids.is_empty()).then(|| describe(&ids)))
}
