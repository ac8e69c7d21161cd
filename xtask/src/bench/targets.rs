//! What enforcement may cost.

use super::summary::Spread;

/// The bound that everything else is measured against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At most so many nanoseconds more than bare.
    More {
        /// It has to be this.
        must: f64,
        /// It should be this.
        goal: f64,
    },
    /// At most so many times the time of bare.
    Times {
        /// It has to be this.
        must: f64,
        /// It should be this.
        goal: f64,
    },
    /// At least so much of the throughput of bare.
    Share {
        /// It has to be this.
        must: f64,
        /// It should be this.
        goal: f64,
    },
}

/// Where a measured median lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As good as it should be.
    Goal,
    /// As good as it has to be.
    Must,
    /// Not good enough.
    Missed,
    /// A quarter of the rounds and more say yes, and a quarter and more say no.
    Unclear,
}

impl Verdict {
    /// The word for tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Goal => "goal",
            Self::Must => "must",
            Self::Missed => "MISSED",
            Self::Unclear => "unclear",
        }
    }
}

/// The bound of an operation, if it has one.
pub fn bound(operation: &str) -> Option<Bound> {
    use Bound::{More, Share, Times};
    let bound = match operation {
        "udp-connect" => More {
            must: 200.0,
            goal: 160.0,
        },
        "udp-sendto" => More {
            must: 620.0,
            goal: 450.0,
        },
        "udp-send" => More {
            must: 340.0,
            goal: 220.0,
        },
        "tcp-64-byte-segment" => More {
            must: 250.0,
            goal: 190.0,
        },
        "tcp-socket-connect-close" => Times {
            must: 1.08,
            goal: 1.05,
        },
        "tcp-bulk-veth" => Share {
            must: 0.99,
            goal: 0.99,
        },
        "tcp-bulk-loopback" => Share {
            must: 0.90,
            goal: 0.95,
        },
        _ => return None,
    };
    Some(bound)
}

impl Bound {
    /// Judges what was measured: the difference to bare and the ratio to bare.
    pub fn judge(self, more: Spread, ratio: Spread) -> Verdict {
        let (spread, must, goal, sign) = match self {
            Self::More { must, goal } => (more, must, goal, 1.0),
            Self::Times { must, goal } => (ratio, must, goal, 1.0),
            Self::Share { must, goal } => (ratio, must, goal, -1.0),
        };
        if spread.low < must && must < spread.high {
            return Verdict::Unclear;
        }
        let within = |bound: f64| spread.median * sign <= bound * sign;
        match (within(goal), within(must)) {
            (true, _) => Verdict::Goal,
            (false, true) => Verdict::Must,
            (false, false) => Verdict::Missed,
        }
    }

    /// `≤ +200 / +160 ns`, `≤ ×1.08 / ×1.05`, `≥ ×0.90 / ×0.95`.
    pub fn words(self) -> String {
        match self {
            Self::More { must, goal } => format!("≤ +{must:.0} / +{goal:.0} ns"),
            Self::Times { must, goal } => format!("≤ ×{must:.2} / ×{goal:.2}"),
            Self::Share { must, goal } => format!("≥ ×{must:.2} / ×{goal:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(median: f64) -> Spread {
        Spread {
            low: median,
            median,
            high: median,
        }
    }

    #[test]
    fn times_are_bounded_above_and_throughputs_below() {
        let judge = |name: &str, more, ratio| {
            bound(name)
                .expect("it has a bound")
                .judge(at(more), at(ratio))
        };
        assert_eq!(judge("udp-connect", 160.0, 9.0), Verdict::Goal);
        assert_eq!(judge("udp-connect", 161.0, 9.0), Verdict::Must);
        assert_eq!(judge("udp-connect", 201.0, 1.0), Verdict::Missed);
        assert_eq!(judge("tcp-socket-connect-close", 1e6, 1.06), Verdict::Must);
        assert_eq!(judge("tcp-bulk-loopback", 0.0, 0.96), Verdict::Goal);
        assert_eq!(judge("tcp-bulk-loopback", 0.0, 0.89), Verdict::Missed);
        assert_eq!(bound("udp-socket-close"), None);
    }

    #[test]
    fn rounds_that_contradict_each_other_prove_nothing() {
        let wide = Spread {
            low: 0.6,
            median: 1.1,
            high: 2.2,
        };
        let veth = bound("tcp-bulk-veth").expect("it has a bound");
        assert_eq!(veth.judge(at(0.0), wide), Verdict::Unclear);
    }
}
