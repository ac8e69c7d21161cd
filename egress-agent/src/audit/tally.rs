//! Counts decisions where a killed process cannot take the count along.
//!
//! The store knows how many decisions its records stand for; this knows how many there were.
//! After a kill the difference is exactly what was in the queue or being folded.
//!
//! The count is a word in memory that outlives the process: whoever asks for a name waits
//! for it, and must not wait for a disk. It does not outlive the machine, so that its file
//! names the boot that it is of. How far it was is written beside the store from time to time.

use crate::mapped::{Access, Words};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The digits of the count.
const DIGITS: usize = 20;
/// Bytes of the count in memory. What it is of follows.
const WORD: usize = size_of::<u64>();

/// What an earlier process left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// No count of this chain.
    Nothing,
    /// Exactly so many decisions.
    Exactly(u64),
    /// The machine has started anew since; at least so many.
    AtLeast(u64),
}

/// Where counts are kept.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// While the machine runs.
    now: PathBuf,
    /// Beside the store.
    lasting: PathBuf,
}

/// The count of one chain.
#[derive(Debug, Default)]
pub(super) struct Tally {
    now: Mutex<Now>,
    /// Absent if the file could not be made. Nobody who counts waits for this lock.
    lasting: Mutex<Option<Lasting>>,
}

#[derive(Debug, Default)]
struct Now {
    total: u64,
    /// Absent if it could not be made.
    word: Option<Words>,
}

/// What stands beside the store.
#[derive(Debug)]
struct Lasting {
    file: File,
    /// Where the digits are.
    place: u64,
    /// What they say.
    total: u64,
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

impl Places {
    /// Of this store; `now` is in the runtime directory, if the agent has one.
    pub(super) fn of(store: &Path, now: Option<&Path>) -> Self {
        Self {
            now: now.map_or_else(|| store.with_extension("decisions"), Path::to_owned),
            lasting: store.with_extension("tally"),
        }
    }

    /// Reads the count of `chain`.
    pub(super) fn left(&self, chain: &str) -> Left {
        if let Some(total) = self.of_now(chain) {
            return Left::Exactly(total);
        }
        let text = std::fs::read_to_string(&self.lasting).unwrap_or_default();
        let Some((of_chain, total)) = text.trim().split_once(' ') else {
            return Left::Nothing;
        };
        match total.parse() {
            Ok(total) if of_chain == chain => Left::AtLeast(total),
            Ok(_) | Err(_) => Left::Nothing,
        }
    }

    fn of_now(&self, chain: &str) -> Option<u64> {
        let bytes = std::fs::read(&self.now).ok()?;
        let (word, of) = bytes.split_first_chunk::<WORD>()?;
        (of == what(chain).as_bytes()).then(|| u64::from_ne_bytes(*word))
    }

    /// Begins the count in memory. What was there is not believed any more, also on an error.
    fn begin(&self, chain: &str, total: u64) -> io::Result<Words> {
        match std::fs::remove_file(&self.now) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let temporary = self.now.with_extension("new");
        let file = private(&temporary)?;
        let bytes = [&total.to_ne_bytes(), what(chain).as_bytes()].concat();
        file.write_all_at(&bytes, 0)?;
        let word = Words::map(&file, 1, Access::ReadAndWrite)?;
        std::fs::rename(&temporary, &self.now)?;
        Ok(word)
    }
}

/// What a count in memory is of.
fn what(chain: &str) -> String {
    format!("{} {chain}\n", boot())
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

impl Tally {
    /// Begins to count `chain` at `total`.
    pub fn begin(&self, places: &Places, chain: &str, total: u64) {
        let word = places.begin(chain, total);
        let word = word.inspect_err(|error| {
            tracing::warn!(%error, path = %places.now.display(), "after a kill, what was not yet recorded could not be counted");
        });
        let word = word.ok();
        *self.now() = Now { total, word };
        let lasting = Lasting::begin(places, chain, total).inspect_err(|error| {
            tracing::warn!(%error, "after a crash of the machine, what was not yet recorded could not be counted");
        });
        *self.lasting() = lasting.ok();
    }

    /// How many decisions there were.
    pub fn total(&self) -> u64 {
        self.now().total
    }

    /// Adds decisions, before they are handed over.
    pub fn add(&self, decisions: u64) {
        let mut now = self.now();
        now.total = now.total.saturating_add(decisions);
        if let Some(word) = now.word.as_ref().and_then(|words| words.writable(0)) {
            word.store(now.total, Ordering::Release);
        }
    }

    /// Writes beside the store how far it is.
    pub fn last(&self) {
        let mut lasting = self.lasting();
        let written = lasting.as_mut().map(|lasting| lasting.say(self.total()));
        if let Some(Err(error)) = written {
            tracing::warn!(%error, "the count of decisions is not kept beside the store any more");
            *lasting = None;
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lasting(&self) -> MutexGuard<'_, Option<Lasting>> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lasting {
    fn begin(places: &Places, chain: &str, total: u64) -> io::Result<Self> {
        let (file, header) = (private(&places.lasting)?, format!("{chain} "));
        file.write_all_at(format!("{header}{total:0DIGITS$}\n").as_bytes(), 0)?;
        Ok(Self {
            file,
            place: header.len() as u64,
            total,
        })
    }

    fn say(&mut self, total: u64) -> io::Result<()> {
        if self.total != total {
            let digits = format!("{total:0DIGITS$}");
            self.file.write_all_at(digits.as_bytes(), self.place)?;
            self.total = total;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_outlives_whoever_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = directory.path().join("decisions");
        let places = Places::of(&directory.path().join("audit.db"), Some(&now));
        assert_eq!(places.left("c"), Left::Nothing);
        let tally = Tally::default();
        tally.begin(&places, "c", 7);
        tally.add(5);
        tally.last();
        tally.add(1_000_000);
        // As a kill would leave it: nothing is closed.
        std::mem::forget(tally);
        assert_eq!(places.left("c"), Left::Exactly(1_000_012));
        assert_eq!(places.left("other"), Left::Nothing);
        // The machine starts anew: another boot, or nothing left in memory.
        let bytes = std::fs::read(&now).expect("bytes");
        let text = String::from_utf8_lossy(&bytes[WORD..]).replacen(&boot(), "before", 1);
        std::fs::write(&now, [&bytes[..WORD], text.as_bytes()].concat()).expect("written");
        assert_eq!(places.left("c"), Left::AtLeast(12));
        std::fs::remove_file(&now).expect("removed");
        assert_eq!(places.left("c"), Left::AtLeast(12));
        std::fs::write(&now, "torn").expect("written");
        std::fs::write(&places.lasting, "torn").expect("written");
        assert_eq!(places.left("c"), Left::Nothing);
    }

    #[test]
    fn a_count_that_cannot_be_kept_leaves_no_older_one_to_be_believed() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = directory.path().join("decisions");
        let places = Places::of(&directory.path().join("audit.db"), Some(&now));
        Tally::default().begin(&places, "c", 7);
        // In the way of the new one.
        std::fs::create_dir(now.with_extension("new")).expect("made");
        let tally = Tally::default();
        tally.begin(&places, "c", 9);
        tally.add(1);
        assert_eq!(tally.total(), 10);
        tally.last();
        assert_eq!(places.left("c"), Left::AtLeast(10));
    }
}
