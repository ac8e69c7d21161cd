//! Parts of files and of kernel maps in memory, read and written to without a system call.
//!
//! What is written to a file outlives the process as what a system call writes does: both are
//! the page cache. Two things are the caller's: the file belongs to root alone, since whoever
//! cuts it short ends the agent, and all of its bytes have been written before, so that no room
//! has to be found when they are written again. It should be in a file system that is in
//! memory: on a disk, a store can wait for it. Maps of the kernel are of neither concern.

#![expect(
    unsafe_code,
    reason = "a file or a map can only be mapped into memory by hand"
)]

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a mapping may begin in a file: at multiples of this, which those of any page size of
/// Linux are that we build for (4 to 64 KiB).
pub const PAGE: u64 = 64 << 10;

/// A mapping that is shared with the file or map. It stays when that is closed.
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
    fn new(file: impl AsFd, begin: u64, length: usize, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory that
        // anybody has; the kernel refuses more pages than a map has.
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
        Mapping::new(file, begin, length, READ_AND_WRITE).map(Self)
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

/// The beginning of a file or of a kernel map, as words in the machine's own byte order. Each
/// is read and written as a whole.
#[derive(Debug)]
pub struct Words {
    mapping: Mapping,
    access: Access,
}

impl Words {
    /// Maps so many words.
    pub fn map(file: impl AsFd, count: usize, access: Access) -> io::Result<Self> {
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::ReadAndWrite => READ_AND_WRITE,
        };
        let mapping = Mapping::new(file, 0, count * size_of::<AtomicU64>(), protection)?;
        Ok(Self { mapping, access })
    }

    /// What the word at this index is, if there is one.
    pub fn load(&self, index: usize, order: Ordering) -> Option<u64> {
        Some(self.get(index)?.load(order))
    }

    /// The word at this index, if there is one that may be written to.
    pub fn writable(&self, index: usize) -> Option<&AtomicU64> {
        match self.access {
            Access::Read => None,
            Access::ReadAndWrite => self.get(index),
        }
    }

    fn get(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.mapping.length / size_of::<AtomicU64>() {
            return None;
        }
        // SAFETY: the index is inside the mapping, which begins at a page and lives as long as
        // `self`; whoever else has the file or map writes whole words. Nobody writes to one
        // that is only read.
        Some(unsafe { self.mapping.first.cast::<AtomicU64>().add(index).as_ref() })
    }
}

/// What may be done with what is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written to, too.
    ReadAndWrite,
}

const READ_AND_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

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
        file.write_all_at(&[b'.'; 17], 0).expect("written");
        let words = Words::map(&file, 2, Access::ReadAndWrite).expect("mapped");
        let seen = Words::map(&file, 2, Access::Read).expect("mapped");
        assert!(words.writable(2).is_none() && words.load(2, Ordering::Relaxed).is_none());
        assert!(seen.writable(1).is_none());
        for number in [0, 7, u64::MAX] {
            let word = words.writable(1).expect("a word");
            word.store(number, Ordering::Release);
            let mut read = [0; 17];
            file.read_exact_at(&mut read, 0).expect("read");
            assert_eq!(read[8..16], number.to_ne_bytes());
            assert_eq!((read[7], read[16]), (b'.', b'.'));
            assert_eq!(seen.load(1, Ordering::Acquire), Some(number));
        }
    }
}
