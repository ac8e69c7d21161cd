//! The one task that writes.

use crate::audit::fold::Folding;
use crate::audit::intake::{Batch, Intake, SealError};
use crate::audit::key::KeyFiles;
use crate::audit::open::{self, Aside, OwnFile};
use crate::audit::recorder::Shared;
use crate::audit::retention::{self, Taking};
use crate::audit::seal::{Head, Links};
use crate::audit::tally::{Left, Places};
use crate::audit::upkeep::{RotationError, TICK, Upkeep};
use crate::audit::{AuditError, Options, row, subject};
use crate::model::{Record, RecordKind};
use jiff::Timestamp;
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

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
    intake: Intake,
    outlet: Outlet,
}

/// The side of the file.
struct Outlet {
    file: OwnFile,
    shared: Arc<Shared>,
    options: Options,
    /// Where the chain ends in the file.
    head: Head,
    /// Made anew after every failure: what a failed transaction left behind in
    /// it is nobody's business any more.
    connection: Option<SqliteConnection>,
    upkeep: Upkeep,
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
    #[error(transparent)]
    Seal(#[from] SealError),
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
        let places = Places::of(&file.path, options.decisions.as_deref());
        let gap = gap(places.left(&head.chain_id), head.settled);
        let total = head.settled + gap.as_ref().map_or(0, |record| record.count);
        own.extend(gap);
        shared.tally.begin(&places, &head.chain_id, total);
        let intake = Intake::new(
            receiver,
            Arc::clone(&shared),
            options.batch,
            options.linger,
            options.hider.clone(),
        );
        let outlet = Outlet {
            file,
            shared,
            options,
            head,
            connection: None,
            upkeep,
            own,
            takings: Vec::new(),
            rotating: false,
            looked: Instant::now(),
            probed: Instant::now(),
        };
        Ok(Self { intake, outlet })
    }

    /// The node's name, as the chain has it.
    pub fn node(&self) -> &str {
        &self.outlet.head.node
    }

    /// The last checkpoint, as it comes.
    pub fn notes(&self) -> watch::Receiver<Option<String>> {
        self.outlet.upkeep.notes()
    }

    /// Runs until the store is closed, or all recorders are gone and all is written.
    pub async fn run(self) {
        let Self {
            mut intake,
            mut outlet,
        } = self;
        let mut ahead = None;
        let mut folding = outlet.file.folding();
        loop {
            let mut batch = match ahead.take() {
                Some(batch) => batch,
                None => intake.next(&outlet.head).await,
            };
            // First: the chain of a new file begins with what it says of the old
            // one, and retention takes nothing before it is announced.
            batch.put_first(outlet.own.drain(..));
            if !batch.records.is_empty() {
                ahead = outlet
                    .write_until_done(batch, &mut intake, &mut folding)
                    .await;
            } else if !batch.more {
                break;
            }
            outlet.look_after(false, &intake).await;
        }
        outlet.look_after(true, &intake).await;
        folding.close().await;
        if let Some(connection) = outlet.connection.take()
            && let Err(error) = connection.close().await
        {
            // The log beside the file holds what this could not fold into it.
            tracing::warn!(%error, "the audit file was not closed cleanly");
        }
    }
}

impl Outlet {
    /// Writes a batch, however often it takes, and returns the next one if one
    /// came meanwhile.
    async fn write_until_done(
        &mut self,
        mut batch: Batch,
        intake: &mut Intake,
        folding: &mut Folding,
    ) -> Option<Batch> {
        let mut ahead = None;
        let mut pause = FIRST_PAUSE;
        folding.follow(&self.head.chain_id);
        loop {
            let sealed = intake.seal(&mut batch, &self.head).await;
            let attempt = match (sealed, batch.sealed()) {
                (Err(error), _) => self.report(&batch, Err(error.into())),
                (Ok(()), None) => Ok(()),
                (Ok(()), Some((links, after))) if ahead.is_none() => {
                    let write = self.write_and_report(&batch, (links, after));
                    let (written, next, ()) =
                        tokio::join!(write, intake.next(after), folding.fold());
                    folding.note(batch.records.len());
                    ahead = Some(next);
                    written
                }
                (Ok(()), Some(sealed)) => self.write_and_report(&batch, sealed).await,
            };
            let Err(error) = attempt else { break };
            // Closed below: SQLite would fold its log into a damaged file that is
            // not set aside yet.
            let broken = self.connection.take();
            folding.let_go();
            if pause == FIRST_PAUSE {
                tracing::error!(%error, "audit records cannot be written; trying again");
            }
            if is_damage(&error) {
                batch.put_first(self.begin_anew().await);
            }
            drop(broken);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if pause != FIRST_PAUSE {
            tracing::info!("audit records are written again");
        }
        ahead
    }

    /// The file is damaged: it is set aside, and the chain of a new one begins with
    /// the record that this returns.
    async fn begin_anew(&mut self) -> Option<Record> {
        let under_way = self.shared.tally.total().saturating_sub(self.head.settled);
        match self.replace_file().await {
            Ok((aside, head)) => {
                let path = &self.file.path;
                let places = Places::of(path, self.options.decisions.as_deref());
                self.shared.tally.begin(&places, &head.chain_id, under_way);
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

    /// Whoever waits for the outcome hears of it before the next batch is there.
    async fn write_and_report(
        &mut self,
        batch: &Batch,
        (links, after): (&Links, &Head),
    ) -> Result<(), WriteError> {
        let written = self.write(links, after).await;
        self.report(batch, written)
    }

    async fn write(&mut self, links: &Links, after: &Head) -> Result<(), WriteError> {
        // Immediate: a transaction that has to upgrade its lock can fail at once
        // instead of waiting its turn.
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        row::insert(&mut transaction, links).await?;
        row::advance(&mut transaction, after).await?;
        transaction.commit().await?;
        self.head = after.clone();
        Ok(())
    }

    /// Does what is due beside writing. What fails is tried again at the next tick.
    async fn look_after(&mut self, last: bool, intake: &Intake) {
        let shared = Arc::clone(&self.shared);
        // It may wait for the disk.
        let _ = spawn_blocking(move || shared.tally.last()).await;
        if let Err(error) = self.try_look_after(last, intake).await {
            tracing::warn!(%error, "checkpoints, keys or retention of the audit store have to wait");
            self.connection = None;
        }
    }

    async fn try_look_after(&mut self, last: bool, intake: &Intake) -> Result<(), WriteError> {
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
                if self.takings.is_empty() {
                    subject::forget_unused(connection).await?;
                }
            }
            if !intake.is_idle() {
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

    fn report(&self, batch: &Batch, written: Result<(), WriteError>) -> Result<(), WriteError> {
        self.shared.progress.send_modify(|progress| match &written {
            Ok(()) => {
                progress.settled += batch.settled as u64;
                progress.told += batch.lost.map_or(0, |lost| lost.records);
                progress.written += batch.records.len() as u64;
                progress.error = None;
            }
            Err(error) => progress.error = Some(error.to_string()),
        });
        written
    }
}

fn is_damage(error: &WriteError) -> bool {
    match error {
        WriteError::Open(AuditError::Database { source, .. }) | WriteError::Database(source) => {
            open::is_damage_of_own(source)
        }
        WriteError::Open(error) => open::is_damage(error),
        WriteError::Replaced | WriteError::Seal(_) => false,
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
