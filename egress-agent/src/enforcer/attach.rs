//! Putting programs in force, and taking them out.

use super::error::EnforcerError;
use super::hooks::{HOOKS, HookPoint};
use super::lsm;
use super::object::Loaded;
use super::predecessor::{Predecessor, describe};
use super::sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// What was done to a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The same program was there already.
    Kept,
    /// Another one was there and was replaced without a gap.
    Replaced,
    /// Nothing was there.
    Attached,
}

/// Attaches every program. What is there and equal stays; what is there and
/// differs is replaced atomically; the gate comes first.
///
/// On failure, what this call attached anew is taken out again, so that a start
/// that fails leaves the machine as it was.
pub(super) fn put_in_force(
    root: BorrowedFd<'_>,
    path: &Path,
    loaded: &Loaded,
    predecessor: Option<&Predecessor>,
) -> Result<Vec<(HookPoint, Change)>, EnforcerError> {
    let mut done: Vec<(HookPoint, Change)> = Vec::with_capacity(HOOKS.len());
    for hook in HOOKS {
        match put_one(root, path, loaded, predecessor, hook) {
            Ok(change) => done.push((*hook, change)),
            Err(error) => {
                for (hook, change) in done {
                    if change == Change::Attached {
                        // The error that stopped the start is the one to tell.
                        let _ = take_out(root, loaded, &hook);
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(done)
}

fn take_out(root: BorrowedFd<'_>, loaded: &Loaded, hook: &HookPoint) -> Result<(), EnforcerError> {
    let program = loaded.program(hook.program)?;
    if let Ok(fd) = program.fd() {
        let _ = sys::detach(root, fd.as_fd(), hook.point);
    }
    Ok(())
}

fn put_one(
    root: BorrowedFd<'_>,
    path: &Path,
    loaded: &Loaded,
    predecessor: Option<&Predecessor>,
    hook: &HookPoint,
) -> Result<Change, EnforcerError> {
    let attach_error = |error| EnforcerError::Attach {
        path: path.to_owned(),
        program: hook.program,
        error,
    };
    let program = loaded.program(hook.program)?;
    let ours = program
        .fd()
        .map_err(|error| attach_error(io::Error::other(error.to_string())))?;
    let own_tag = program
        .info()
        .map_err(|error| attach_error(io::Error::other(error.to_string())))?
        .tag();

    let Some(old) = predecessor.and_then(|predecessor| predecessor.program(hook.program)) else {
        return match sys::attach(root, ours.as_fd(), hook.point, None) {
            Ok(()) => Ok(Change::Attached),
            // The kernel says EPERM both for lack of rights, which loading has
            // ruled out, and for an attachment that tolerates no other.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let holders = sys::attached(root, hook.point, true).unwrap_or_default();
                Err(EnforcerError::Exclusive {
                    path: path.to_owned(),
                    program: hook.program,
                    holders: describe(&holders),
                })
            }
            Err(error) => Err(attach_error(error)),
        };
    };
    if old.tag == own_tag {
        return Ok(Change::Kept);
    }
    let old = sys::program_by_id(old.id).map_err(attach_error)?;
    sys::attach(root, ours.as_fd(), hook.point, Some(old.as_fd())).map_err(attach_error)?;
    Ok(Change::Replaced)
}

/// Attaches a program that somebody took out; returns its id.
pub(super) fn put_back(
    root: BorrowedFd<'_>,
    path: &Path,
    loaded: &Loaded,
    hook: &HookPoint,
) -> Result<u32, EnforcerError> {
    put_one(root, path, loaded, None, hook)?;
    let info = loaded.program(hook.program)?.info();
    info.map(|info| info.id())
        .map_err(|error| EnforcerError::Object(error.to_string()))
}

/// Takes everything of ours out: the off switch. Returns how many programs were
/// detached.
pub fn disarm(root: BorrowedFd<'_>, path: &Path) -> Result<usize, EnforcerError> {
    // The second wall first: it opens nothing while the others stand.
    let mut count = lsm::disarm(root).map_err(|error| EnforcerError::Inspect {
        path: path.to_owned(),
        error: format!("LSM programs: {error}"),
    })?;
    let links: Vec<u32> = Predecessor::look(root, path)?
        .map(|found| found.link_programs().iter().map(|(_, a)| a.id).collect())
        .unwrap_or_default();
    count += super::links::disarm(&links).map_err(|error| EnforcerError::Inspect {
        path: path.to_owned(),
        error: format!("interfaces: {error}"),
    })?;
    // The gate last: until then nothing opens that the gate does not allow.
    for hook in HOOKS.iter().rev() {
        let inspect = |error: io::Error| EnforcerError::Inspect {
            path: path.to_owned(),
            error: format!("`{}`: {error}", hook.program),
        };
        let ids = sys::attached(root, hook.point, false).map_err(inspect)?;
        for info in aya::programs::loaded_programs().flatten() {
            if ids.contains(&info.id()) && info.name() == hook.program.as_bytes() {
                let program = sys::program_by_id(info.id()).map_err(inspect)?;
                sys::detach(root, program.as_fd(), hook.point).map_err(inspect)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// What is wrong with the attachments right now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// One of ours is gone.
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// A program of somebody else runs behind one of ours that can be overruled
    /// (`bpf_set_retval`, Linux 5.18). The gate cannot be.
    Foreign {
        /// Our program there.
        program: &'static str,
        /// Who else is there.
        others: String,
    },
}

/// Looks whether everything is still in force. `own` are the ids of the
/// programs that were attached or kept.
pub(super) fn inspect(root: BorrowedFd<'_>, own: &[(HookPoint, u32)]) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (hook, id) in own {
        let ids = sys::attached(root, hook.point, true)?;
        match ids.iter().position(|other| other == id) {
            None => findings.push(Finding::Missing {
                program: hook.program,
            }),
            Some(place) if place + 1 < ids.len() => findings.push(Finding::Foreign {
                program: hook.program,
                others: describe(&ids[place + 1..]),
            }),
            Some(_) => {}
        }
    }
    Ok(findings)
}

/// Whether the gate is in force at a governed root, ours or another version's:
/// without it nothing is.
pub(super) fn has_gate(path: &Path) -> Result<bool, EnforcerError> {
    let directory = std::fs::File::open(path).map_err(|error| EnforcerError::Root {
        path: path.to_owned(),
        error,
    })?;
    let gate = &HOOKS[0];
    let ids = match sys::attached(directory.as_fd(), gate.point, false) {
        Ok(ids) => ids,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(EnforcerError::NotPermitted(error));
        }
        Err(error) => {
            return Err(EnforcerError::Inspect {
                path: path.to_owned(),
                error: format!("query of `{}`: {error}", gate.program),
            });
        }
    };
    Ok(aya::programs::loaded_programs()
        .flatten()
        .any(|info| ids.contains(&info.id()) && info.name() == gate.program.as_bytes()))
}

/// [`disarm`] for a governed root that is not open yet.
pub fn disarm_at(path: &Path) -> Result<usize, EnforcerError> {
    let directory = std::fs::File::open(path).map_err(|error| EnforcerError::Root {
        path: path.to_owned(),
        error,
    })?;
    disarm(directory.as_fd(), path)
}
