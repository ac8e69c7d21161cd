//! Counts decisions where a killed process cannot take the count along.
//!
//! The store knows how many decisions its records stand for; this file beside it
//! knows how many there were. After a kill the difference is exactly what was in
//! the queue or being folded. The file lives in the page cache, so the count
//! survives the process and not the machine: it names the boot that it is of.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The digits of the count.
const DIGITS: usize = 20;

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

/// The count of one chain.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    total: u64,
    /// Where the digits stand; absent if the file could not be made.
    place: Option<(File, u64)>,
}

fn path(store: &Path) -> PathBuf {
    store.with_extension("tally")
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Reads the count of `chain` beside the store.
pub(super) fn left(store: &Path, chain: &str) -> Left {
    let mut text = String::new();
    let read = File::open(path(store)).and_then(|mut file| file.read_to_string(&mut text));
    if read.is_err() {
        return Left::Nothing;
    }
    let mut words = text.split_whitespace();
    let (Some(of_boot), Some(of_chain), Some(total)) = (words.next(), words.next(), words.next())
    else {
        return Left::Nothing;
    };
    match total.parse() {
        Ok(total) if of_chain == chain && of_boot == boot() => Left::Exactly(total),
        Ok(total) if of_chain == chain => Left::AtLeast(total),
        Ok(_) | Err(_) => Left::Nothing,
    }
}

impl Tally {
    /// Begins to count `chain` at `total`.
    pub fn begin(&self, store: &Path, chain: &str, total: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let header = format!("{} {chain} ", boot());
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path(store))
            .and_then(|file| {
                let text = format!("{header}{total:0DIGITS$}\n");
                file.write_all_at(text.as_bytes(), 0)?;
                Ok(file)
            });
        state.total = total;
        state.place = match made {
            Ok(file) => Some((file, header.len() as u64)),
            Err(error) => {
                tracing::warn!(%error, "after a kill, what was not yet recorded could not be counted");
                None
            }
        };
    }

    /// How many decisions there were.
    pub fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// Adds decisions, before they are handed over.
    pub fn add(&self, decisions: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.total = state.total.saturating_add(decisions);
        if let Some((file, place)) = &state.place
            && let Err(error) = file.write_all_at(&digits(state.total), *place)
        {
            tracing::warn!(%error, "the count of decisions is not kept any more");
            state.place = None;
        }
    }
}

/// The count in decimal, filled up with zeros. By hand, because each decision waits for it.
fn digits(mut count: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (count % 10) as u8;
        count /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_written_as_the_standard_library_would() {
        for count in [0, 7, 10, 1_234_567_890, u64::MAX - 1, u64::MAX] {
            let expected = format!("{count:0DIGITS$}");
            assert_eq!(digits(count), expected.as_bytes(), "{count}");
        }
    }

    #[test]
    fn a_count_outlives_whoever_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("audit.db");
        assert_eq!(left(&store, "c"), Left::Nothing);
        let tally = Tally::default();
        tally.begin(&store, "c", 7);
        tally.add(5);
        tally.add(1_000_000);
        // As a kill would leave it: nothing is closed.
        std::mem::forget(tally);
        assert_eq!(left(&store, "c"), Left::Exactly(1_000_012));
        assert_eq!(left(&store, "other"), Left::Nothing);
        let text = std::fs::read_to_string(path(&store)).expect("text");
        std::fs::write(path(&store), text.replacen(&boot(), "before", 1)).expect("written");
        assert_eq!(left(&store, "c"), Left::AtLeast(1_000_012));
        std::fs::write(path(&store), "torn").expect("written");
        assert_eq!(left(&store, "c"), Left::Nothing);
    }
}
