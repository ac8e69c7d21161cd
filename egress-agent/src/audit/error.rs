//! What can be wrong with the audit file, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the audit store cannot be opened, read or completed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file or its directory cannot be made or opened.
    #[error(
        "cannot {action} `{}`: {source}; the audit store needs a directory that its user can write \
         and a file that only its user can read",
        path.display()
    )]
    Io {
        /// `create`, `open`, `lock`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no file to read.
    #[error(
        "there is no audit file at `{}`; it is made when the agent first starts, so check the path",
        .0.display()
    )]
    Missing(PathBuf),
    /// A directory, a device, a link.
    #[error("`{}` is not a regular file; name a file for the audit store", .0.display())]
    NotAFile(PathBuf),
    /// Something else lies there.
    #[error(
        "`{}` is not an audit store ({found}), and was left untouched; move it away or name another file",
        path.display()
    )]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// A newer agent wrote it.
    #[error(
        "`{}` has schema {found}, and this program knows schemas up to {known}; use the newer version, \
         or move the file away to begin a new one",
        path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// An older agent wrote it, and only a writer may change it.
    #[error(
        "`{}` has schema {found}, and this program reads schema {known}; start the agent once to bring it up to date",
        path.display()
    )]
    OlderSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that this program reads.
        known: i64,
    },
    /// Another agent has it.
    #[error(
        "`{}` is in use by another agent{}; stop that one, or give this one a state directory of its own",
        path.display(),
        holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process id, as the other agent wrote it down.
        holder: Option<String>,
    },
    /// A read-only directory or medium.
    #[error(
        "cannot read `{}`: SQLite keeps the index of its log beside the file, and cannot make it there; \
         copy the file, and the one that ends in -wal if there is one, to a directory that you can write",
        .0.display()
    )]
    NoRoomForIndex(PathBuf),
    /// It began as a store, and is no longer one that SQLite can read.
    #[error(
        "`{}` is damaged, and was left untouched; move it away, with the files beside it that end in -wal and \
         -shm, to begin a new one, and keep it: what can still be read of it is evidence",
        .0.display()
    )]
    Damaged(PathBuf),
    /// A key file that cannot be used.
    #[error("the key `{}` cannot be used: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// SQLite failed.
    #[error("the audit store `{}` failed: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("the audit store `{}` cannot be brought to the current schema: {source}", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: sqlx::migrate::MigrateError,
    },
    /// Records were still waiting when time was up.
    #[error(
        "{waiting} audit records were not written within {deadline:?}; last error: {}",
        last_error.as_deref().unwrap_or("none, the disk is slow")
    )]
    Unwritten {
        /// How many.
        waiting: u64,
        /// How long was waited.
        deadline: Duration,
        /// Why the last attempt to write failed.
        last_error: Option<String>,
    },
}
