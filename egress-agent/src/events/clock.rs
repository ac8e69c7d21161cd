//! Kernel time to civil time.

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// How long an anchor serves, in boot-time nanoseconds: long enough that the
/// jitter of reading two clocks does not shuffle neighbouring reports, short
/// enough that the slow drift of a disciplined clock stays far below it.
const ANCHOR_LIFETIME: u64 = 10_000_000_000;

/// A disagreement between the anchor and a fresh reading that is no jitter.
const TOLERANCE: SignedDuration = SignedDuration::from_millis(5);

/// A step of the wall clock that somebody who reads the records has to know of.
const NOTEWORTHY: SignedDuration = SignedDuration::from_secs(1);

/// One instant on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Boot-time nanoseconds (`CLOCK_BOOTTIME`), as the kernel stamps events.
    pub boot: u64,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// Reads both clocks.
    pub fn now() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        Self {
            boot: u64::try_from(boot.tv_sec)
                .unwrap_or(0)
                .saturating_mul(1_000_000_000)
                .saturating_add(u64::try_from(boot.tv_nsec).unwrap_or(0)),
            wall: Timestamp::now(),
        }
    }

    /// When `boot` was, on this moment's wall clock.
    fn wall_at(&self, boot: u64) -> Timestamp {
        let later = i128::from(boot) - i128::from(self.boot);
        i64::try_from(later)
            .ok()
            .and_then(|ns| self.wall.checked_add(SignedDuration::from_nanos(ns)).ok())
            .unwrap_or(self.wall)
    }
}

/// Converts boot time to wall time by an anchor that is measured again and again.
///
/// Boot time neither jumps nor stops in suspend, so a jump is always the wall
/// clock's. Reports that waited in the ring during a jump are told on the clock
/// as it is now: the clock was set because it had been wrong.
#[derive(Debug, Default)]
pub(super) struct Clock {
    anchor: Option<Moment>,
}

impl Clock {
    /// Takes a fresh reading. Returns by how much the wall clock jumped, if a
    /// reader of the records has to be told.
    pub fn observe(&mut self, now: Moment) -> Option<SignedDuration> {
        let Some(anchor) = self.anchor else {
            self.anchor = Some(now);
            return None;
        };
        let jump = now.wall.duration_since(anchor.wall_at(now.boot));
        let jumped = jump.abs() > TOLERANCE;
        if jumped || now.boot.saturating_sub(anchor.boot) >= ANCHOR_LIFETIME {
            self.anchor = Some(now);
        }
        (jump.abs() > NOTEWORTHY).then_some(jump)
    }

    /// The wall time of a boot time; of nothing sensible, the latest reading.
    pub fn wall(&self, boot: u64, now: Moment) -> Timestamp {
        self.anchor.unwrap_or(now).wall_at(boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn moment(boot: u64, wall: i64) -> Moment {
        Moment {
            boot,
            wall: Timestamp::from_second(wall).expect("a time"),
        }
    }

    #[test]
    fn an_event_is_told_on_the_wall_clock_to_the_nanosecond() {
        let mut clock = Clock::default();
        let now = moment(100 * SECOND, 1_700_000_000);
        assert_eq!(clock.observe(now), None);
        assert_eq!(
            clock.wall(99 * SECOND + 1, now),
            now.wall - SignedDuration::new(0, 999_999_999)
        );
    }

    #[test]
    fn jitter_below_the_tolerance_does_not_move_the_anchor() {
        let mut clock = Clock::default();
        let start = moment(100 * SECOND, 1_700_000_000);
        clock.observe(start);
        let shaken = Moment {
            boot: start.boot + SECOND,
            wall: start.wall + SignedDuration::new(1, 900_000),
        };
        assert_eq!(clock.observe(shaken), None);
        assert_eq!(clock.wall(start.boot, shaken), start.wall);
    }

    #[test]
    fn slow_drift_is_followed_without_a_word() {
        let mut clock = Clock::default();
        let start = moment(100 * SECOND, 1_700_000_000);
        clock.observe(start);
        let later = Moment {
            boot: start.boot + 11 * SECOND,
            wall: start.wall + SignedDuration::new(11, 1_000_000),
        };
        assert_eq!(clock.observe(later), None);
        assert_eq!(clock.wall(later.boot, later), later.wall);
    }

    #[test]
    fn a_step_in_either_direction_is_followed_at_once_and_reported() {
        for step in [3600, -3600] {
            let mut clock = Clock::default();
            clock.observe(moment(100 * SECOND, 1_700_000_000));
            let after = moment(101 * SECOND, 1_700_000_001 + step);
            assert_eq!(clock.observe(after), Some(SignedDuration::from_secs(step)));
            assert_eq!(clock.wall(101 * SECOND, after), after.wall);
            assert_eq!(
                clock.observe(moment(102 * SECOND, 1_700_000_002 + step)),
                None
            );
        }
    }

    #[test]
    fn a_time_outside_the_calendar_becomes_now() {
        let mut clock = Clock::default();
        let now = moment(SECOND, 1_700_000_000);
        clock.observe(now);
        assert_eq!(clock.wall(u64::MAX, now), now.wall);
    }

    #[test]
    fn the_machines_clocks_run_together() {
        let (a, b) = (Moment::now(), Moment::now());
        assert!(a.boot > 0);
        assert!(b.boot >= a.boot);
    }
}
