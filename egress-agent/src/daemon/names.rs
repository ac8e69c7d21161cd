//! The list of names behind the ids in the kernel's grants.
//!
//! A name is written down before the first grant under it, and whoever asked waits for
//! that. So the end of the file is in memory: a line is some stores, and not a system call.
//! What follows the last line is zeros, and a line is read up to the first of them: the bytes
//! of one that was cut off may have come in any order.

use crate::mapped::{Bytes, PAGE};
use crate::model::DomainName;
use egress_common::NameId;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are mapped at once. A line fits wherever in the first page it begins.
const WINDOW: usize = 2 * PAGE as usize;

/// The names in what such a file holds. A line that was cut off names a grant that was
/// never handed out.
pub(super) fn names_in(bytes: &[u8]) -> BTreeMap<NameId, DomainName> {
    let written = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let end = written.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let named = |line: &[u8]| {
        let (id, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        Some((NameId(id.parse().ok()?), DomainName::parse(name).ok()?))
    };
    let lines = written[..end].split(|byte| *byte == b'\n');
    lines.filter_map(named).collect()
}

/// The end of a list, to be written on.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    window: Bytes,
    /// Where the window begins in the file, and where the next line begins in the window.
    begin: u64,
    at: usize,
}

impl Lines {
    /// Goes on behind the first `length` bytes of a file that is root's, and that nobody else
    /// writes to.
    pub(super) fn behind(file: File, length: u64) -> io::Result<Self> {
        let begin = length - length % PAGE;
        // Room is made by writing: a full disk is an error here, and no fault later.
        file.write_all_at(&vec![0; WINDOW], length)?;
        Ok(Self {
            window: Bytes::map(&file, begin, WINDOW)?,
            begin,
            at: usize::try_from(length - begin).map_err(io::Error::other)?,
            file,
        })
    }

    /// Writes a line of fewer bytes than a window.
    pub(super) fn push(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.window.write(self.at, line) {
            let length = self.begin + self.at as u64;
            *self = Self::behind(self.file.try_clone()?, length)?;
            if !self.window.write(self.at, line) {
                return Err(io::Error::other("the line is too long"));
            }
        }
        self.at += line.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    fn opened(path: &Path) -> File {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        options.mode(0o600).open(path).expect("a file")
    }

    #[test]
    fn what_is_written_is_in_the_file_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("names");
        let mut lines = Lines::behind(opened(&path), 0).expect("mapped");
        // Several windows, in lines that fit none of them evenly.
        let name = format!("{}.example", "a".repeat(60));
        let mut expected = String::new();
        for id in 1..=5_000 {
            let line = format!("{id} {name}\n");
            lines.push(line.as_bytes()).expect("written");
            expected.push_str(&line);
        }
        assert!(expected.len() > 2 * WINDOW);
        let bytes = std::fs::read(&path).expect("read");
        assert!(bytes.starts_with(expected.as_bytes()));
        assert!(bytes[expected.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(names_in(&bytes).len(), 5_000);
        // The next one goes on where this one was.
        drop(lines);
        let mut lines = Lines::behind(opened(&path), expected.len() as u64).expect("mapped");
        lines.push(b"5001 b.example\n").expect("written");
        let names = names_in(&std::fs::read(&path).expect("read"));
        assert_eq!(names.len(), 5_001);
        let last = names.get(&NameId(5_001)).expect("the last");
        assert_eq!(last.as_str(), "b.example");
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_no_name() {
        for (bytes, found) in [
            (&b"1 a.example\n2 b.exam"[..], 1),
            (b"1 a.example\n2 b.exam\0\0\0", 1),
            (b"1 a.example\n\0\0 b.example\n", 1),
            (b"1 a.example\n\xff b.example\n2 b.exam", 1),
            (b"1 a.exam", 0),
            (b"\n", 0),
            (b"", 0),
        ] {
            let names: Vec<NameId> = names_in(bytes).into_keys().collect();
            assert_eq!(names, [NameId(1)][..found], "{bytes:?}");
        }
    }

    #[test]
    fn a_line_that_fits_no_window_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut lines = Lines::behind(opened(&directory.path().join("names")), 0).expect("mapped");
        assert!(lines.push(&vec![b'a'; WINDOW + 1]).is_err());
        lines.push(b"1 a.example\n").expect("written");
    }
}
