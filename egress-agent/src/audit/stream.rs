//! Answers too long to hold: in parts, in order.

use crate::audit::row::{self, SELECT};
use crate::audit::{AuditError, Linked, Order, Query, Reader, StoredRecord, open};
use sqlx::sqlite::SqliteRow;
use tokio::sync::mpsc;

/// Records per part: enough that a statement costs little beside its rows, and
/// few enough to be held several times.
const PART: u32 = 4_096;

/// Parts that wait while the receiver works.
const AHEAD: usize = 2;

/// What a long answer is made of.
pub(super) trait Part: Sized + Send + 'static {
    /// The beginning of the statement, up to its table.
    fn select() -> String;
    /// One of its rows.
    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error>;
    /// Time in microseconds since 1970, and sequence number.
    fn place(&self) -> (i64, i64);
}

impl Part for StoredRecord {
    fn select() -> String {
        SELECT.to_owned()
    }

    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        row::read(row)
    }

    fn place(&self) -> (i64, i64) {
        (self.time.as_microsecond(), self.sequence)
    }
}

/// The parts of an answer, as they are read.
pub type Parts<T> = mpsc::Receiver<Result<Vec<T>, AuditError>>;

impl Reader {
    /// Reads the answer in parts, the next ones while the caller works on one.
    ///
    /// Each part is a statement of its own: an export that takes minutes never
    /// keeps the writer's log from being folded into the file. What is stored
    /// meanwhile behind the place that was reached is part of the answer.
    pub fn parts(&self, query: Query) -> Parts<StoredRecord> {
        self.parts_of(query)
    }

    /// The same with what links each record to the one before.
    pub fn linked_parts(&self, query: Query) -> Parts<Linked> {
        self.parts_of(query)
    }

    fn parts_of<T: Part>(&self, query: Query) -> Parts<T> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reader = self.clone();
        tokio::spawn(async move { reader.send_parts(query, &sender).await });
        receiver
    }

    async fn send_parts<T: Part>(
        &self,
        mut query: Query,
        to: &mpsc::Sender<Result<Vec<T>, AuditError>>,
    ) {
        let mut left = query.limit.map(u64::from);
        loop {
            let wanted = left.map_or(PART, |left| u32::try_from(left).unwrap_or(PART).min(PART));
            if wanted == 0 {
                return;
            }
            query.limit = Some(wanted);
            let part = self.read_part(&query).await;
            let read = part.as_ref().map_or(0, Vec::len);
            if let Ok(records) = &part
                && let Some((time, sequence)) = records.last().map(T::place)
            {
                match query.order {
                    Order::Stored => query.after = Some(sequence),
                    Order::NewestFirst | Order::OldestFirst => {
                        query.beyond = Some((time, sequence));
                    }
                }
            }
            left = left.map(|left| left.saturating_sub(read as u64));
            let whole = read == wanted as usize;
            // A receiver that is gone wants no more.
            if (read > 0 || part.is_err()) && to.send(part).await.is_err() || !whole {
                return;
            }
        }
    }

    async fn read_part<T: Part>(&self, query: &Query) -> Result<Vec<T>, AuditError> {
        let mut statement = query.statement(T::select());
        let rows = statement.build().fetch_all(self.pool());
        rows.await
            .and_then(|rows| rows.iter().map(T::read).collect())
            .map_err(|source| open::database(self.path(), source))
    }
}
