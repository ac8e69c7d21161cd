//! The proofs of who asks, in memory that the kernel programs write.

#![expect(unsafe_code, reason = "a map can only be mapped into memory by hand")]

use super::error::EnforcerError;
use super::object::Loaded;
use aya::maps::Map;
use egress_common::{ASKER_WORDS, AskerWord, names};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

const BYTES: usize = ASKER_WORDS * size_of::<AskerWord>();

/// The map [`names::ASKER_WORDS`], mapped for reading. It stays mapped when its
/// descriptor is closed, and the programs hold the map itself.
pub(super) struct Words(NonNull<AtomicU64>);

// SAFETY: the memory is mapped for the lifetime of the value, from any thread,
// and only read through atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    pub(super) fn take(loaded: &mut Loaded) -> Result<Self, EnforcerError> {
        let failed = |detail: String| EnforcerError::Object(detail);
        let Map::Array(data) = loaded.take_map(names::ASKER_WORDS)? else {
            return Err(failed(format!("{} is no array", names::ASKER_WORDS)));
        };
        // SAFETY: a new mapping at a place that the kernel chooses touches no
        // memory that anybody has; the kernel refuses more than the map holds.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                BYTES,
                ProtFlags::READ,
                MapFlags::SHARED,
                data.fd().as_fd(),
                0,
            )
        };
        let mapped = mapped
            .map_err(|error| failed(format!("{} cannot be mapped: {error}", names::ASKER_WORDS)))?;
        NonNull::new(mapped.cast())
            .map(Self)
            .ok_or_else(|| failed(format!("{} was mapped at 0", names::ASKER_WORDS)))
    }

    /// The word at an index that [`egress_common::asker_word`] gave.
    pub(super) fn get(&self, index: u32) -> AskerWord {
        let index = index as usize;
        if index >= ASKER_WORDS {
            return AskerWord::NONE;
        }
        // SAFETY: the index is inside the mapping, which is aligned to a page and
        // lives as long as `self`; the programs write whole words.
        let word = unsafe { self.0.add(index).as_ref() };
        // Acquire: what was written before the proof is not needed, but the
        // datagram that it is about must not be read before it.
        AskerWord(word.load(Ordering::Acquire))
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `take` made, and nobody has borrowed
        // from it, since `get` returns values.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}
