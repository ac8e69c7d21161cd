//! Questions to the store.

use crate::audit::{AuditError, Query, StoredRecord, open, row};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use std::path::{Path, PathBuf};

/// Questions that one reader answers at a time.
const CONNECTIONS: u32 = 4;

/// Reads an audit file, also while an agent writes it, also without any agent.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
    pool: SqlitePool,
}

impl Reader {
    /// Opens the file for reading only.
    pub async fn open(path: &Path) -> Result<Self, AuditError> {
        let options = open::readable(path).await?;
        Ok(Self {
            path: path.to_owned(),
            // Lazily: the file was just looked into.
            pool: SqlitePoolOptions::new()
                .max_connections(CONNECTIONS)
                .connect_lazy_with(options),
        })
    }

    /// The records that the query asks for, in its order.
    pub async fn query(&self, query: &Query) -> Result<Vec<StoredRecord>, AuditError> {
        let rows = query.statement().build().fetch_all(&self.pool).await;
        rows.and_then(|rows| rows.iter().map(row::read).collect())
            .map_err(|source| open::database(&self.path, source))
    }

    /// The place of the record that was stored last; 0 if there is none.
    pub async fn last_sequence(&self) -> Result<i64, AuditError> {
        sqlx::query_scalar("SELECT coalesce(max(sequence), 0) FROM records")
            .fetch_one(&self.pool)
            .await
            .map_err(|source| open::database(&self.path, source))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The connections.
    pub(super) const fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Closes all connections.
    pub async fn close(self) {
        self.pool.close().await;
    }
}
