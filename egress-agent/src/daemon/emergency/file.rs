//! What must outlive the agent and the machine: the file that says that
//! everything is stopped, by whom, since when, and why.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const FILE: &str = "emergency.json";

/// The incident of a file that cannot be read, so that it can be ended by name.
pub const UNREADABLE: &str = "unreadable";

/// Why everything is stopped.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
pub struct Incident {
    /// By which it is ended.
    pub incident: String,
    /// When the button was pressed, UTC; unknown of a file that cannot be read.
    pub since: Option<Timestamp>,
    /// What who pressed it wrote.
    pub reason: String,
    /// Who pressed it: a user id.
    pub user: Option<u32>,
}

impl Incident {
    /// A new one.
    pub fn new(now: Timestamp, reason: &str, user: Option<u32>) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        Self {
            // The tail is the random part.
            incident: format!("inc-{}", &id[id.len() - 8..]),
            since: Some(now),
            reason: reason.to_owned(),
            user,
        }
    }
}

/// The file, present or not.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The one in a state directory.
    pub fn within(state_directory: &Path) -> Self {
        Self {
            path: state_directory.join(FILE),
        }
    }

    /// The incident in force; `None` only if there certainly is no file. One that
    /// cannot be read or understood is an incident of its own: nobody knows that
    /// it does not say "stopped".
    pub fn read(&self) -> Option<Incident> {
        let unreadable = |error: &dyn std::fmt::Display| Incident {
            incident: UNREADABLE.into(),
            since: None,
            reason: format!("{} cannot be read: {error}", self.path.display()),
            user: None,
        };
        match std::fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(unreadable(&error)),
            Ok(bytes) => Some(match serde_json::from_slice(&bytes) {
                Ok(incident) => incident,
                Err(error) => unreadable(&error),
            }),
        }
    }

    /// Writes an incident so that it survives a loss of power. If one is there
    /// already, that one stays and is returned.
    pub fn begin(&self, incident: Incident) -> io::Result<Incident> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        // Two may press at the same time, in two processes.
        let temporary = self.beside(&format!("new-{}", incident.incident));
        let mut text = serde_json::to_vec_pretty(&incident)?;
        text.push(b'\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let linked = file
            .write_all(&text)
            .and_then(|()| file.sync_all())
            // Unlike a rename this does not replace what somebody wrote first.
            .and_then(|()| std::fs::hard_link(&temporary, &self.path));
        let _ = std::fs::remove_file(&temporary);
        match linked {
            Ok(()) => {
                self.sync_directory()?;
                Ok(incident)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Ok(self.read().unwrap_or(incident))
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the incident in force. What cannot be read is set aside, not lost.
    pub fn end(&self) -> io::Result<()> {
        let is_unreadable = self
            .read()
            .is_some_and(|incident| incident.incident == UNREADABLE);
        if is_unreadable {
            let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
            std::fs::rename(&self.path, self.beside(&format!("damaged-{now}")))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        self.sync_directory()
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.path.with_file_name(format!("{FILE}.{ending}"))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_incident_stays_until_it_is_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::within(&directory.path().join("state"));
        assert_eq!(file.read(), None);
        let first = Incident::new(Timestamp::UNIX_EPOCH, "credentials leaked", Some(0));
        assert_eq!(file.begin(first.clone()).expect("written"), first);
        let second = Incident::new(Timestamp::UNIX_EPOCH, "again", Some(7));
        assert_ne!(first.incident, second.incident);
        assert_eq!(file.begin(second).expect("one is there"), first);
        assert_eq!(
            StateFile::within(&directory.path().join("state")).read(),
            Some(first)
        );
        file.end().expect("ended");
        assert_eq!(file.read(), None);
        let left = std::fs::read_dir(directory.path().join("state")).expect("a directory");
        assert_eq!(left.count(), 0, "nothing is left behind");
    }

    #[test]
    fn what_cannot_be_read_means_stopped_and_is_set_aside_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        for content in [&b""[..], b"{", b"{\"incident\": 7}", &[0xff; 4096]] {
            std::fs::write(&path, content).expect("written");
            let file = StateFile::within(directory.path());
            let found = file.read().expect("an incident");
            assert_eq!(found.incident, UNREADABLE);
            assert!(found.reason.contains(FILE), "{}", found.reason);
            file.end().expect("set aside");
            assert_eq!(file.read(), None);
            let kept = std::fs::read_dir(directory.path()).expect("a directory");
            let kept: Vec<_> = kept.flatten().map(|entry| entry.path()).collect();
            assert_eq!(kept.len(), 1);
            assert_eq!(std::fs::read(&kept[0]).expect("kept"), content);
            std::fs::remove_file(&kept[0]).expect("removed");
        }
        // Neither is a directory in its place the absence of a file.
        std::fs::create_dir(&path).expect("a directory");
        let found = StateFile::within(directory.path()).read();
        assert_eq!(
            found.map(|found| found.incident).as_deref(),
            Some(UNREADABLE)
        );
    }
}
