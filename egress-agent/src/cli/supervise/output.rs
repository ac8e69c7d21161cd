//! Where the output of a detached command goes: a file of a bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that has grown to this makes room for a new one. One old file is kept,
/// so that a command can never fill the disk with what it says.
const MOST: u64 = 10 << 20;

/// A log that starts over when it has grown.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    most: u64,
}

impl Log {
    /// Opens the log, for root alone: what a command says is its user's business.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_bound(path, MOST)
    }

    fn with_bound(path: &Path, most: u64) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            most,
        })
    }

    /// Writes what comes in, to its end. Where the disk is full, what comes is read
    /// all the same: a command must not hang on its log.
    pub fn take(&mut self, mut from: impl Read) {
        let mut buffer = [0; 8192];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let text = buffer.get(..length).unwrap_or_default();
                    // There is no better place to tell of it.
                    let _ = self.write(text);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.size + text.len() as u64 > self.most {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(text)?;
        self.size += text.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::Log;
    use std::fs::read_to_string;

    #[test]
    fn a_log_never_grows_beyond_two_files_of_its_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        let mut log = Log::with_bound(&path, 10).expect("a log");
        for text in ["123456", "abcdef", "ABCDEF"] {
            log.take(text.as_bytes());
        }
        assert_eq!(read_to_string(&path).expect("the file"), "ABCDEF");
        let old = read_to_string(directory.path().join("a.log.1")).expect("the old file");
        assert_eq!(old, "abcdef");
    }
}
