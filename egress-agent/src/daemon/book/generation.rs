//! Whether what was found out a moment ago still counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that moves, under the book's lock, before the book changes its mind
/// about anything that is allowed or takes back a grant that has not lapsed.
///
/// Whoever keeps a conclusion keeps the number from before it was drawn, and
/// asks again when the number is another one. An answer that leaves at the
/// moment of the change is one that left before it: it opens nothing, since only
/// what is written to the kernel map does, and that is written under the lock.
#[derive(Clone, Debug, Default)]
pub struct Generation(Arc<AtomicU64>);

impl Generation {
    /// The number now.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Everything that was concluded before is to be asked again.
    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}
