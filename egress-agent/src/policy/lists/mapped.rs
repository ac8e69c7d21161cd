//! Bytes of a file in memory, without reading them all.

#![expect(
    unsafe_code,
    reason = "a mapping changes when its file does, which only the caller can rule out"
)]

use memmap2::Mmap;
use std::fs::File;
use std::io;

/// A mapped file that nobody else has.
#[derive(Debug)]
pub(super) struct Mapped(Mmap);

impl Mapped {
    /// Maps a file. It must be one without a name, made by this process: whoever
    /// could cut it short could end the agent.
    pub(super) fn of_unnamed(file: &File) -> io::Result<Self> {
        // SAFETY: the file has no name and its only descriptor is here, so no other
        // process can write to it or cut it while it is mapped.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
