//! From the store to the collector.

use super::format::{Facility, message};
use super::transport::{Connection, Receiver, Transport};
use crate::audit::{Order, Query, Reader, StoredRecord};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Records that are sent at once.
const BATCH: u32 = 500;
/// How often a feeder looks for what is new.
const LOOK: Duration = Duration::from_millis(250);
/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Reads the store and sends what was stored since.
#[derive(Debug)]
pub struct Feed {
    receiver: Receiver,
    facility: Facility,
    place: PathBuf,
    /// The last record that was sent.
    after: i64,
    /// The batch before it, for a collector that closed while it was under way.
    last: Vec<String>,
}

/// What somebody should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The collector takes nothing; everything waits in the store.
    Waiting(String),
    /// It takes messages again.
    Resumed,
    /// So many records were gone from the store before they could be sent.
    Lost(u64),
}

impl Feed {
    /// A feeder that goes on behind the last record it sent, as `place` has it;
    /// without that file, behind what is stored now.
    pub async fn resume(
        receiver: Receiver,
        facility: Facility,
        place: &Path,
        reader: &Reader,
    ) -> Result<Self, crate::audit::AuditError> {
        let known = std::fs::read_to_string(place)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let end = reader.last_sequence().await?;
        Ok(Self {
            receiver,
            facility,
            place: place.to_owned(),
            // A store that was begun anew counts from 1 again.
            after: known.filter(|known| *known <= end).unwrap_or(end),
            last: Vec::new(),
        })
    }

    /// Feeds until the reader or the task ends. Nothing else waits for it.
    pub async fn run(mut self, reader: Reader, tell: impl Fn(Told) + Send) {
        let mut pause = FIRST_PAUSE;
        let mut connection: Option<Connection> = None;
        let mut waiting = false;
        loop {
            let records = match self.next(&reader).await {
                Ok(records) if records.is_empty() => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Ok(records) => records,
                Err(error) => {
                    tracing::warn!(%error, "the syslog feed cannot read the audit store");
                    tokio::time::sleep(LONGEST_PAUSE).await;
                    continue;
                }
            };
            match self.send(&mut connection, &records).await {
                Ok(lost) => {
                    if lost > 0 {
                        tell(Told::Lost(lost));
                    }
                    if waiting {
                        tell(Told::Resumed);
                    }
                    (pause, waiting) = (FIRST_PAUSE, false);
                }
                Err(problem) => {
                    connection = None;
                    if !waiting {
                        tell(Told::Waiting(problem));
                    }
                    waiting = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn next(
        &mut self,
        reader: &Reader,
    ) -> Result<Vec<StoredRecord>, crate::audit::AuditError> {
        // A damaged file was set aside, and another begun: it counts from 1.
        if reader.last_sequence().await? < self.after {
            self.after = 0;
        }
        reader
            .query(&Query {
                after: Some(self.after),
                order: Order::Stored,
                limit: Some(BATCH),
                ..Query::default()
            })
            .await
    }

    /// Sends a batch and notes it; returns how many records before or between
    /// were gone.
    async fn send(
        &mut self,
        connection: &mut Option<Connection>,
        records: &[StoredRecord],
    ) -> Result<u64, String> {
        let messages: Vec<String> = records
            .iter()
            .map(|record| message(record, self.facility))
            .collect();
        let open = match connection {
            Some(open) => open,
            none => {
                let mut made = self
                    .receiver
                    .connect()
                    .await
                    .map_err(|error| error.to_string())?;
                // What was under way when the last connection broke may not
                // have arrived: it comes twice rather than not at all.
                if self.receiver.transport != Transport::Udp {
                    made.send(&self.last)
                        .await
                        .map_err(|error| error.to_string())?;
                }
                none.insert(made)
            }
        };
        open.send(&messages)
            .await
            .map_err(|error| error.to_string())?;
        let mut lost = 0;
        for record in records {
            let gap = record.sequence.saturating_sub(self.after).saturating_sub(1);
            lost += u64::try_from(gap).unwrap_or(0);
            self.after = record.sequence;
        }
        self.last = messages;
        let temporary = self.place.with_extension("new");
        let noted = std::fs::write(&temporary, self.after.to_string())
            .and_then(|()| std::fs::rename(&temporary, &self.place));
        if let Err(error) = noted {
            tracing::warn!(%error, "after a restart records would be sent again");
        }
        Ok(lost)
    }
}
