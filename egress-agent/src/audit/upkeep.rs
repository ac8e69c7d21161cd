//! What the writer does beside writing: checkpoints, keys, retention.

use crate::audit::checkpoint::{Checkpoint, origin};
use crate::audit::key::KeyFiles;
use crate::audit::note::PublicKey;
use crate::audit::retention::Retention;
use crate::audit::seal::Head;
use crate::audit::{AuditError, retention, row};
use crate::model::{Record, RecordKind};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use sqlx::SqliteConnection;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the writer looks whether something is due.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Begins the record of a key that took over.
const ROTATION: &str = "key rotation: ";

/// When a node signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointRule {
    /// After so many records.
    pub records: u64,
    /// And as long after the last one, if there are new records.
    pub interval: Duration,
}

impl Default for CheckpointRule {
    /// 65,536 records, 60 seconds.
    fn default() -> Self {
        Self {
            records: 65_536,
            interval: Duration::from_secs(60),
        }
    }
}

/// The state of what has to be done from time to time.
pub(super) struct Upkeep {
    files: KeyFiles,
    pair: Ed25519KeyPair,
    rule: CheckpointRule,
    retention: Retention,
    /// The size of the last checkpoint.
    signed: u64,
    signed_at: Instant,
    retained_at: Option<Instant>,
    /// The last note, for who sends checkpoints elsewhere.
    notes: watch::Sender<Option<String>>,
}

impl Upkeep {
    /// Reads the key, or makes one.
    pub fn open(
        files: KeyFiles,
        rule: CheckpointRule,
        retention: Retention,
        head: &Head,
        signed: u64,
    ) -> Result<Self, AuditError> {
        let pair = files.current()?;
        // What an earlier agent signed may have reached nobody.
        let last = files.last_note(&origin(&head.node, &head.chain_id));
        let upkeep = Self {
            files,
            pair,
            rule,
            retention,
            signed,
            signed_at: Instant::now(),
            retained_at: None,
            notes: watch::channel(last).0,
        };
        if let Some(key) = upkeep.public(head) {
            upkeep.files.publish(&key)?;
        }
        Ok(upkeep)
    }

    /// A new chain has begun in the place of the old one.
    pub fn begin_anew(&mut self, head: &Head) {
        self.signed = 0;
        if let Some(key) = self.public(head)
            && let Err(error) = self.files.publish(&key)
        {
            tracing::warn!(%error, "the public key is not noted beside the store");
        }
    }

    /// The last checkpoint, as it comes.
    pub fn notes(&self) -> watch::Receiver<Option<String>> {
        self.notes.subscribe()
    }

    fn public(&self, head: &Head) -> Option<PublicKey> {
        PublicKey::of(&origin(&head.node, &head.chain_id), &self.pair)
    }

    /// Signs if it is time, or if it is the last time.
    pub async fn sign(
        &mut self,
        connection: &mut SqliteConnection,
        head: &Head,
        last: bool,
    ) -> Result<(), sqlx::Error> {
        let size = head.frontier.size();
        let new = size - self.signed.min(size);
        let due = new >= self.rule.records || self.signed_at.elapsed() >= self.rule.interval;
        if new == 0 || !(due || last) {
            return Ok(());
        }
        self.sign_with(connection, head, None).await
    }

    async fn sign_with(
        &mut self,
        connection: &mut SqliteConnection,
        head: &Head,
        other: Option<&Ed25519KeyPair>,
    ) -> Result<(), sqlx::Error> {
        let checkpoint = Checkpoint::of(head, Timestamp::now());
        let note = match other {
            Some(other) => checkpoint.sign(&[&self.pair, other]),
            None => checkpoint.sign(&[&self.pair]),
        };
        row::keep_checkpoint(connection, &checkpoint, &note, &head.frontier).await?;
        self.signed = checkpoint.size;
        self.signed_at = Instant::now();
        if let Err(error) = self.files.keep_checkpoint(&note) {
            tracing::warn!(%error, "the checkpoint stands in the store only");
        }
        self.notes.send_replace(Some(note));
        Ok(())
    }

    /// The record of a key that waits to take over, signed by the one that goes.
    pub fn rotation(&self, head: &Head) -> Result<Option<Record>, AuditError> {
        let Some(next) = self.files.next()? else {
            return Ok(None);
        };
        let (Some(old), Some(new)) = (
            self.public(head),
            PublicKey::of(&origin(&head.node, &head.chain_id), &next),
        ) else {
            return Ok(None);
        };
        let signature = self.pair.sign(rotation_text(&new).as_bytes());
        let mut record = Record::new(Timestamp::now(), RecordKind::Evidence);
        record.actor = Some(old.to_string());
        record.digest = Some(BASE64.encode(signature.as_ref()));
        record.detail = Some(format!("{ROTATION}{new}"));
        Ok(Some(record))
    }

    /// Carries the rotation out, once its record is written: both keys sign, and
    /// from then on the new one.
    pub async fn rotate(
        &mut self,
        connection: &mut SqliteConnection,
        head: &Head,
    ) -> Result<(), RotationError> {
        let Some(next) = self.files.next()? else {
            return Ok(());
        };
        self.sign_with(connection, head, Some(&next)).await?;
        if let Some(old) = self.public(head) {
            self.files.rotate(&old)?;
        }
        self.pair = next;
        if let Some(new) = self.public(head) {
            self.files.publish(&new)?;
        }
        Ok(())
    }

    /// What retention is about to take: looked at each hour.
    pub async fn retention(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<retention::Taking>, sqlx::Error> {
        const EVERY: Duration = Duration::from_secs(3600);
        if self.retained_at.is_some_and(|last| last.elapsed() < EVERY) {
            return Ok(Vec::new());
        }
        let takings = self.retention.due(connection, Timestamp::now()).await?;
        self.retained_at = Some(Instant::now());
        Ok(takings)
    }
}

/// Why a rotation was not finished; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RotationError {
    #[error(transparent)]
    Files(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What the old key signs about the new one.
fn rotation_text(new: &PublicKey) -> String {
    format!("egress key rotation v1\n{new}\n")
}

/// The key that a record says took over, if a trusted key signed that.
pub(super) fn successor(detail: &str, signature: &str, trusted: &[PublicKey]) -> Option<PublicKey> {
    let new: PublicKey = detail.strip_prefix(ROTATION)?.parse().ok()?;
    let signature = BASE64.decode(signature).ok()?;
    let text = rotation_text(&new);
    trusted
        .iter()
        .any(|key| key.has_signed(&text, &signature))
        .then_some(new)
}
