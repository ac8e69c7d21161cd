//! From reports to records, with every count exact.

use super::*;
use crate::events::enrich::tests::World;
use crate::events::report::tests::denial;
use egress_common::{Hook, Ip, Outcome, Port, Reason};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// `ms` milliseconds after the start, on both clocks.
fn at(ms: u64) -> Moment {
    Moment {
        boot: 1_000 * SECOND + ms * 1_000_000,
        wall: Timestamp::from_second(1_700_000_000).expect("a time")
            + SignedDuration::from_millis(i64::try_from(ms).expect("small")),
    }
}

fn pipeline() -> Pipeline<World> {
    Pipeline::new(World, Bounds::default())
}

fn counts(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.count).collect()
}

/// Feeds the events, each at its time in milliseconds, and finishes.
fn run(pipeline: &mut Pipeline<World>, events: &[(u64, Event)]) -> Vec<Record> {
    let mut records = Vec::new();
    for (ms, event) in events {
        records.extend(pipeline.take(event, at(*ms)));
    }
    let end = events.last().map_or(0, |(ms, _)| *ms);
    records.extend(pipeline.finish(at(end)));
    records
}

#[test]
fn the_first_denial_is_recorded_at_once_and_the_rest_when_the_window_closes() {
    let mut pipeline = pipeline();
    assert_eq!(pipeline.take(&denial(), at(0)).count(), 1);
    for ms in 1..=41 {
        assert_eq!(pipeline.take(&denial(), at(ms)).count(), 0);
    }
    assert_eq!(pipeline.next_tick(), Some(at(10_000).boot));
    assert_eq!(pipeline.tick(at(9_999)).count(), 0);
    let closing: Vec<_> = pipeline.tick(at(10_000)).collect();
    assert_eq!(counts(&closing), [41]);
    assert!(
        closing[0]
            .detail
            .as_deref()
            .is_some_and(|d| d.starts_with("repeated from "))
    );
    assert_eq!(pipeline.next_tick(), None);
}

#[test]
fn a_denial_after_the_window_is_a_first_one_again_even_if_no_tick_came() {
    let records = run(
        &mut pipeline(),
        &[(0, denial()), (1, denial()), (10_000, denial())],
    );
    assert_eq!(counts(&records), [1, 1, 1]);
    assert_eq!(records[2].detail.as_deref(), Some("cidr: 203.0.113.7/32"));
}

#[test]
fn a_connect_reported_by_two_hooks_is_one_denial_with_the_process_that_was_known() {
    let packet = Event {
        hook: Hook::Egress as u8,
        process: 0,
        user: u32::MAX,
        command: [0; 16],
        ..denial()
    };
    let records = run(&mut pipeline(), &[(0, packet), (1, denial()), (2, packet)]);
    assert_eq!(counts(&records), [1, 2]);
    assert_eq!(records[0].process, None);
    assert_eq!(records[1].process, Some(4242));
    assert_eq!(records[1].command.as_deref(), Some("curl"));

    let records = run(&mut pipeline(), &[(0, denial()), (1, packet)]);
    assert_eq!(records[1].process, Some(4242));
}

#[test]
fn several_processes_in_one_fold_are_said_to_be_several() {
    let other = Event {
        process: 7,
        ..denial()
    };
    let records = run(&mut pipeline(), &[(0, denial()), (1, other)]);
    let detail = records[1].detail.as_deref().expect("a detail");
    assert!(detail.ends_with(", by more than one process"), "{detail}");
}

#[test]
fn another_sandbox_destination_reason_or_outcome_is_not_alike() {
    let base = denial();
    let others = [
        Event {
            sandbox: SandboxId(4),
            ..base
        },
        Event {
            port: Port::from_host(80),
            ..base
        },
        Event {
            ip: Ip::from_v4(9),
            ..base
        },
        Event {
            protocol: 17,
            ..base
        },
        Event {
            reason: Reason::Lapsed as u8,
            ..base
        },
        Event {
            outcome: Outcome::WouldDeny as u8,
            ..base
        },
    ];
    let mut events = vec![(0, base)];
    events.extend(others.map(|event| (0, event)));
    assert_eq!(counts(&run(&mut pipeline(), &events)), [1; 7]);
}

#[test]
fn every_allowed_flow_is_its_own_record() {
    let allowed = Event {
        outcome: Outcome::Allowed as u8,
        reason: 0,
        ..denial()
    };
    assert_eq!(
        counts(&run(&mut pipeline(), &[(0, allowed), (1, allowed)])),
        [1, 1]
    );
}

#[test]
fn a_sandbox_at_its_bound_records_its_own_least_recent_kind_early() {
    let bounds = Bounds {
        per_sandbox: 2,
        ..Bounds::default()
    };
    let mut pipeline = Pipeline::new(World, bounds);
    let to = |port| Event {
        port: Port::from_host(port),
        ..denial()
    };
    let other = Event {
        sandbox: SandboxId(4),
        ..denial()
    };
    for event in [other, other, to(1), to(1), to(2), to(2), to(1)] {
        let _ = pipeline.take(&event, at(0)).count();
    }
    let records: Vec<_> = pipeline.take(&to(3), at(1)).collect();
    let seen: Vec<_> = records.iter().map(|r| (r.port, r.count)).collect();
    assert_eq!(
        seen,
        [(Some(2), 1), (Some(3), 1)],
        "port 1 was used later than port 2"
    );
    let rest: Vec<_> = pipeline.finish(at(1)).collect();
    assert_eq!(
        rest.iter().map(|r| r.count).sum::<u64>(),
        1 + 2,
        "the other sandbox kept its fold"
    );
}

#[test]
fn malformed_reports_are_counted_once_and_told_at_the_tick() {
    let mut pipeline = pipeline();
    assert_eq!(pipeline.take_bytes(&[0; 80], at(0)).count(), 0);
    assert_eq!(pipeline.take_bytes(&[1, 2, 3], at(0)).count(), 0);
    let told: Vec<_> = pipeline.tick(at(1)).collect();
    assert_eq!(told[0].kind, RecordKind::Loss);
    assert_eq!(counts(&told), [2]);
    assert_eq!(pipeline.tick(at(2)).count(), 0);
}

#[test]
fn a_stepped_clock_is_told_and_later_times_are_on_the_new_clock() {
    let mut pipeline = pipeline();
    let _ = pipeline.tick(at(0)).count();
    let stepped = Moment {
        wall: at(1).wall + SignedDuration::from_hours(1),
        ..at(1)
    };
    let event = Event {
        time: at(1).boot,
        ..denial()
    };
    let records: Vec<_> = pipeline.take(&event, stepped).collect();
    assert_eq!(records[0].kind, RecordKind::Agent);
    let detail = records[0].detail.as_deref().expect("a detail");
    assert!(detail.contains("+3600.000 s"), "{detail}");
    assert_eq!(records[1].time, stepped.wall);
}

/// One step of a random history: time passes, then something is denied or ticks.
fn step() -> impl Strategy<Value = (u64, Option<(u32, u16, bool, bool)>)> {
    (
        0_u64..4_000,
        proptest::option::of((1_u32..4, 1_u16..6, any::<bool>(), any::<bool>())),
    )
}

proptest! {
    /// The naive counter: for each kind, how many were fed.
    #[test]
    fn counts_add_up_for_any_order_window_and_bound(
        steps in proptest::collection::vec(step(), 0..200),
        window in 0_u64..20_000,
        per_sandbox in 0_usize..5,
        total in 0_usize..8,
    ) {
        let bounds = Bounds { window: Duration::from_millis(window), per_sandbox, total };
        let mut pipeline = Pipeline::new(World, bounds);
        let mut fed: BTreeMap<_, u64> = BTreeMap::new();
        let mut recorded: BTreeMap<_, u64> = BTreeMap::new();
        let mut records = Vec::new();
        let mut now = 0;
        for (pause, denied) in steps {
            now += pause;
            match denied {
                Some((sandbox, port, lapsed, known)) => {
                    let reason = if lapsed { Reason::Lapsed } else { Reason::NoRule };
                    let event = Event {
                        time: at(now).boot,
                        sandbox: SandboxId(sandbox),
                        port: Port::from_host(port),
                        reason: reason as u8,
                        process: u32::from(known),
                        ..denial()
                    };
                    *fed.entry((Some(sandbox), Some(port), Some(reason))).or_default() += 1;
                    records.extend(pipeline.take(&event, at(now)));
                }
                None => records.extend(pipeline.tick(at(now))),
            }
            let sizes = pipeline.fold_sizes();
            prop_assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
            prop_assert!(sizes[0] <= total.max(1));
        }
        records.extend(pipeline.finish(at(now)));
        prop_assert_eq!(pipeline.fold_sizes(), [0; 5]);
        for record in records {
            prop_assert!(record.count > 0);
            let kind = (record.sandbox_id.map(|id| id.0), record.port, record.reason);
            *recorded.entry(kind).or_default() += record.count;
        }
        prop_assert_eq!(recorded, fed);
    }
}
