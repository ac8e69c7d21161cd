//! When a command that has ended is started again, and after how long.

use crate::sandbox::Ending;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// After which endings.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, Debug, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// After none.
    #[default]
    No,
    /// After a status other than 0, and after a signal.
    OnFailure,
    /// After every one.
    Always,
}

/// The pause before the first new start.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer: a command that fails is back within 5 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// A command that ran for so long has not failed at its start.
const SETTLED: Duration = Duration::from_secs(60);

/// Counts the starts, and says what follows an ending.
#[derive(Clone, Debug)]
pub struct Plan {
    restart: Restart,
    most: Option<u32>,
    starts: u32,
    pause: Duration,
}

impl Plan {
    /// A plan with at most so many new starts.
    pub const fn new(restart: Restart, most: Option<u32>) -> Self {
        Self {
            restart,
            most,
            starts: 0,
            pause: FIRST_PAUSE,
        }
    }

    /// Notes a start; gives how many there were.
    pub const fn started(&mut self) -> u32 {
        self.starts += 1;
        self.starts
    }

    /// How long to wait before the next start; `None` if there is none.
    pub fn after(&mut self, ending: Ending, ran: Duration) -> Option<Duration> {
        let wanted = match (self.restart, ending) {
            // Its time is up; a new start would have none.
            (_, Ending::Overdue) | (Restart::No, _) => false,
            (Restart::Always, Ending::Exited(_) | Ending::Killed(_)) => true,
            (Restart::OnFailure, Ending::Exited(status)) => status != 0,
            (Restart::OnFailure, Ending::Killed(_)) => true,
        };
        let spent = self.most.is_some_and(|most| self.starts > most);
        if !wanted || spent {
            return None;
        }
        if ran >= SETTLED {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_below_five_seconds() {
        let mut plan = Plan::new(Restart::OnFailure, None);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            plan.started();
            pauses.extend(plan.after(Ending::Exited(1), Duration::ZERO));
        }
        assert_eq!(pauses.len(), 8);
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause < Duration::from_secs(5)));
        let settled = plan.after(Ending::Exited(1), SETTLED);
        assert_eq!(settled, Some(FIRST_PAUSE));
    }

    #[test]
    fn only_failures_start_again_unless_always() {
        let after = |restart, ending| Plan::new(restart, None).after(ending, Duration::ZERO);
        assert!(after(Restart::OnFailure, Ending::Exited(0)).is_none());
        assert!(after(Restart::OnFailure, Ending::Killed(9)).is_some());
        assert!(after(Restart::Always, Ending::Exited(0)).is_some());
        assert!(after(Restart::No, Ending::Exited(1)).is_none());
        assert!(after(Restart::Always, Ending::Overdue).is_none());
    }

    #[test]
    fn the_number_of_new_starts_is_bounded() {
        let mut plan = Plan::new(Restart::Always, Some(2));
        let mut again = 0;
        loop {
            plan.started();
            if plan.after(Ending::Exited(0), Duration::ZERO).is_none() {
                break;
            }
            again += 1;
        }
        assert_eq!(again, 2);
    }
}
