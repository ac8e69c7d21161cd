//! The file of a list: 64 bytes of header, then the table.
//!
//! | bytes | hold |
//! |---|---|
//! | 0..12 | `egress-names` |
//! | 12..16 | version, little endian: 2 |
//! | 16..24 | how many names, little endian |
//! | 24..32 | how many of them cover a public suffix, little endian |
//! | 32..64 | SHA-256 of bytes 0..32 and of all that follows the header |

use super::error::{ListError, WriteError};
use super::mapped::Mapped;
use super::table::Table;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 12] = b"egress-names";
/// The version that is written, and the only one that is read. In the first, names
/// were an automaton.
pub(super) const VERSION: u32 = 2;
const HEADER: usize = 64;
const SIGNED: usize = 32;

/// A list of names, ready to be asked. Clones share it.
#[derive(Clone)]
pub struct NameList(Arc<Inner>);

struct Inner {
    path: PathBuf,
    names: Table<Mapped>,
    count: u64,
    public_suffixes: u64,
    digest: [u8; 32],
}

/// Two lists are equal if their content is.
impl PartialEq for NameList {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for NameList {}

impl fmt::Debug for NameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { path, count, .. } = &*self.0;
        write!(f, "NameList({}, {count} names)", path.display())
    }
}

/// An entry that means a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Labels of the name that stand before the entry's; 0 if it is the entry's own.
    pub below: usize,
}

impl NameList {
    /// Opens a list and verifies all of it. What is asked later is a copy without a
    /// name, so that nobody can change it under the agent: a new list takes effect
    /// when it is opened.
    pub fn open(path: &Path) -> Result<Self, ListError> {
        let failed = |source| ListError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |what| ListError::Damaged {
            path: path.to_owned(),
            what,
        };
        // Asked before opening: opening a FIFO would wait for a writer.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(ListError::Foreign(path.to_owned()));
        }
        let mut source = File::open(path).map_err(failed)?;
        let mut header = [0; HEADER];
        match source.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ListError::Foreign(path.to_owned()));
            }
            read => read.map_err(failed)?,
        }
        let (signed, digest) = header.split_at(SIGNED);
        let (magic, rest) = signed.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(ListError::Foreign(path.to_owned()));
        }
        let number = |at: usize, bytes: usize| {
            let bytes = rest.get(at..at + bytes).unwrap_or_default();
            bytes
                .iter()
                .rev()
                .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte))
        };
        let version = number(0, 4) as u32;
        if version != VERSION {
            return Err(ListError::Version {
                path: path.to_owned(),
                version,
            });
        }
        let (copy, found) = copied(path, &mut source, signed).map_err(failed)?;
        if found.as_slice() != digest {
            return Err(damaged("its digest is another"));
        }
        let mapped = || -> io::Result<_> { Ok(Table::new(Mapped::of_unnamed(&copy)?)) };
        let count = number(4, 8);
        // Mapped twice: what is looked at here need not stay in memory.
        let verified = mapped().map_err(failed)?.and_then(|table| table.verified());
        if verified.ok_or_else(|| damaged("it holds no table of names"))? != count {
            return Err(damaged("it holds another number of names than it says"));
        }
        let names = mapped().map_err(failed)?;
        let names = names.ok_or_else(|| damaged("it holds no table of names"))?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            names,
            count,
            public_suffixes: number(12, 8),
            digest: found,
        })))
    }

    /// The entry that means a name, in canonical text; its own before one above it,
    /// and of those the nearest.
    pub fn find(&self, name: &str) -> Option<Found> {
        let below = self.0.names.find(name)?;
        Some(Found { below })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How many entries it has.
    pub fn len(&self) -> u64 {
        self.0.count
    }

    /// Whether it has no entry, which no list that was built has.
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// How many entries cover a public suffix, below which anybody can have a name.
    pub fn public_suffixes(&self) -> u64 {
        self.0.public_suffixes
    }

    /// Which list this is: the SHA-256 that its file holds, in hexadecimal.
    pub fn digest(&self) -> String {
        self.0.digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Bytes that are mapped.
    pub fn size(&self) -> usize {
        self.0.names.size()
    }
}

/// Copies what follows the header into a file without a name, and hashes it.
fn copied(path: &Path, source: &mut File, signed: &[u8]) -> io::Result<(File, [u8; 32])> {
    // Beside the list there is room on a disk; who may not write there is not the
    // agent, and has a temporary directory.
    let beside = path.parent().filter(|above| !above.as_os_str().is_empty());
    let mut copy = match tempfile::tempfile_in(beside.unwrap_or(Path::new("."))) {
        Ok(copy) => copy,
        Err(_) => tempfile::tempfile()?,
    };
    let mut hash = Sha256::new();
    hash.update(signed);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = buffer.get(..length).unwrap_or_default();
        hash.update(read);
        copy.write_all(read)?;
    }
    Ok((copy, hash.finalize().into()))
}

/// The header of a list with this table.
pub(super) fn header(table: &[u8], (count, public_suffixes): (u64, u64)) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend(count.to_le_bytes());
    header.extend(public_suffixes.to_le_bytes());
    let digest = Sha256::new()
        .chain_update(&header)
        .chain_update(table)
        .finalize();
    header.extend(digest);
    header
}

/// Writes a list so that either the old file or the whole new one is there.
pub(super) fn write(path: &Path, table: &[u8], counts: (u64, u64)) -> Result<(), WriteError> {
    let failed = |source| WriteError::Io {
        path: path.to_owned(),
        source,
    };
    let header = header(table, counts);
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    let place = || {
        let mut new = tempfile::Builder::new()
            .prefix(".names-")
            .tempfile_in(above)?;
        new.write_all(&header)?;
        new.write_all(table)?;
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o644);
        new.as_file().set_permissions(readable)?;
        new.as_file().sync_all()?;
        new.persist(path).map_err(|error| error.error)?;
        // The rename itself must survive a power cut too.
        File::open(above)?.sync_all()
    };
    place().map_err(failed)
}
