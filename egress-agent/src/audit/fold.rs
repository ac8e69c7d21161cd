//! Copying SQLite's log into the file beside the writing.
//!
//! A commit that makes the log long enough copies it itself (`wal_autocheckpoint`),
//! and whoever writes waits for it. Under load a second connection copies most of it
//! meanwhile, so that little is left to that commit.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

/// Records between two copies: of those, each page that changed is written once.
const RECORDS: usize = 32_768;

/// The second connection.
pub(super) struct Folding {
    options: SqliteConnectOptions,
    /// Made when it is needed first, and again after each failure.
    connection: Option<SqliteConnection>,
    /// The chain in the file that it has open.
    chain: String,
    /// Records that were written since the last copy.
    written: usize,
}

impl Folding {
    /// Copies the log of the file that `options` open.
    pub fn new(options: SqliteConnectOptions) -> Self {
        Self {
            options,
            connection: None,
            chain: String::new(),
            written: 0,
        }
    }

    /// Notes which chain is written to. With a new one the file is another, and the one before
    /// was damaged and set aside: nothing may be copied into that.
    pub fn follow(&mut self, chain: &str) {
        if self.chain != chain {
            self.let_go();
            chain.clone_into(&mut self.chain);
        }
    }

    /// Notes that so many records were written.
    pub const fn note(&mut self, records: usize) {
        self.written = self.written.saturating_add(records);
    }

    /// Copies what was written, if that is much. Nobody waits for it, and what it
    /// leaves the writer copies.
    pub async fn fold(&mut self) {
        if self.written < RECORDS {
            return;
        }
        self.written = 0;
        if let Err(error) = self.try_fold().await {
            tracing::debug!(%error, "the log of the audit store is copied by the writer only");
            self.connection = None;
        }
    }

    async fn try_fold(&mut self) -> Result<(), sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.options.connect().await?),
        };
        // Passive: it neither waits for others nor lets them wait.
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(connection)
            .await
            .map(drop)
    }

    /// Lets go of the file: it may be damaged.
    pub fn let_go(&mut self) {
        self.connection = None;
        self.written = 0;
    }

    /// Closes it. Only the last that closes the file takes the log away.
    pub async fn close(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "the second connection to the audit file was not closed cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Folding, RECORDS};
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
    use sqlx::{ConnectOptions, Connection};

    #[tokio::test]
    async fn what_was_written_is_copied_once_it_is_much_and_only_into_its_own_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut writer = options.connect().await.expect("a connection");
        let size = || path.metadata().expect("a file").len();
        for statement in [
            "CREATE TABLE records (body BLOB)",
            "INSERT INTO records VALUES (zeroblob(1000000))",
        ] {
            sqlx::query(statement)
                .execute(&mut writer)
                .await
                .expect("written");
        }
        assert!(size() < 100_000, "it is in the log: {}", size());

        let mut folding = Folding::new(options);
        folding.follow("one");
        folding.note(RECORDS - 1);
        folding.fold().await;
        assert!(size() < 100_000, "it was copied too early: {}", size());
        // Another chain is another file, to which nothing was written yet.
        folding.follow("two");
        folding.note(1);
        folding.fold().await;
        assert!(size() < 100_000, "it was copied too early: {}", size());
        folding.note(RECORDS - 1);
        folding.fold().await;
        assert!(size() > 1_000_000, "it was not copied: {}", size());

        // Only then is the writer the last, who takes the log away.
        folding.close().await;
        writer.close().await.expect("closed");
        let log = directory.path().join("store-wal");
        assert!(!log.exists(), "the log is left");
    }
}
