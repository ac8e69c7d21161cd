//! What the resolver counts.

use super::latency::Latency;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident,)+) => {
        /// Running totals since the resolver began.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(super) $field: AtomicU64,)+
            pub(super) latency: Latency,
        }

        /// The totals at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counts { $($(#[$doc])* pub $field: u64,)+ }

        impl Counts {
            /// Each total with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),+]
            }
        }

        impl Counters {
            /// Reads all of them.
            pub fn read(&self) -> Counts {
                Counts { $($field: self.$field.load(Ordering::Relaxed),)+ }
            }

            /// How long answers took, refusals included.
            pub const fn latency(&self) -> &Latency {
                &self.latency
            }
        }
    };
}

counters! {
    /// Messages that were taken up.
    queries,
    /// Answers that name something.
    answered,
    /// Refused by policy.
    refused,
    /// Answered from the cache.
    cache_hits,
    /// Answered past its time, because no upstream answered.
    stale,
    /// Asked for anew before its time was over.
    prefetched,
    /// Asked for anew because a connection to it lives on.
    kept_fresh,
    /// SERVFAIL, whatever the cause.
    failed,
    /// Messages that are no query.
    malformed,
    /// Queries from no sandbox.
    unknown_asker,
    /// Queries and connections dropped because a bound on concurrency was reached.
    overloaded,
    /// Queries that passed the policy's bound on asking.
    over_query_budget,
    /// Queries that passed the policy's bounds on what names below wildcards say.
    over_name_budget,
    /// Datagrams from an upstream's address that answer nothing that was asked.
    forged,
    /// Records in upstream answers that the chain from the question does not reach.
    unrelated,
    /// Addresses removed from answers.
    removed,
    /// Answers in the cache, as of the last look (every 10 s).
    cached_answers,
    /// Answers that are kept ready for a sandbox, as of the last look.
    ready_answers,
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Notes how many there are now.
pub(super) fn gauge(gauge: &AtomicU64, now: usize) {
    gauge.store(now as u64, Ordering::Relaxed);
}

/// Counts several.
pub(super) fn count_many(counter: &AtomicU64, many: usize) {
    counter.fetch_add(many as u64, Ordering::Relaxed);
}
