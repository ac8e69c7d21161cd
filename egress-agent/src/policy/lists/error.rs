//! What can be wrong with a list.

use super::file::VERSION;
use std::io;
use std::path::PathBuf;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read the list `{}`: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is another kind of file.
    #[error("`{}` is no list of names; make one with `egressctl names build`", .0.display())]
    Foreign(PathBuf),
    /// It is of a version that this program does not know.
    #[error("`{}` is a list of version {version}, and this program reads version {VERSION}; build it again with `egressctl names build`", path.display())]
    Version {
        /// Its path.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// It is not what was written.
    #[error("the list `{}` is damaged: {what}; build it again, or copy it again", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
}

/// Why a list cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is nothing to write: an empty list that looks like one would mislead.
    #[error("not one name was read; nothing is written")]
    Empty,
    /// The file system refused.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// The list's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than a table counts.
    #[error("there are more than 4,294,967,295 names; divide them among several lists")]
    TooMany,
    /// Too many names meet in one place, which names that nobody chose for it do not.
    #[error("the names cannot be spread over a table")]
    Crowded,
}
