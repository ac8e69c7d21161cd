//! Questions to the store.

use crate::audit::{
    AuditError, Entry, ProofError, PublicKey, Query, Span, StoredRecord, Verification, inspect,
    open, prove, row,
};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqlitePoolOptions, SqliteRow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The latest records, among which those to a destination are looked for first. If it is a fortieth of all,
/// a hundred are found there; if it is less, its index has little to look through.
const LATEST: u32 = 4_096;

/// Questions that one reader answers at a time.
const CONNECTIONS: u32 = 4;

/// Reads an audit file, also while an agent writes it, also without any agent.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
    pool: SqlitePool,
}

/// Knows whether a connection still reads the file that lies at the path: a
/// damaged one is set aside while readers have it open, and another begun.
#[derive(Debug)]
struct InPlace {
    path: PathBuf,
    /// Which file it was at the last look, and since when.
    seen: Mutex<(Option<(u64, u64)>, Instant)>,
}

impl InPlace {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: Mutex::new((open::identity(path).ok(), Instant::now())),
        }
    }

    /// Whether a connection of this age was made to the file that is there now.
    fn is_current(&self, age: Duration) -> bool {
        let found = open::identity(&self.path).ok();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if found != seen.0 {
            *seen = (found, Instant::now());
        }
        seen.1.elapsed() >= age
    }
}

impl Reader {
    /// Opens the file for reading only.
    pub async fn open(path: &Path) -> Result<Self, AuditError> {
        let options = open::readable(path).await?;
        let place = Arc::new(InPlace::new(path));
        Ok(Self {
            path: path.to_owned(),
            // Lazily: the file was just looked into.
            pool: SqlitePoolOptions::new()
                .max_connections(CONNECTIONS)
                .before_acquire(move |_, connection| {
                    let current = place.is_current(connection.age);
                    Box::pin(std::future::ready(Ok(current)))
                })
                .connect_lazy_with(options),
        })
    }

    /// The records that the query asks for, in its order.
    pub async fn query(&self, query: &Query) -> Result<Vec<StoredRecord>, AuditError> {
        let rows = self.rows(query).await;
        rows.and_then(|rows| rows.iter().map(row::read).collect())
            .map_err(|source| open::database(&self.path, source))
    }

    async fn rows(&self, query: &Query) -> Result<Vec<SqliteRow>, sqlx::Error> {
        if let Some(limit) = query.latest_of_range()
            && limit <= LATEST
        {
            let since: Option<i64> =
                sqlx::query_scalar("SELECT time FROM records ORDER BY time DESC LIMIT 1 OFFSET ?")
                    .bind(LATEST)
                    .fetch_optional(&self.pool)
                    .await?;
            // Where there are fewer, any way is short.
            if let Some(since) = since {
                let mut statement = query.among_latest(row::SELECT, since);
                let found = statement.build().fetch_all(&self.pool).await?;
                if found.len() as u64 >= u64::from(limit) {
                    return Ok(found);
                }
            }
        }
        let mut statement = query.statement(row::SELECT);
        statement.build().fetch_all(&self.pool).await
    }

    /// Verifies the chain against the node's signatures, and against checkpoints
    /// that were kept elsewhere.
    pub async fn verify(
        &self,
        span: Span,
        keys: &[PublicKey],
        elsewhere: &[String],
    ) -> Result<Verification, AuditError> {
        inspect::verify(&self.pool, span, keys, elsewhere, None)
            .await
            .map_err(|source| open::database(&self.path, source))
    }

    /// Verifies the whole chain, and shows every link of it in order, also those
    /// behind the first that is wrong: one walk for whoever reads everything.
    pub async fn verify_and_see(
        &self,
        keys: &[PublicKey],
        see: &mut (dyn FnMut(&Entry) + Send),
    ) -> Result<Verification, AuditError> {
        inspect::verify(&self.pool, Span::default(), keys, &[], Some(see))
            .await
            .map_err(|source| open::database(&self.path, source))
    }

    /// One line that proves a record to be one of those that the node signed.
    pub async fn prove(&self, sequence: i64) -> Result<String, ProofError> {
        prove::inclusion(&self.pool, sequence).await
    }

    /// One line that proves the last checkpoint to continue an earlier one.
    pub async fn prove_consistency(&self, earlier: &str) -> Result<String, ProofError> {
        prove::consistency(&self.pool, earlier).await
    }

    /// The place of the record that was stored last, also if retention took it
    /// since; 0 if there is none.
    pub async fn last_sequence(&self) -> Result<i64, AuditError> {
        sqlx::query_scalar("SELECT coalesce(max(sequence), 0) FROM head")
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
