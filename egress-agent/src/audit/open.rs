//! Opens the audit file, or says why not and what to do.
//!
//! Before SQLite has the file, it is only ever looked at from outside (`stat`,
//! `access`): closing any descriptor of a file drops the locks that SQLite holds
//! on it elsewhere in this process.

use crate::audit::fold::Folding;
use crate::audit::key::KeyFiles;
use crate::audit::seal::Head;
use crate::audit::{AuditError, Options, row};
use rustix::fs::{Access, access};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The schema, one file per step, never changed once released.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// "egrs"; written by the first migration.
const APPLICATION_ID: i64 = 0x6567_7273;

/// `SQLITE_NOTADB`.
const NOT_A_DATABASE: &str = "26";

/// `SQLITE_CANTOPEN`.
const CANNOT_OPEN: &str = "14";

/// `SQLITE_CORRUPT`.
const CORRUPT: &str = "11";

/// `SQLITE_TOOBIG`.
const TOO_BIG: &str = "18";

/// SQLite's page size when nothing else is asked for.
const PAGE_BYTES: u64 = 4096;

/// The smallest page that SQLite has, in bytes: no database is shorter.
const SMALLEST_PAGE: u64 = 512;

/// What a look at the file reads: few pages, and of every tree that is written.
const PROBES: [&str; 5] = [
    "SELECT * FROM head",
    "SELECT * FROM records ORDER BY sequence DESC LIMIT 16",
    "SELECT * FROM records ORDER BY sequence LIMIT 16",
    "SELECT * FROM subjects ORDER BY id DESC LIMIT 16",
    "SELECT time FROM records INDEXED BY records_by_time ORDER BY time DESC LIMIT 16",
];

/// What lies at the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// Nothing, or a file without content.
    Nothing,
    /// A file whose creation was interrupted before it had a schema.
    Unfinished,
    /// A store with this schema.
    Store(i64),
}

/// A file that this process alone may write.
#[derive(Debug)]
pub(super) struct OwnFile {
    pub path: PathBuf,
    options: SqliteConnectOptions,
    identity: (u64, u64),
    /// Held as long as this lives.
    _lock: File,
}

impl OwnFile {
    /// Opens a connection that writes.
    pub async fn connect(&self) -> Result<SqliteConnection, AuditError> {
        self.options
            .connect()
            .await
            .map_err(|source| database(&self.path, source))
    }

    /// What copies the log of this file.
    pub fn folding(&self) -> Folding {
        Folding::new(self.options.clone())
    }

    /// Where the chain ends, after its last checkpoint; a new chain of `node` where
    /// there is none.
    pub async fn head(&self, node: &str) -> Result<(Head, u64), AuditError> {
        let mut connection = self.connect().await?;
        let found = head(&mut connection, node).await;
        found.map_err(|source| database(&self.path, source))
    }

    /// Sets the file aside, because it is damaged, and begins another in its place.
    pub async fn begin_anew(&mut self, options: &Options) -> Result<Aside, AuditError> {
        let aside = set_aside(&self.path)?;
        (self.options, self.identity) = check(&self.path, options).await?;
        Ok(aside)
    }

    /// Reads from both ends of the file with a connection of its own. The one that
    /// writes has its pages in memory, and would notice damage last of all.
    pub async fn probe(&self) -> Result<(), AuditError> {
        let looked = async {
            let mut connection = read_options(&self.path).connect().await?;
            for statement in PROBES {
                sqlx::query(statement).fetch_all(&mut connection).await?;
            }
            connection.close().await
        };
        looked.await.map_err(|source| database(&self.path, source))
    }

    /// Whether the path still names the file that was opened. SQLite would go on
    /// writing into a removed file, where nobody could ever read it.
    pub fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }
}

async fn head(connection: &mut SqliteConnection, node: &str) -> Result<(Head, u64), sqlx::Error> {
    let head = match row::head(connection).await? {
        Some(head) => head,
        None => {
            let head = Head::begin(node.to_owned());
            row::advance(connection, &head).await?;
            head
        }
    };
    Ok((head, row::signed(connection).await?))
}

/// A file that was damaged, and lies elsewhere now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Aside {
    /// Where.
    pub path: PathBuf,
}

/// Locks, checks, creates and migrates the file. One that is damaged is set
/// aside, and a new one begun.
pub(super) async fn own(
    path: &Path,
    options: &Options,
) -> Result<(OwnFile, Option<Aside>), AuditError> {
    let path = absolute(path)?;
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(io("create", directory))?;
    }
    let lock = lock(&path)?;
    let mut aside = None;
    let (connect, identity) = match check(&path, options).await {
        Err(error) if is_damage(&error) || (is_foreign(&error) && was_ours(&path)) => {
            tracing::error!(%error, "the damaged audit file is set aside, and a new one begun");
            aside = Some(set_aside(&path)?);
            check(&path, options).await?
        }
        other => other?,
    };
    let file = OwnFile {
        options: connect,
        identity,
        path,
        _lock: lock,
    };
    Ok((file, aside))
}

/// Moves the file and its companions to a name that says when, never onto another.
fn set_aside(path: &Path) -> Result<Aside, AuditError> {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let names = (0..).map(|n| match n {
        0 => beside(path, &format!(".damaged-{now}")),
        n => beside(path, &format!(".damaged-{now}.{n}")),
    });
    let to = names
        .take(1000)
        .find(|name| !name.exists())
        .unwrap_or_else(|| beside(path, ".damaged"));
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(path, suffix), beside(&to, suffix));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io("set aside", &from)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(Aside { path: to })
}

/// Whether SQLite found that the content of the file is not what it wrote.
pub(super) fn is_damage(error: &AuditError) -> bool {
    if matches!(error, AuditError::Damaged(_)) {
        return true;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<sqlx::Error>()
            && is_corruption(error)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

const fn is_foreign(error: &AuditError) -> bool {
    matches!(error, AuditError::NotAStore { .. })
}

/// Whether a store lay at the path: an agent signs no other file.
fn was_ours(path: &Path) -> bool {
    KeyFiles::beside(path).last_checkpoint().is_some()
}

/// Whether a file that this process has opened before is damaged: then one that
/// is no database is not somebody else's.
pub(super) fn is_damage_of_own(error: &sqlx::Error) -> bool {
    is_corruption(error) || code(error).as_deref() == Some(NOT_A_DATABASE)
}

/// Whether SQLite said so in this very error.
pub(super) fn is_corruption(error: &sqlx::Error) -> bool {
    // Extended codes have the primary one in their lowest byte.
    code(error)
        .and_then(|code| code.parse::<i64>().ok())
        .is_some_and(|code| (code & 0xff).to_string() == CORRUPT)
}

/// Whether text became longer than SQLite takes it.
pub(super) fn is_too_big(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some(TOO_BIG)
}

/// Looks at the file, makes it if it is not there, and brings its schema up to date.
async fn check(
    path: &Path,
    options: &Options,
) -> Result<(SqliteConnectOptions, (u64, u64)), AuditError> {
    let path = path.to_owned();
    let found = inspect(&path).await?;
    if let Found::Store(schema) = found
        && schema > newest_schema()
    {
        return Err(AuditError::NewerSchema {
            path,
            found: schema,
            known: newest_schema(),
        });
    }
    if path.exists() {
        access(&path, Access::READ_OK | Access::WRITE_OK)
            .map_err(|errno| io("open", &path)(errno.into()))?;
        // SQLite gives its companion files the mode of this one.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))
            .map_err(io("open", &path))?;
    } else {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("create", &path))?;
    }
    let connect = connect_options(&path, options);
    let identity = identity(&path).map_err(io("open", &path))?;
    let mut connection = connect
        .connect()
        .await
        .map_err(|source| database(&path, source))?;
    MIGRATIONS
        // `run` wants an `Acquire`, with which no future of a caller is `Send`.
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|source| AuditError::Migration {
            path: path.clone(),
            source,
        })?;
    connection
        .close()
        .await
        .map_err(|source| database(&path, source))?;
    Ok((connect, identity))
}

/// How to read the file, after a look at whether it can be read.
pub(super) async fn readable(path: &Path) -> Result<SqliteConnectOptions, AuditError> {
    let path = absolute(path)?;
    match inspect(&path).await? {
        Found::Nothing => Err(AuditError::Missing(path)),
        Found::Unfinished => Err(AuditError::OlderSchema {
            path,
            found: 0,
            known: newest_schema(),
        }),
        Found::Store(schema) if schema < newest_schema() => Err(AuditError::OlderSchema {
            path,
            found: schema,
            known: newest_schema(),
        }),
        Found::Store(schema) if schema > newest_schema() => Err(AuditError::NewerSchema {
            path,
            found: schema,
            known: newest_schema(),
        }),
        Found::Store(_) => Ok(read_options(&path)),
    }
}

fn connect_options(path: &Path, options: &Options) -> SqliteConnectOptions {
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A record that was reported as written survives power loss.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy_timeout)
        // In KiB: the inner pages of the indices stay in memory, and little more.
        .pragma("cache_size", "-56000")
        // Pages between two copies from the log into the file: each copy waits for
        // the disk twice.
        .pragma("wal_autocheckpoint", "32000")
        .disable_statement_logging();
    match options.max_bytes {
        Some(bytes) => connect.pragma("max_page_count", (bytes / PAGE_BYTES).max(1).to_string()),
        None => connect,
    }
}

fn read_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        // Rows that SQLite's thread may be ahead by: with few, each row wakes somebody.
        .row_buffer_size(1_024)
        .disable_statement_logging()
}

/// Finds out what lies at the path without changing it.
async fn inspect(path: &Path) -> Result<Found, AuditError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(io("open", path)(error)),
        Ok(metadata) if !metadata.is_file() => return Err(AuditError::NotAFile(path.to_owned())),
        Ok(metadata) if metadata.len() == 0 => return Ok(Found::Nothing),
        // SQLite takes such a file for an empty database and would overwrite it.
        Ok(metadata) if metadata.len() < SMALLEST_PAGE => return Err(foreign(path)),
        Ok(_) => {}
    }
    access(path, Access::READ_OK).map_err(|errno| io("open", path)(errno.into()))?;
    look_inside(path)
        .await
        .map_err(|source| match code(&source).as_deref() {
            Some(NOT_A_DATABASE) => foreign(path),
            Some(CANNOT_OPEN) => AuditError::NoRoomForIndex(path.to_owned()),
            _ => database(path, source),
        })?
        .ok_or_else(|| AuditError::NotAStore {
            path: path.to_owned(),
            found: "another program's SQLite database",
        })
}

/// `None` if the database is somebody else's.
async fn look_inside(path: &Path) -> Result<Option<Found>, sqlx::Error> {
    let mut connection = read_options(path).connect().await?;
    let id: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut connection)
        .await?;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .fetch_all(&mut connection)
    .await?;
    let migrated = tables.iter().any(|name| name == "_sqlx_migrations");
    let found = if id == APPLICATION_ID && migrated {
        let schema: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await?;
        Some(Found::Store(schema.unwrap_or(0)))
    } else if id == 0 && tables.len() == usize::from(migrated) {
        Some(Found::Unfinished)
    } else {
        None
    };
    connection.close().await?;
    Ok(found)
}

/// Takes the lock that says which agent writes. The system drops it with the process.
fn lock(path: &Path) -> Result<File, AuditError> {
    let path_of_lock = beside(path, ".lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path_of_lock)
        .map_err(io("create", &path_of_lock))?;
    // A child that was forked a moment ago, and has not executed its program yet,
    // holds a copy of the lock of whoever just closed the file.
    let mut locked = file.try_lock();
    for _ in 0..20 {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // A name for the message only; without it the message still stands.
            let read = file.read_to_string(&mut holder).is_ok();
            let holder = holder.trim().to_owned();
            return Err(AuditError::InUse {
                path: path.to_owned(),
                holder: (read && !holder.is_empty()).then_some(holder),
            });
        }
        Err(TryLockError::Error(error)) => return Err(io("lock", &path_of_lock)(error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io("lock", &path_of_lock))?;
    Ok(file)
}

fn newest_schema() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// SQLite takes a leading `file:` for a URI; no absolute path begins with it.
fn absolute(path: &Path) -> Result<PathBuf, AuditError> {
    std::path::absolute(path).map_err(io("open", path))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AuditError {
    move |source| AuditError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn foreign(path: &Path) -> AuditError {
    AuditError::NotAStore {
        path: path.to_owned(),
        found: "not a SQLite database",
    }
}

/// What SQLite says, in words that tell what to do.
pub(super) fn database(path: &Path, source: sqlx::Error) -> AuditError {
    if is_corruption(&source) {
        return AuditError::Damaged(path.to_owned());
    }
    AuditError::Database {
        path: path.to_owned(),
        source,
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
