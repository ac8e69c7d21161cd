//! Answers too long to hold: in parts, in order.

use crate::audit::{AuditError, Order, Query, Reader, StoredRecord};
use tokio::sync::mpsc;

/// Records per part: enough that a statement costs little beside its rows, and
/// few enough to be held several times.
const PART: u32 = 4_096;

/// Parts that wait while the receiver works.
const AHEAD: usize = 2;

impl Reader {
    /// Reads the answer in parts, the next ones while the caller works on one.
    ///
    /// Each part is a statement of its own: an export that takes minutes never
    /// keeps the writer's log from being folded into the file. What is stored
    /// meanwhile behind the place that was reached is part of the answer.
    pub fn parts(&self, query: Query) -> mpsc::Receiver<Result<Vec<StoredRecord>, AuditError>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reader = self.clone();
        tokio::spawn(async move { reader.send_parts(query, &sender).await });
        receiver
    }

    async fn send_parts(
        &self,
        mut query: Query,
        to: &mpsc::Sender<Result<Vec<StoredRecord>, AuditError>>,
    ) {
        let mut left = query.limit.map(u64::from);
        loop {
            let wanted = left.map_or(PART, |left| u32::try_from(left).unwrap_or(PART).min(PART));
            if wanted == 0 {
                return;
            }
            query.limit = Some(wanted);
            let part = self.query(&query).await;
            let read = part.as_ref().map_or(0, Vec::len);
            if let Ok(records) = &part
                && let Some(last) = records.last()
            {
                match query.order {
                    Order::Stored => query.after = Some(last.sequence),
                    Order::NewestFirst | Order::OldestFirst => {
                        query.beyond = Some((last.time.as_microsecond(), last.sequence));
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
}
