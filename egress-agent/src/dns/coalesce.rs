//! One upstream query for all who ask the same at the same time.

use super::cache::{Key, Lookup};
use super::upstream::Failure;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

type Answer = Result<Arc<Lookup>, Failure>;
type Shared = Arc<OnceCell<Answer>>;

/// Queries that are on their way.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    cells: Mutex<HashMap<Key, Shared>>,
}

impl InFlight {
    /// Runs `ask`, or waits for the one that already runs for this key. If the
    /// task that runs it is dropped, one of the waiting takes over.
    pub(super) async fn join(&self, key: &Key, ask: impl Future<Output = Answer>) -> Answer {
        let membership = Membership {
            flight: self,
            key,
            cell: self.lock().entry(key.clone()).or_default().clone(),
        };
        membership.cell.get_or_init(|| ask).await.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Shared>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the cell out of the map when it is answered, or when the last one who
/// waited has gone away.
struct Membership<'a> {
    flight: &'a InFlight,
    key: &'a Key,
    cell: Shared,
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let mut cells = self.flight.lock();
        // Two: the map's and this one's.
        let is_last = Arc::strong_count(&self.cell) <= 2;
        if (self.cell.initialized() || is_last)
            && let Some((key, cell)) = cells.remove_entry(self.key)
            && !Arc::ptr_eq(&cell, &self.cell)
        {
            cells.insert(key, cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DomainName;
    use hickory_proto::rr::RecordType;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn key() -> Key {
        Key {
            view: None,
            name: DomainName::parse("a.example").expect("a name"),
            query_type: RecordType::A,
        }
    }

    #[tokio::test]
    async fn many_askers_cause_one_query_and_nothing_stays_behind() {
        let (flight, asked) = (InFlight::default(), AtomicUsize::new(0));
        let ask = async || {
            flight
                .join(&key(), async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Err(Failure::NoUpstream)
                })
                .await
        };
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        assert!(a.is_err() && b.is_err() && c.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(flight.lock().is_empty());
    }

    #[tokio::test]
    async fn an_abandoned_query_is_taken_over_and_forgotten() {
        let flight = InFlight::default();
        let key = key();
        let never = flight.join(&key, std::future::pending());
        let short = tokio::time::timeout(Duration::from_millis(5), never).await;
        assert!(short.is_err());
        assert!(flight.lock().is_empty());
        let next = flight.join(&key, async { Err(Failure::NoUpstream) }).await;
        assert_eq!(next.err(), Some(Failure::NoUpstream));
    }
}
