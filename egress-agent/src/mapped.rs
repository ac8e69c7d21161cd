//! Parts of files in memory, written to without a system call.
//!
//! What is written outlives the process as what a system call writes does: both are the page
//! cache. Two things are the caller's: the file belongs to root alone, since whoever cuts it
//! short ends the agent, and all of its bytes have been written before, so that no room has to
//! be found when they are written again. It should be in a file system that is in memory: on
//! a disk, a store can wait for it.

#![expect(unsafe_code, reason = "a file can only be mapped into memory by hand")]

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a mapping may begin in a file: at multiples of this, which those of any page size of
/// Linux are that we build for (4 to 64 KiB).
pub const PAGE: u64 = 64 << 10;

/// A mapping that is shared with the file. It stays when the file is closed.
#[derive(Debug)]
struct Mapping {
    first: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is mapped for the lifetime of the value, from any thread.
unsafe impl Send for Mapping {}
// SAFETY: by a shared reference it is only used through atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, begin: u64, length: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory that
        // anybody has.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                file,
                begin,
            )
        }?;
        let first = NonNull::new(mapped.cast());
        let first = first.ok_or_else(|| io::Error::other("it was mapped at 0"))?;
        Ok(Self { first, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and whoever borrowed from it borrowed
        // `self`.
        let _ = unsafe { munmap(self.first.as_ptr().cast(), self.length) };
    }
}

/// Bytes of a file, to be written on.
#[derive(Debug)]
pub struct Bytes(Mapping);

impl Bytes {
    /// Maps so many bytes of a file from `begin` on, which is a multiple of [`PAGE`].
    pub fn map(file: &File, begin: u64, length: usize) -> io::Result<Self> {
        Mapping::new(file, begin, length).map(Self)
    }

    /// Writes bytes at a place; `false` if they do not fit.
    #[must_use]
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        if at
            .checked_add(bytes.len())
            .is_none_or(|end| end > self.0.length)
        {
            return false;
        }
        // SAFETY: the mapping has these bytes, is no part of any Rust object, and whoever
        // writes has it for itself.
        unsafe {
            let to = self.0.first.add(at);
            to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        }
        true
    }
}

/// The first eight bytes of a file, as a number in the machine's own byte order. Each is
/// written as a whole.
#[derive(Debug)]
pub struct Word(Mapping);

impl Word {
    /// Maps the first word of a file.
    pub fn map(file: &File) -> io::Result<Self> {
        Mapping::new(file, 0, size_of::<AtomicU64>()).map(Self)
    }

    /// Writes the number.
    pub fn set(&self, number: u64) {
        // SAFETY: the mapping begins at a page, holds the word, and lives as long as `self`.
        let word: &AtomicU64 = unsafe { self.0.first.cast().as_ref() };
        word.store(number, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_written_is_in_the_file_and_nothing_beside_it() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&vec![b'.'; 2 * PAGE as usize], 0)
            .expect("written");
        let mut bytes = Bytes::map(&file, PAGE, 16).expect("mapped");
        assert!(bytes.write(4, b"here"));
        assert!(bytes.write(12, b"last"));
        assert!(!bytes.write(13, b"last"));
        assert!(!bytes.write(usize::MAX, b"last"));
        let mut read = [0; 18];
        file.read_exact_at(&mut read, PAGE - 1).expect("read");
        assert_eq!(&read, b".....here....last.");
        assert!(Bytes::map(&file, PAGE + 1, 16).is_err());
    }

    #[test]
    fn a_word_is_written_as_a_whole() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[b'.'; 9], 0).expect("written");
        let word = Word::map(&file).expect("mapped");
        for number in [0, 7, u64::MAX] {
            word.set(number);
            let mut read = [0; 9];
            file.read_exact_at(&mut read, 0).expect("read");
            assert_eq!(read[..8], number.to_ne_bytes());
            assert_eq!(read[8], b'.');
        }
    }
}
