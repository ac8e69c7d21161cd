//! Words in memory that the agent shares with the kernel programs.

#![expect(unsafe_code, reason = "a map can only be mapped into memory by hand")]

use super::Enforcer;
use super::error::EnforcerError;
use super::object::Loaded;
use aya::maps::Map;
use egress_common::{ASKER_WORDS, AskerWord, Emergency, names};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// An array of words that is mapped. It stays mapped when its descriptor is
/// closed, and the programs hold the map itself.
struct Mapped {
    first: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is mapped for the lifetime of the value, from any thread,
// and only used through atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn take(
        loaded: &mut Loaded,
        (name, words): (&'static str, usize),
        protection: ProtFlags,
    ) -> Result<Self, EnforcerError> {
        Self::of(&loaded.take_map(name)?, (name, words), protection)
    }

    fn of(
        map: &Map,
        (name, words): (&'static str, usize),
        protection: ProtFlags,
    ) -> Result<Self, EnforcerError> {
        let failed = |detail: String| EnforcerError::Object(detail);
        let Map::Array(data) = map else {
            return Err(failed(format!("{name} is no array")));
        };
        // SAFETY: a new mapping at a place that the kernel chooses touches no
        // memory that anybody has; the kernel refuses more pages than the map has.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                words * size_of::<AtomicU64>(),
                protection,
                MapFlags::SHARED,
                data.fd().as_fd(),
                0,
            )
        };
        let mapped = mapped.map_err(|error| failed(format!("{name} cannot be mapped: {error}")))?;
        let first = NonNull::new(mapped.cast());
        let first = first.ok_or_else(|| failed(format!("{name} was mapped at 0")))?;
        Ok(Self { first, words })
    }

    /// A word, if there is one at this index.
    fn get(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.words {
            return None;
        }
        // SAFETY: the index is inside the mapping, which is aligned to a page and
        // lives as long as `self`; programs and kernel write whole words.
        Some(unsafe { self.first.add(index).as_ref() })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let bytes = self.words * size_of::<AtomicU64>();
        // SAFETY: this is the mapping that `of` made, and whoever borrowed from
        // it borrowed `self`.
        let _ = unsafe { munmap(self.first.as_ptr().cast(), bytes) };
    }
}

/// What the agent shares with the programs about queries.
pub(super) struct Words {
    /// Who asks, which the programs write: [`names::ASKER_WORDS`].
    proofs: Mapped,
    /// Which process asks there, for the record: [`names::ASKER_PROCESSES`].
    processes: Mapped,
    /// How often everything was read that waited for the resolver, which the
    /// programs compare: [`names::DRAINED`].
    drained: Mapped,
    /// Whether everything is stopped, which whoever presses the button writes:
    /// [`names::EMERGENCY`].
    emergency: Mapped,
}

impl Words {
    /// Before the emergency block is taken out of what was loaded. Whatever waited for
    /// an earlier agent is gone with its sockets, so that counts as read.
    pub(super) fn take(loaded: &mut Loaded) -> Result<Self, EnforcerError> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let words = Self {
            proofs: Mapped::take(loaded, (names::ASKER_WORDS, ASKER_WORDS), ProtFlags::READ)?,
            processes: Mapped::take(
                loaded,
                (names::ASKER_PROCESSES, ASKER_WORDS),
                ProtFlags::READ,
            )?,
            drained: Mapped::take(loaded, (names::DRAINED, 1), both)?,
            emergency: Mapped::of(
                loaded.map(names::EMERGENCY)?,
                (names::EMERGENCY, 1),
                ProtFlags::READ,
            )?,
        };
        words.count_drained();
        Ok(words)
    }

    /// The word at an index that [`egress_common::asker_word`] gave.
    pub(super) fn get(&self, index: u32) -> AskerWord {
        // Acquire: what was written before the proof is not needed, but the
        // datagram that it is about must not be read before it.
        let word = self.proofs.get(index as usize);
        word.map_or(AskerWord::NONE, |word| {
            AskerWord(word.load(Ordering::Acquire))
        })
    }

    /// The process at the same place, if the kernel knew it.
    pub(super) fn process(&self, index: u32) -> Option<u32> {
        let process = self.processes.get(index as usize)?.load(Ordering::Relaxed);
        u32::try_from(process).ok().filter(|process| *process != 0)
    }

    fn count_drained(&self) {
        if let Some(count) = self.drained.get(0) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Enforcer {
    /// Whether everything is stopped, as the kernel programs see it: whoever pressed the
    /// button may not have been this agent. Costs a load.
    pub fn is_stopped(&self) -> bool {
        // Acquire: nothing that is done because nothing was stopped may come before it.
        let word = self.words.emergency.get(0);
        word.is_none_or(|word| Emergency(word.load(Ordering::Acquire)).admit().is_err())
    }

    /// Tells the programs that every datagram was read that waited for the resolver.
    pub fn drained(&self) {
        self.words.count_drained();
    }
}
