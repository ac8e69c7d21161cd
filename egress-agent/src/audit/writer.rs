//! The one task that writes.

use crate::audit::open::OwnFile;
use crate::audit::recorder::{Lost, Shared};
use crate::audit::seal::{Head, seal};
use crate::audit::{Options, row};
use crate::model::Record;
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The first pause after a failed attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Takes records from the queue and writes them, in order, in transactions.
///
/// A failed transaction is tried again until it succeeds: the queue absorbs what
/// comes meanwhile, and beyond that the recorders count.
pub(super) struct Writer {
    file: OwnFile,
    receiver: mpsc::Receiver<Record>,
    shared: Arc<Shared>,
    options: Options,
    /// Where the chain ends in the file.
    head: Head,
    /// Made anew after every failure: what a failed transaction left behind in
    /// it is nobody's business any more.
    connection: Option<SqliteConnection>,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the audit file was removed or replaced while the agent runs; restart the agent")]
    Replaced,
    #[error(transparent)]
    Open(#[from] crate::audit::AuditError),
    #[error("a record cannot be written as JSON: {0}")]
    Seal(#[from] serde_json::Error),
    #[error("the task that prepares records ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("{0}; check the free space and the health of the disk")]
    Database(#[from] sqlx::Error),
}

impl Writer {
    pub fn new(
        file: OwnFile,
        head: Head,
        receiver: mpsc::Receiver<Record>,
        shared: Arc<Shared>,
        options: Options,
    ) -> Self {
        Self {
            file,
            head,
            receiver,
            shared,
            options,
            connection: None,
        }
    }

    /// Runs until the store is closed, or all recorders are gone and all is written.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.options.batch);
        loop {
            let more = self.collect(&mut batch).await;
            let settled = batch.len();
            let lost = self.shared.take_lost();
            batch.extend(lost.as_ref().map(Lost::record));
            if !batch.is_empty() {
                let written = batch.len();
                batch = self.write_until_done(batch).await;
                batch.clear();
                self.report(settled, lost, written);
            } else if !more {
                break;
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            // The log beside the file holds what this could not fold into it.
            tracing::warn!(%error, "the audit file was not closed cleanly");
        }
    }

    /// Waits for records, a loss or the end, and collects a batch. Returns
    /// whether there can be more.
    async fn collect(&mut self, batch: &mut Vec<Record>) -> bool {
        if self.shared.is_closing() {
            self.receiver.close();
        }
        let size = self.options.batch.max(1);
        tokio::select! {
            received = self.receiver.recv_many(batch, size) => {
                if received == 0 {
                    return false;
                }
            }
            () = self.shared.wake.notified() => return true,
        }
        let until = Instant::now() + self.options.linger;
        while batch.len() < size {
            let room = size - batch.len();
            let received = self.receiver.recv_many(batch, room);
            match tokio::time::timeout_at(until, received).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        true
    }

    /// Gives the batch back, so that its memory is used again.
    async fn write_until_done(&mut self, batch: Vec<Record>) -> Vec<Record> {
        let batch = Arc::new(batch);
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.write(&batch).await {
            self.connection = None;
            let text = error.to_string();
            if pause == FIRST_PAUSE {
                tracing::error!(%error, "audit records cannot be written; trying again");
            }
            self.shared
                .progress
                .send_modify(|progress| progress.error = Some(text));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if pause != FIRST_PAUSE {
            tracing::info!("audit records are written again");
        }
        Arc::into_inner(batch).unwrap_or_default()
    }

    async fn write(&mut self, batch: &Arc<Vec<Record>>) -> Result<(), WriteError> {
        if !self.file.is_in_place() {
            return Err(WriteError::Replaced);
        }
        let (before, records) = (self.head.clone(), Arc::clone(batch));
        let hider = self.options.hider.clone();
        // Hashing thousands of records would hold up whoever shares the thread.
        let sealing = tokio::task::spawn_blocking(move || seal(&before, &records, hider.as_ref()));
        let (sealed, mut head) = sealing.await??;
        head.settled += batch.iter().map(|record| record.count.max(1)).sum::<u64>();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.file.connect().await?),
        };
        // Immediate: a transaction that has to upgrade its lock can fail at once
        // instead of waiting its turn.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        row::insert(&mut transaction, &sealed).await?;
        row::advance(&mut transaction, &head).await?;
        transaction.commit().await?;
        self.head = head;
        Ok(())
    }

    fn report(&self, settled: usize, lost: Option<Lost>, written: usize) {
        self.shared.progress.send_modify(|progress| {
            progress.settled += settled as u64;
            progress.told += lost.map_or(0, |lost| lost.records);
            progress.written += written as u64;
            progress.error = None;
        });
    }
}
