//! Which records make an alert, and what is done about it.

use super::{Action, Alert, AlertsWire, Condition, Engine, Rules, Severity};
use crate::model::{Record, RecordKind};
use egress_common::{Outcome, Reason, SandboxId};
use jiff::{SignedDuration, Timestamp};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn denial(sandbox: u32, name: &str, count: u64) -> Record {
    Record {
        sandbox_id: Some(SandboxId(sandbox)),
        sandbox: Some(format!("s{sandbox}")),
        name: Some(name.to_owned()),
        outcome: Some(Outcome::Denied),
        reason: Some(Reason::NoRule),
        hook: Some("connect"),
        count,
        ..Record::new(at(0), RecordKind::Flow)
    }
}

fn conditions(alerts: &[Alert]) -> Vec<Condition> {
    alerts.iter().map(|alert| alert.condition).collect()
}

/// Only what one condition finds.
fn about(condition: Condition, alerts: Vec<Alert>) -> Option<Alert> {
    alerts
        .into_iter()
        .find(|alert| alert.condition == condition)
}

#[test]
fn severities_and_actions_are_those_of_the_governance_document() {
    use Action::{Block, Log, Notify, Terminate};
    let rules = Rules::default();
    let rule = |condition| {
        let rule = rules.about(condition).expect("a rule");
        (rule.severity, rule.actions.clone())
    };
    for (condition, expected) in [
        (
            Condition::BlockedDestination,
            (Severity::Warning, vec![Log, Notify]),
        ),
        (
            Condition::RepeatedDenials,
            (Severity::High, vec![Log, Notify]),
        ),
        (Condition::LimitExceeded, (Severity::Info, vec![Log])),
        (
            Condition::UnusualTraffic,
            (Severity::Medium, vec![Log, Notify]),
        ),
        (
            Condition::Exfiltration,
            (Severity::Critical, vec![Log, Notify, Block, Terminate]),
        ),
    ] {
        assert_eq!(rule(condition), expected, "{}", condition.name());
    }
    let repeated = rules.about(Condition::RepeatedDenials).expect("a rule");
    assert_eq!((repeated.more_than, repeated.within.as_secs()), (10, 60));
}

#[test]
fn a_refused_destination_is_told_once_and_counted_while_it_is_quiet() {
    let mut engine = Engine::new(Rules::default());
    let first = engine.take(&denial(1, "a.example", 1), at(0));
    assert_eq!(conditions(&first), [Condition::BlockedDestination]);
    assert_eq!(first[0].sandbox.as_deref(), Some("s1"));
    assert!(
        first[0].summary.contains("a.example"),
        "{}",
        first[0].summary
    );
    assert_eq!(engine.take(&denial(1, "a.example", 4), at(10)), []);
    // Another destination, and another sandbox, are other things.
    assert_eq!(engine.take(&denial(1, "b.example", 1), at(11)).len(), 1);
    assert_eq!(engine.take(&denial(2, "a.example", 1), at(12)).len(), 1);
    let later = engine.take(&denial(1, "a.example", 1), at(400));
    assert_eq!(later[0].count, 5, "four were not told, and this one");
}

#[test]
fn more_than_ten_denials_a_minute_are_an_alert_and_ten_are_none() {
    let repeated = |counts: &[(i64, u64)]| {
        let mut engine = Engine::new(Rules::default());
        counts
            .iter()
            .filter_map(|(second, count)| {
                about(
                    Condition::RepeatedDenials,
                    engine.take(&denial(1, "a.example", *count), at(*second)),
                )
            })
            .map(|alert| alert.count)
            .collect::<Vec<_>>()
    };
    assert_eq!(repeated(&[(0, 5), (30, 5)]), [0; 0]);
    assert_eq!(repeated(&[(0, 5), (30, 6)]), [11]);
    // What is a minute ago counts no more.
    assert_eq!(repeated(&[(0, 8), (70, 8)]), [0; 0]);
    // A folded record stands for as many as it says.
    assert_eq!(repeated(&[(0, 500)]), [500]);
}

#[test]
fn a_clock_that_was_set_back_does_not_silence_for_long() {
    let mut engine = Engine::new(Rules::default());
    assert_eq!(
        engine.take(&denial(1, "a.example", 1), at(1_000_000)).len(),
        1
    );
    assert_eq!(engine.take(&denial(1, "a.example", 1), at(0)).len(), 1);
}

#[test]
fn names_that_carry_data_and_packets_past_the_rules_are_exfiltration_and_act_first() {
    let query = |n: u32| Record {
        query_type: Some("A".to_owned()),
        reason: Some(Reason::NameNotAllowed),
        name: Some(format!(
            "mzxw6ytboi2gk3tfnzqxg5dsnfxgo4t{n:04}mzxi.t.example"
        )),
        ..denial(1, "", 1)
    };
    let mut engine = Engine::new(Rules::default());
    for n in 0..20 {
        let alerts = engine.take(&query(n), at(i64::from(n)));
        assert_eq!(about(Condition::Exfiltration, alerts), None, "query {n}");
    }
    let alerts = engine.take(&query(20), at(20));
    assert_eq!(
        alerts[0].condition,
        Condition::Exfiltration,
        "the worst comes first"
    );
    assert_eq!(alerts[0].actions.last(), Some(&Action::Terminate));
    let mut engine = Engine::new(Rules::default());
    let misrouted = Record {
        reason: Some(Reason::Misrouted),
        count: 21,
        ..denial(2, "", 1)
    };
    assert!(about(Condition::Exfiltration, engine.take(&misrouted, at(0))).is_some());
    // A sandbox that is only not allowed something tries nothing of the kind.
    let mut engine = Engine::new(Rules::default());
    assert_eq!(
        about(
            Condition::Exfiltration,
            engine.take(&denial(3, "a.example", 10_000), at(0))
        ),
        None
    );
}

#[test]
fn a_minute_that_is_many_times_the_usual_is_unusual() {
    let allowed = |count| Record {
        outcome: Some(Outcome::Allowed),
        reason: None,
        ..denial(1, "a.example", count)
    };
    let mut engine = Engine::new(Rules::default());
    // The first minutes teach, however much they hold.
    for minute in 0..6 {
        assert_eq!(engine.take(&allowed(100), at(minute * 60)), [], "{minute}");
    }
    assert_eq!(
        engine.take(&allowed(300), at(7 * 60)),
        [],
        "three times the usual"
    );
    let alerts = engine.take(&allowed(700), at(7 * 60 + 30));
    assert_eq!(conditions(&alerts), [Condition::UnusualTraffic]);
    assert_eq!(alerts[0].severity, Severity::Medium);
}

#[test]
fn disturbed_enforcement_and_lost_evidence_are_told_and_ordinary_words_are_not() {
    let mut engine = Engine::new(Rules::default());
    let told = |detail: &str, kind| Record {
        detail: Some(detail.to_owned()),
        ..Record::new(at(0), kind)
    };
    let disturbed = Record {
        reason: Some(Reason::Disturbed),
        ..told("somebody detached egress", RecordKind::Agent)
    };
    assert_eq!(
        conditions(&engine.take(&disturbed, at(0))),
        [Condition::EnforcementDisturbed]
    );
    let lost = told("7 records found no place; 7 in all", RecordKind::Loss);
    assert_eq!(engine.take(&lost, at(0)).len(), 1);
    let again = told("9 records found no place; 16 in all", RecordKind::Loss);
    assert_eq!(
        engine.take(&again, at(1)),
        [],
        "the same, with other numbers"
    );
    assert_eq!(
        engine.take(&told("agent 1.0 started", RecordKind::Agent), at(0)),
        []
    );
    let own = told("an alert", RecordKind::Alert);
    assert_eq!(engine.take(&own, at(0)), [], "no alert about an alert");
}

#[test]
fn every_state_is_bounded_whatever_sandboxes_do() {
    let mut engine = Engine::new(Rules::default());
    for n in 0..9_000_u32 {
        let _ = engine.take(&denial(n, &format!("{n}.example"), 1), at(0));
    }
    for size in engine.sizes() {
        assert!(size <= 8_192, "{size}");
    }
}

#[test]
fn limits_are_told_for_the_record_only() {
    let mut engine = Engine::new(Rules::default());
    let limit = Record {
        sandbox: Some("s".to_owned()),
        detail: Some("memory limit".to_owned()),
        ..Record::new(at(0), RecordKind::Limit)
    };
    let alerts = engine.take(&limit, at(0) + SignedDuration::from_secs(1));
    assert_eq!(conditions(&alerts), [Condition::LimitExceeded]);
    assert_eq!(alerts[0].actions, [Action::Log]);
}

fn read(text: &str) -> Result<super::AlertsConfig, String> {
    let wire: AlertsWire = toml::from_str(text).map_err(|error| error.to_string())?;
    wire.read()
        .map_err(|(key, problem)| format!("{key}: {problem}"))
}

#[test]
fn rules_can_be_changed_and_switched_off_one_by_one() {
    let config = read(
        "[rules.repeated_denials]\nmore_than = 3\nwithin = \"10s\"\nactions = [\"log\", \"block\"]\n\
         [rules.blocked_destination]\nenabled = false\n",
    )
    .expect("a configuration");
    let rule = config
        .rules
        .about(Condition::RepeatedDenials)
        .expect("a rule");
    assert_eq!((rule.more_than, rule.within.as_secs()), (3, 10));
    assert_eq!(rule.actions, [Action::Log, Action::Block]);
    assert_eq!(rule.severity, Severity::High, "what is not said stays");
    assert_eq!(config.rules.about(Condition::BlockedDestination), None);
    assert!(config.rules.about(Condition::Exfiltration).is_some());
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_key() {
    for (text, said) in [
        ("[rules.nonsense]\n", "blocked_destination"),
        ("[rules.exfiltration]\nactions = []\n", "enabled = false"),
        ("[rules.exfiltration]\nactions = [\"shout\"]\n", "terminate"),
        ("[rules.exfiltration]\nwithin = \"soon\"\n", "within"),
        ("command = [\"notify\"]\n", "alerts.command"),
        (
            "[webhook]\nurl = \"http://a.example/\"\nsecret_file = \"/s\"\n",
            "alerts.webhook.url",
        ),
        (
            "[webhook]\nurl = \"https://a.example/\"\nsecret_file = \"/nowhere\"\n",
            "alerts.webhook.secret_file",
        ),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn what_a_blocked_sandbox_is_refused_is_no_news() {
    let mut engine = Engine::new(Rules::default());
    let refused = Record {
        reason: Some(Reason::SandboxBlocked),
        ..denial(1, "one.example", 1_000)
    };
    assert_eq!(conditions(&engine.take(&refused, at(0))), []);
}
