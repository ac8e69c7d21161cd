//! From records to alerts.

use super::condition::Condition;
use super::config::{Rule, Rules};
use super::exfiltration::suspicion;
use super::window::Windows;
use super::{Alert, Severity};
use crate::model::{Record, RecordKind};
use egress_common::{Outcome, Reason, SandboxId};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Whom something is about: a sandbox, or what is in none.
type Subject = Option<SandboxId>;

/// How much a sandbox usually asks: a running mean over its busy minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Habit {
    minute: i64,
    count: u64,
    mean: f64,
    minutes: u32,
}

/// Minutes before a habit is known.
const LEARNING: u32 = 5;
/// How many times the usual is unusual.
const UNUSUAL: f64 = 5.0;
/// Sandboxes whose habits are remembered.
const MOST_HABITS: usize = 4_096;

/// Watches records, and finds what the rules are about. Pure: the time is an
/// argument, and every state is bounded.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    destinations: Windows<(Subject, String)>,
    denials: Windows<Subject>,
    limits: Windows<Subject>,
    suspicions: Windows<Subject>,
    unusual: Windows<Subject>,
    disturbances: Windows<String>,
    habits: BTreeMap<Subject, Habit>,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            destinations: Windows::default(),
            denials: Windows::default(),
            limits: Windows::default(),
            suspicions: Windows::default(),
            unusual: Windows::default(),
            disturbances: Windows::default(),
            habits: BTreeMap::new(),
        }
    }

    /// What a record gives rise to.
    pub fn take(&mut self, record: &Record, now: Timestamp) -> Vec<Alert> {
        match record.kind {
            RecordKind::Flow | RecordKind::Dns => self.decision(record, now),
            RecordKind::Limit => self.limit(record, now).into_iter().collect(),
            RecordKind::Agent | RecordKind::Loss => {
                self.disturbance(record, now).into_iter().collect()
            }
            // Alerts about alerts would never end; the rest is ops' own doing.
            RecordKind::Alert
            | RecordKind::Sandbox
            | RecordKind::Policy
            | RecordKind::Approval
            | RecordKind::Emergency
            | RecordKind::Evidence => Vec::new(),
        }
    }

    fn decision(&mut self, record: &Record, now: Timestamp) -> Vec<Alert> {
        // Somebody knows about it already, and blocked it.
        if record.reason == Some(Reason::SandboxBlocked) {
            return Vec::new();
        }
        let mut alerts: Vec<Alert> = Vec::new();
        let refused = record.outcome == Some(Outcome::Denied);
        if record.reason == Some(Reason::TooManyQueries) {
            alerts.extend(self.limit(record, now));
        } else if refused {
            alerts.extend(self.blocked_destination(record, now));
        }
        if refused {
            alerts.extend(self.repeated_denials(record, now));
        }
        alerts.extend(self.exfiltration(record, now));
        alerts.extend(self.unusual_traffic(record, now));
        // The worst first: what acts should act first.
        alerts.sort_by_key(|alert: &Alert| std::cmp::Reverse::<Severity>(alert.severity));
        alerts
    }

    /// Counts under a rule's bounds, and makes the alert if it is one.
    fn judge<K: Ord + Clone>(
        rules: &Rules,
        windows: &mut Windows<K>,
        (condition, key, weight): (Condition, K, u64),
        record: &Record,
        now: Timestamp,
        summary: impl FnOnce(&Rule, u64) -> String,
    ) -> Option<Alert> {
        let rule = rules.about(condition)?;
        let times = (rule.within, rule.quiet);
        let count = windows.count(key, weight, rule.more_than, times, now)?;
        let summary = summary(rule, count);
        Some(Alert::about(record, rule, now, count, summary))
    }

    fn blocked_destination(&mut self, record: &Record, now: Timestamp) -> Option<Alert> {
        let destination = record
            .name
            .clone()
            .or_else(|| record.address.map(|address| address.to_string()))?;
        let key = (record.sandbox_id, destination.clone());
        Self::judge(
            &self.rules,
            &mut self.destinations,
            (Condition::BlockedDestination, key, record.count),
            record,
            now,
            |_, count| {
                let why = record.reason.map_or("refused", Reason::sentence);
                format!(
                    "{} was refused {destination} ({why}), {count} times",
                    who(record)
                )
            },
        )
    }

    fn repeated_denials(&mut self, record: &Record, now: Timestamp) -> Option<Alert> {
        Self::judge(
            &self.rules,
            &mut self.denials,
            (Condition::RepeatedDenials, record.sandbox_id, record.count),
            record,
            now,
            |rule, count| {
                format!(
                    "{} was refused more than {} times in {} s: {count} since the last alert",
                    who(record),
                    rule.more_than,
                    rule.within.as_secs()
                )
            },
        )
    }

    fn limit(&mut self, record: &Record, now: Timestamp) -> Option<Alert> {
        Self::judge(
            &self.rules,
            &mut self.limits,
            (Condition::LimitExceeded, record.sandbox_id, record.count),
            record,
            now,
            |_, count| {
                let what = record
                    .detail
                    .as_deref()
                    .or(record.reason.map(Reason::sentence))
                    .unwrap_or("a limit was reached");
                format!("{}: {what}, {count} times", who(record))
            },
        )
    }

    fn exfiltration(&mut self, record: &Record, now: Timestamp) -> Option<Alert> {
        let (what, weight) = suspicion(record)?;
        Self::judge(
            &self.rules,
            &mut self.suspicions,
            (Condition::Exfiltration, record.sandbox_id, weight),
            record,
            now,
            |_, count| {
                format!(
                    "{} seems to bring data out: {what}, {count} times",
                    who(record)
                )
            },
        )
    }

    /// A minute with more than the rule's number of requests, and several times
    /// what the sandbox's busy minutes had so far.
    fn unusual_traffic(&mut self, record: &Record, now: Timestamp) -> Option<Alert> {
        let subject = record.sandbox_id;
        if self.habits.len() >= MOST_HABITS && !self.habits.contains_key(&subject) {
            self.habits.pop_first();
        }
        let habit = self.habits.entry(subject).or_default();
        let minute = now.as_second().div_euclid(60);
        if habit.minute != minute {
            if habit.count > 0 {
                habit.minutes = habit.minutes.saturating_add(1);
                // The last ten or so count.
                let weight = 1.0 / f64::from(habit.minutes.min(10));
                habit.mean += (habit.count as f64 - habit.mean) * weight;
            }
            habit.minute = minute;
            habit.count = 0;
        }
        habit.count = habit.count.saturating_add(record.count);
        let usual = habit.mean.max(1.0);
        if habit.minutes < LEARNING || (habit.count as f64) < UNUSUAL * usual {
            return None;
        }
        let (seen, minutes) = (habit.count, habit.minutes.min(10));
        let rule = self.rules.about(Condition::UnusualTraffic)?;
        if seen <= rule.more_than {
            return None;
        }
        let times = (rule.within, rule.quiet);
        // The bound was looked at; what is left is to be quiet afterwards.
        let count = self.unusual.count(subject, record.count, 0, times, now)?;
        let summary = format!(
            "{} made {seen} requests within a minute; in its last {minutes} busy minutes it made {usual:.0} each",
            who(record)
        );
        Some(Alert::about(record, rule, now, count, summary))
    }

    fn disturbance(&mut self, record: &Record, now: Timestamp) -> Option<Alert> {
        let detail = record.detail.as_deref().unwrap_or_default();
        let disturbed = record.kind == RecordKind::Loss
            || record.reason == Some(Reason::Disturbed)
            || detail.starts_with("disarmed");
        if !disturbed {
            return None;
        }
        // What was lost differs in its numbers only.
        let key: String = detail.chars().filter(|c| !c.is_ascii_digit()).collect();
        Self::judge(
            &self.rules,
            &mut self.disturbances,
            (Condition::EnforcementDisturbed, key, record.count),
            record,
            now,
            |_, count| {
                if record.kind == RecordKind::Loss {
                    format!("evidence was lost, {count} decisions: {detail}")
                } else {
                    detail.to_owned()
                }
            },
        )
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        [
            self.destinations.len(),
            self.denials.len(),
            self.habits.len(),
        ]
    }
}

/// Who it is about, for a sentence.
fn who(record: &Record) -> String {
    match (&record.sandbox, record.sandbox_id) {
        (Some(name), _) => format!("sandbox {name}"),
        (None, Some(id)) => format!("sandbox #{}", id.0),
        (None, None) => "something in no sandbox".to_owned(),
    }
}
