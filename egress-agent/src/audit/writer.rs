//! The one task that writes.

use crate::audit::key::KeyFiles;
use crate::audit::open::{self, Aside, OwnFile};
use crate::audit::recorder::{Lost, Shared};
use crate::audit::retention::{self, Taking};
use crate::audit::seal::{Head, seal};
use crate::audit::tally::{self, Left};
use crate::audit::upkeep::{RotationError, TICK, Upkeep};
use crate::audit::{AuditError, Options, row};
use crate::model::{Record, RecordKind};
use jiff::Timestamp;
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval};

/// The first pause after a failed attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Steps of retention in a row while nobody records anything.
const IDLE_STEPS: usize = 16;

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
    upkeep: Upkeep,
    tick: Interval,
    /// Records of the writer's own, for the next batch.
    own: Vec<Record>,
    /// What retention takes; its announcement is written, or in `own`.
    takings: Vec<Taking>,
    /// Whether the record of a new key is written, or in `own`.
    rotating: bool,
    looked: Instant,
    probed: Instant,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the audit file was removed or replaced while the agent runs; restart the agent")]
    Replaced,
    #[error(transparent)]
    Open(#[from] AuditError),
    #[error("a record cannot be written as JSON: {0}")]
    Seal(#[from] serde_json::Error),
    #[error("the task that prepares records ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("{0}; check the free space and the health of the disk")]
    Database(#[from] sqlx::Error),
}

impl From<RotationError> for WriteError {
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::Files(error) => Self::Open(error),
            RotationError::Database(error) => Self::Database(error),
        }
    }
}

impl Writer {
    pub async fn new(
        file: OwnFile,
        aside: Option<Aside>,
        receiver: mpsc::Receiver<Record>,
        shared: Arc<Shared>,
        options: Options,
    ) -> Result<Self, AuditError> {
        let files = KeyFiles::beside(&file.path);
        let mut own = Vec::new();
        own.extend(aside.map(|aside| succession(&aside, &files)));
        let (head, signed) = file.head(&options.node).await?;
        let upkeep = Upkeep::open(
            files,
            options.checkpoints,
            options.retention.clone(),
            &head,
            signed,
        )?;
        let gap = gap(tally::left(&file.path, &head.chain_id), head.settled);
        let total = head.settled + gap.as_ref().map_or(0, |record| record.count);
        own.extend(gap);
        shared.tally.begin(&file.path, &head.chain_id, total);
        Ok(Self {
            file,
            receiver,
            shared,
            options,
            head,
            connection: None,
            upkeep,
            tick: tokio::time::interval(TICK),
            own,
            takings: Vec::new(),
            rotating: false,
            looked: Instant::now(),
            probed: Instant::now(),
        })
    }

    /// The node's name, as the chain has it.
    pub fn node(&self) -> &str {
        &self.head.node
    }

    /// The last checkpoint, as it comes.
    pub fn notes(&self) -> watch::Receiver<Option<String>> {
        self.upkeep.notes()
    }

    /// Runs until the store is closed, or all recorders are gone and all is written.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.options.batch);
        loop {
            let more = self.collect(&mut batch).await;
            let settled = batch.len();
            let lost = self.shared.take_lost();
            batch.extend(lost.as_ref().map(Lost::record));
            // First: the chain of a new file begins with what it says of the old one.
            batch.splice(0..0, self.own.drain(..));
            if !batch.is_empty() {
                let written = batch.len();
                batch = self.write_until_done(batch).await;
                batch.clear();
                self.report(settled, lost, written);
            } else if !more {
                break;
            }
            self.look_after(false).await;
        }
        self.look_after(true).await;
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            // The log beside the file holds what this could not fold into it.
            tracing::warn!(%error, "the audit file was not closed cleanly");
        }
    }

    /// Waits for records, a loss, the next tick or the end, and collects a batch.
    /// Returns whether there can be more.
    async fn collect(&mut self, batch: &mut Vec<Record>) -> bool {
        if self.shared.is_closing() {
            self.receiver.close();
        }
        let size = self.options.batch.max(1);
        tokio::select! {
            biased;
            received = self.receiver.recv_many(batch, size) => {
                if received == 0 {
                    return false;
                }
            }
            () = self.shared.wake.notified() => return true,
            _ = self.tick.tick() => return true,
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
        let mut batch = Arc::new(batch);
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.write(&batch).await {
            // Closed below: SQLite would fold its log into a damaged file that is
            // not set aside yet.
            let broken = self.connection.take();
            let text = error.to_string();
            if pause == FIRST_PAUSE {
                tracing::error!(%error, "audit records cannot be written; trying again");
            }
            self.shared
                .progress
                .send_modify(|progress| progress.error = Some(text));
            if is_damage(&error) {
                let succession = self.begin_anew().await;
                Arc::make_mut(&mut batch).splice(0..0, succession);
            }
            drop(broken);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if pause != FIRST_PAUSE {
            tracing::info!("audit records are written again");
        }
        Arc::into_inner(batch).unwrap_or_default()
    }

    /// The file is damaged: it is set aside, and the chain of a new one begins with
    /// the record that this returns.
    async fn begin_anew(&mut self) -> Option<Record> {
        let under_way = self.shared.tally.total().saturating_sub(self.head.settled);
        match self.replace_file().await {
            Ok((aside, head)) => {
                let path = &self.file.path;
                self.shared.tally.begin(path, &head.chain_id, under_way);
                self.upkeep.begin_anew(&head);
                self.takings.clear();
                self.head = head;
                Some(succession(&aside, &KeyFiles::beside(path)))
            }
            Err(error) => {
                tracing::error!(%error, "the damaged audit file cannot be replaced");
                None
            }
        }
    }

    async fn replace_file(&mut self) -> Result<(Aside, Head), AuditError> {
        let aside = self.file.begin_anew(&self.options).await?;
        let (head, _) = self.file.head(&self.options.node).await?;
        Ok((aside, head))
    }

    async fn connection(&mut self) -> Result<&mut SqliteConnection, WriteError> {
        if !self.file.is_in_place() {
            return Err(WriteError::Replaced);
        }
        Ok(match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.file.connect().await?),
        })
    }

    async fn write(&mut self, batch: &Arc<Vec<Record>>) -> Result<(), WriteError> {
        let (before, records) = (self.head.clone(), Arc::clone(batch));
        let hider = self.options.hider.clone();
        // Hashing thousands of records would hold up whoever shares the thread.
        let sealing = tokio::task::spawn_blocking(move || seal(&before, &records, hider.as_ref()));
        let (sealed, mut head) = sealing.await??;
        head.settled += decisions(batch);
        // Immediate: a transaction that has to upgrade its lock can fail at once
        // instead of waiting its turn.
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        row::insert(&mut transaction, &sealed).await?;
        row::advance(&mut transaction, &head).await?;
        transaction.commit().await?;
        self.head = head;
        Ok(())
    }

    /// Does what is due beside writing. What fails is tried again at the next tick.
    async fn look_after(&mut self, last: bool) {
        if let Err(error) = self.try_look_after(last).await {
            tracing::warn!(%error, "checkpoints, keys or retention of the audit store have to wait");
            self.connection = None;
        }
    }

    async fn try_look_after(&mut self, last: bool) -> Result<(), WriteError> {
        let tick = self.looked.elapsed() >= TICK;
        if tick {
            self.looked = Instant::now();
        }
        if tick && self.probed.elapsed() >= self.options.probe {
            self.probed = Instant::now();
            self.probe().await?;
        }
        let head = self.head.clone();
        self.connection().await?;
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        if self.rotating {
            self.upkeep.rotate(connection, &head).await?;
            self.rotating = false;
        } else if tick && let Some(record) = self.upkeep.rotation(&head)? {
            self.own.push(record);
            self.rotating = true;
        }
        self.upkeep.sign(connection, &head, last).await?;
        if last {
            return Ok(());
        }
        if self.takings.is_empty() {
            self.takings = self.upkeep.retention(connection).await?;
            let now = Timestamp::now();
            let announcements = self.takings.iter().map(|taking| taking.announcement(now));
            self.own.extend(announcements);
            return Ok(());
        }
        let shipped = self.shared.shipped.load(Ordering::Acquire);
        for _ in 0..IDLE_STEPS {
            let Some(taking) = self.takings.last() else {
                break;
            };
            if retention::take(connection, taking, shipped).await? == 0 {
                self.takings.pop();
            }
            if !self.receiver.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Looks at the file; a damaged one is set aside.
    async fn probe(&mut self) -> Result<(), WriteError> {
        let Err(error) = self.file.probe().await.map_err(WriteError::from) else {
            return Ok(());
        };
        if !is_damage(&error) || !self.file.is_in_place() {
            return Err(error);
        }
        tracing::error!(%error, "the damaged audit file is set aside, and a new one begun");
        let broken = self.connection.take();
        let succession = self.begin_anew().await;
        self.own.splice(0..0, succession);
        drop(broken);
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

/// How many decisions records stand for; what the writer says of itself is none.
fn decisions(records: &[Record]) -> u64 {
    records
        .iter()
        .filter(|record| record.kind != RecordKind::Evidence)
        .map(|record| record.count.max(1))
        .sum()
}

fn is_damage(error: &WriteError) -> bool {
    match error {
        WriteError::Open(AuditError::Database { source, .. }) | WriteError::Database(source) => {
            open::is_damage_of_own(source)
        }
        WriteError::Open(error) => open::is_damage(error),
        WriteError::Replaced | WriteError::Seal(_) | WriteError::Task(_) => false,
    }
}

/// The first record after a file that was set aside.
fn succession(aside: &Aside, files: &KeyFiles) -> Record {
    let mut record = Record::new(Timestamp::now(), RecordKind::Evidence);
    let place = aside.path.display();
    record.detail = Some(match files.last_checkpoint() {
        Some(known) => {
            record.digest = Some(known.chain.to_string());
            format!(
                "the audit file was damaged and lies at {place}; this chain follows chain {}, whose last \
                 known checkpoint is over {} records and ends in the hash {}",
                known.chain_id, known.size, known.chain
            )
        }
        None => format!(
            "the audit file was damaged and lies at {place}; this chain follows it, and nothing is known of its hashes"
        ),
    });
    record.actor = Some("audit".to_owned());
    record
}

/// The record of what an earlier process had decided and could not write any more.
fn gap(left: Left, settled: u64) -> Option<Record> {
    let (count, how) = match left {
        Left::Nothing => return None,
        Left::Exactly(total) => (total.saturating_sub(settled), "exactly"),
        Left::AtLeast(total) => (total.saturating_sub(settled), "at least"),
    };
    if count == 0 {
        return None;
    }
    let mut record = Record::new(Timestamp::now(), RecordKind::Loss);
    record.count = count;
    record.detail = Some(format!(
        "an earlier agent ended before {how} {count} decisions of its were written"
    ));
    Some(record)
}
