//! The emergency block: one map write stops everything, one file keeps it
//! stopped over restarts of the agent and of the machine.
//!
//! Pressing writes the kernel first and then the file, releasing removes the file
//! first and then writes the kernel: whatever dies in between leaves it stopped.
//! The button works with and without an agent; both ways are in here.

mod file;
mod served;

pub use file::{Incident, StateFile};
pub use served::Button;

use crate::enforcer::{EnforcerError, SocketTable};
use egress_common::CgroupId;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Why the button did not do all that it should.
#[derive(Debug, thiserror::Error)]
pub enum EmergencyError {
    /// The kernel could not be told.
    #[error("NOT STOPPED: {0}; the incident {1} stops everything when the agent starts next")]
    NotStopped(EnforcerError, String),
    /// It is stopped, and a restart of the machine would forget it.
    #[error("everything is stopped, but the state directory cannot keep that over a restart: {0}")]
    NotKept(std::io::Error),
    /// Nothing was done at all.
    #[error("NOT STOPPED: {kernel}; and it cannot be written down: {file}")]
    Neither {
        /// What the kernel said.
        kernel: EnforcerError,
        /// What the file system said.
        file: std::io::Error,
    },
    /// Another incident is in force, or none.
    #[error("{0}")]
    NoSuchIncident(String),
    /// The file could not be removed, so it stays stopped.
    #[error("everything stays stopped: the incident's file cannot be removed: {0}")]
    NotEnded(std::io::Error),
    /// The file is gone and the kernel still stops.
    #[error("everything stays stopped until the kernel is told: {0}")]
    NotReleased(EnforcerError),
}

/// Stops everything. `stop` tells the kernel, and comes before everything that
/// takes time. Returns the incident in force, which is an earlier one if
/// everything was stopped already, and what `stop` said.
pub fn press<T>(
    file: &StateFile,
    incident: Incident,
    stop: impl FnOnce() -> Result<T, EnforcerError>,
) -> Result<(Incident, T), EmergencyError> {
    match (stop(), file.begin(incident)) {
        (Ok(told), Ok(incident)) => Ok((incident, told)),
        (Ok(_), Err(error)) => Err(EmergencyError::NotKept(error)),
        (Err(error), Ok(incident)) => Err(EmergencyError::NotStopped(error, incident.incident)),
        (Err(kernel), Err(file)) => Err(EmergencyError::Neither { kernel, file }),
    }
}

/// Ends the incident `id`. `release` tells the kernel.
pub fn release<T>(
    file: &StateFile,
    id: &str,
    release: impl FnOnce() -> Result<T, EnforcerError>,
) -> Result<(Incident, T), EmergencyError> {
    let Some(incident) = file.read() else {
        return Err(EmergencyError::NoSuchIncident(
            "nothing is stopped; there is no incident to end".into(),
        ));
    };
    if incident.incident != id {
        return Err(EmergencyError::NoSuchIncident(format!(
            "there is no incident `{id}`; in force is `{}`: {}",
            incident.incident, incident.reason
        )));
    }
    file.end().map_err(EmergencyError::NotEnded)?;
    let told = release().map_err(EmergencyError::NotReleased)?;
    Ok((incident, told))
}

/// Ends every connection of whatever is below a governed root, so that nothing
/// that was queued on them is sent after the block. One that cannot be ended
/// does not keep the others; its packets are dropped all the same.
pub fn end_connections_below(root: &Path) -> Result<usize, EnforcerError> {
    let below = cgroups_below(root);
    let table = SocketTable::open()?;
    let mut ended = 0;
    let mut failed = None;
    for connection in table.live()? {
        if below.contains(&connection.cgroup) {
            match table.end(&connection) {
                Ok(()) => ended += 1,
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(ended), Err)
}

/// The ids of all cgroups below a directory. One that vanishes meanwhile has no
/// sockets.
fn cgroups_below(root: &Path) -> BTreeSet<CgroupId> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(metadata) = entry.metadata()
                && metadata.is_dir()
            {
                found.insert(CgroupId(metadata.ino()));
                open.push(entry.path());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn refused() -> Result<(), EnforcerError> {
        Err(EnforcerError::Object("refused by the test".into()))
    }

    fn incident() -> Incident {
        Incident::new(Timestamp::UNIX_EPOCH, "a test", Some(0))
    }

    #[test]
    fn the_kernel_is_told_before_the_file_is_written_and_after_it_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::within(directory.path());
        let pressed = press(&file, incident(), || {
            assert_eq!(file.read(), None, "the file came first");
            Ok(())
        });
        let (incident, ()) = pressed.expect("pressed");
        let released = release(&file, &incident.incident, || {
            assert_eq!(file.read(), None, "the kernel came first");
            Ok(())
        });
        assert_eq!(released.expect("released").0, incident);
    }

    #[test]
    fn what_half_works_stays_stopped_and_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::within(directory.path());
        let error = press(&file, incident(), refused).expect_err("the kernel refused");
        assert!(matches!(error, EmergencyError::NotStopped(..)), "{error}");
        let kept = file.read().expect("it counts from the next start");
        let error = release(&file, "inc-other", || Ok(())).expect_err("another one");
        assert!(error.to_string().contains(&kept.incident), "{error}");
        let error = release(&file, &kept.incident, refused).expect_err("the kernel refused");
        assert!(matches!(error, EmergencyError::NotReleased(_)), "{error}");

        let nowhere = StateFile::within(Path::new("/proc/nowhere"));
        let error = press(&nowhere, incident(), || Ok(())).expect_err("cannot be written");
        assert!(matches!(error, EmergencyError::NotKept(_)), "{error}");
        let error = release(&nowhere, "any", || Ok(())).expect_err("none");
        assert!(
            matches!(error, EmergencyError::NoSuchIncident(_)),
            "{error}"
        );
    }
}
