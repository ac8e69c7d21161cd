//! Ships what is written locally to PostgreSQL: in order, and each record once.
//!
//! The local file is the outbox. How far a chain has come stands in PostgreSQL and
//! is changed in the transaction that brings the records, so a connection that
//! breaks at any point, a killed agent and a restored server all resume where
//! PostgreSQL says.

use super::copy::Batch;
use super::{COLUMNS, ShipError, connect};
use crate::audit::entries::Entries;
use crate::audit::recorder::Shared;
use jiff::civil::Date;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row, SqlitePool};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Records per transaction.
const BATCH: i64 = 10_000;
/// How long a failed attempt waits; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long nothing new is waited for before it is looked for all the same.
const IDLE: Duration = Duration::from_secs(1);

/// Serializes nodes that make the partition of a day at the same time.
const PARTITION_LOCK: i64 = 0x6567_7273_7061_7274;

/// Ships one store.
pub(in crate::audit) struct Shipper {
    url: String,
    local: SqlitePool,
    shared: Arc<Shared>,
    /// The chain and the size of the last checkpoint that is known to be there.
    signed: Option<(String, i64)>,
    /// What was read while the server took what comes before it.
    ahead: Option<Ahead>,
}

/// A batch of a chain, of the records after a place.
struct Ahead {
    chain: String,
    after: i64,
    batch: Batch,
}

impl Shipper {
    pub fn new(url: String, local: SqlitePool, shared: Arc<Shared>) -> Self {
        Self {
            url,
            local,
            shared,
            signed: None,
            ahead: None,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut connection = None;
        loop {
            let shipped = match self.step(&mut connection).await {
                Ok(shipped) => shipped,
                Err(error) => {
                    connection = None;
                    let text = error.to_string();
                    if pause == FIRST_PAUSE {
                        tracing::warn!(%error, "audit records are not shipped; they are kept here and shipped later");
                    }
                    self.shared.shipping.send_replace(Some(text));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            self.shared
                .shipping
                .send_if_modified(|error| error.take().is_some());
            if shipped < BATCH as usize {
                let mut progress = self.shared.progress.subscribe();
                progress.mark_unchanged();
                // Whether it changed or time is up, it is looked.
                let _ = tokio::time::timeout(IDLE, progress.changed()).await;
            }
        }
    }

    /// Ships one batch; how many records that were.
    async fn step(&mut self, connection: &mut Option<PgConnection>) -> Result<usize, ShipError> {
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.url).await?),
        };
        let (node, chain, head): (String, String, i64) =
            sqlx::query_as("SELECT node, chain_id, sequence FROM head")
                .fetch_one(&self.local)
                .await?;
        let mut transaction = connection.begin().await?;
        sqlx::query(
            "INSERT INTO audit_shipped (node, chain, sequence) VALUES ($1, $2::uuid, 0) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&node)
        .bind(&chain)
        .execute(&mut *transaction)
        .await?;
        let there: i64 = sqlx::query_scalar(
            "SELECT sequence FROM audit_shipped WHERE node = $1 AND chain = $2::uuid FOR UPDATE",
        )
        .bind(&node)
        .bind(&chain)
        .fetch_one(&mut *transaction)
        .await?;
        self.shared.shipped.store(there, Ordering::Release);
        if there > head {
            return Err(ShipError::Ahead {
                chain,
                there,
                here: head,
            });
        }
        let signed: i64 = sqlx::query_scalar("SELECT coalesce(max(size), 0) FROM checkpoints")
            .fetch_one(&self.local)
            .await?;
        let signed = Some((chain.clone(), signed));
        if there == head {
            // A checkpoint is signed when nothing has come for a while, too.
            if self.signed == signed {
                transaction.rollback().await?;
            } else {
                self.ship_checkpoints(&mut transaction, &node, &chain, there)
                    .await?;
                transaction.commit().await?;
                self.signed = signed;
            }
            return Ok(0);
        }
        let ahead = self.ahead.take();
        let batch = match ahead.filter(|it| it.after == there && it.chain == chain) {
            Some(ahead) if ahead.batch.last.is_some() => ahead.batch,
            // Nothing was there yet, or PostgreSQL says that it comes from elsewhere.
            Some(_) | None => self.read(&node, &chain, there).await?,
        };
        let Some(last) = batch.last else {
            transaction.rollback().await?;
            return Ok(0);
        };
        for day in &batch.days {
            make_partition(&mut transaction, *day).await?;
        }
        let statement = format!("COPY audit_records (node, chain, {COLUMNS}) FROM STDIN");
        let take = async {
            let mut copy = transaction.copy_in_raw(&statement).await?;
            copy.send(batch.text.into_bytes()).await?;
            copy.finish().await?;
            Ok::<_, ShipError>(())
        };
        // The server works on this one meanwhile, so the next costs no time.
        let (taken, next) = tokio::join!(take, self.read(&node, &chain, last));
        taken?;
        self.ahead = Some(Ahead {
            chain: chain.clone(),
            after: last,
            batch: next?,
        });
        self.ship_checkpoints(&mut transaction, &node, &chain, last)
            .await?;
        sqlx::query("UPDATE audit_shipped SET sequence = $3 WHERE node = $1 AND chain = $2::uuid")
            .bind(&node)
            .bind(&chain)
            .bind(last)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.shared.shipped.store(last, Ordering::Release);
        Ok(batch.records)
    }

    async fn read(&self, node: &str, chain: &str, after: i64) -> Result<Batch, ShipError> {
        let mut batch = Batch::default();
        let mut connection = self.local.acquire().await?;
        let mut entries = Entries::between(after + 1, after + BATCH);
        while let Some(part) = entries.next(&mut connection).await? {
            for entry in part.entries()? {
                batch.push(node, chain, &entry)?;
            }
        }
        Ok(batch)
    }

    async fn ship_checkpoints(
        &self,
        connection: &mut PgConnection,
        node: &str,
        chain: &str,
        last: i64,
    ) -> Result<(), ShipError> {
        // Those of earlier places may have been signed after they were shipped.
        let notes = sqlx::query(
            "SELECT size, note FROM checkpoints WHERE size <= ? ORDER BY size DESC LIMIT 16",
        )
        .bind(last)
        .fetch_all(&self.local)
        .await?;
        for row in &notes {
            sqlx::query(
                "INSERT INTO audit_checkpoints (node, chain, size, note) VALUES ($1, $2::uuid, $3, $4) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(node)
            .bind(chain)
            .bind(row.try_get::<i64, _>("size")?)
            .bind(row.try_get::<&str, _>("note")?)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

/// Makes the partition of a day.
async fn make_partition(connection: &mut PgConnection, day: Date) -> Result<(), ShipError> {
    let name = format!("audit_records_{}", day.strftime("%Y%m%d"));
    let known: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
        .bind(&name)
        .fetch_one(&mut *connection)
        .await?;
    if known.is_some() {
        return Ok(());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(PARTITION_LOCK)
        .execute(&mut *connection)
        .await?;
    let next = day.tomorrow().unwrap_or(day);
    // Nothing in it but digits of dates.
    let statement = format!(
        "CREATE TABLE IF NOT EXISTS {name} PARTITION OF audit_records \
         FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"
    );
    sqlx::query(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}
