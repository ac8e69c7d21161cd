//! Counting within a window, and being quiet after an alert.

use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Keys that are remembered at once; beyond that the one that was longest
/// untouched is forgotten, which can only make an alert come again sooner.
const MOST_KEYS: usize = 8_192;

/// A sum over a window, in steps of a tenth of it: what falls out does so at most
/// a tenth of a window late.
#[derive(Clone, Debug, Default)]
struct Sum {
    steps: Vec<(i64, u64)>,
}

impl Sum {
    fn add(&mut self, count: u64, step: i64) -> u64 {
        self.steps.retain(|(at, _)| *at > step - 10 && *at <= step);
        match self.steps.last_mut() {
            Some((at, sum)) if *at == step => *sum = sum.saturating_add(count),
            _ => self.steps.push((step, count)),
        }
        self.steps
            .iter()
            .fold(0, |all, (_, sum)| u64::saturating_add(all, *sum))
    }
}

/// What is remembered about one key.
#[derive(Clone, Debug, Default)]
struct State {
    sum: Sum,
    /// No alert before this.
    quiet_until: Option<Timestamp>,
    /// What was counted since the last alert and not told.
    untold: u64,
    touched: u64,
}

/// Sums by key, each with its quiet time.
#[derive(Debug)]
pub(super) struct Windows<K> {
    states: BTreeMap<K, State>,
    touches: u64,
}

impl<K> Default for Windows<K> {
    fn default() -> Self {
        Self {
            states: BTreeMap::new(),
            touches: 0,
        }
    }
}

impl<K: Ord + Clone> Windows<K> {
    /// Counts, and says how many to tell of if the sum in the window is now
    /// above `more_than` and the key is not to be quiet.
    pub fn count(
        &mut self,
        key: K,
        count: u64,
        more_than: u64,
        (within, quiet): (Duration, Duration),
        now: Timestamp,
    ) -> Option<u64> {
        self.make_room(&key);
        self.touches += 1;
        let state = self.states.entry(key).or_default();
        state.touched = self.touches;
        let tenth = i64::try_from(within.as_millis() / 10)
            .unwrap_or(i64::MAX)
            .max(1);
        let sum = state.sum.add(count, now.as_millisecond().div_euclid(tenth));
        state.untold = state.untold.saturating_add(count);
        // A clock that was set back must not silence anything for long.
        let silent = state
            .quiet_until
            .is_some_and(|until| now < until && until.duration_since(now).unsigned_abs() <= quiet);
        if sum <= more_than || silent {
            return None;
        }
        state.quiet_until = now.checked_add(quiet).ok();
        Some(std::mem::take(&mut state.untold))
    }

    fn make_room(&mut self, key: &K) {
        if self.states.len() < MOST_KEYS || self.states.contains_key(key) {
            return;
        }
        // Rare, and a scan of some thousand entries.
        let oldest = self
            .states
            .iter()
            .min_by_key(|(_, state)| state.touched)
            .map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.states.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.states.len()
    }
}
