//! Metrics: what is counted as it happens, and how it is told to Prometheus.
//!
//! [`Metrics`] counts decisions; everything else is read when somebody asks, and
//! handed in as [`Reading`]s. No label holds what a sandbox chooses, so the
//! number of series is bounded by the words of this program; names of sandboxes
//! are a label only where ops ask for it, and then of a bounded number.

mod classic;
mod reading;

pub use reading::{Histogram, Reading};

use crate::model::{Record, RecordKind};
use egress_common::{Outcome, Reason};
use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The prefix of every name.
const PREFIX: &str = "egress";

/// In which form metrics are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposition {
    /// The text format of Prometheus, version 0.0.4.
    Classic,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// The form that an `Accept` header asks for.
    pub fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How decisions are told apart: by words of this program only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Decision {
    verdict: &'static str,
    reason: &'static str,
    layer: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Alerted {
    condition: &'static str,
    severity: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct InSandbox {
    sandbox: String,
    verdict: &'static str,
}

/// The name under which sandboxes beyond the bound are counted. No sandbox can
/// have it: names begin with a letter or digit.
const OTHERS: &str = "_others";

/// What is counted as it happens.
pub struct Metrics {
    registry: Registry,
    requests: Counter,
    blocked: Counter,
    limited: Counter,
    decisions: Family<Decision, Counter>,
    alerts: Family<Alerted, Counter>,
    last_reload_good: Gauge,
    last_good_reload: Gauge<f64, AtomicU64>,
    sandboxes: Option<Sandboxes>,
    /// Bytes that sandboxes had sent and received when they ended.
    sent: AtomicU64,
    received: AtomicU64,
}

struct Sandboxes {
    decisions: Family<InSandbox, Counter>,
    known: Mutex<BTreeSet<String>>,
    limit: usize,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Counters at 0. With `sandboxes`, decisions are also counted by sandbox,
    /// for the first so many names; all others are counted together.
    pub fn new(sandboxes: Option<usize>) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let (requests, blocked, limited) =
            (Counter::default(), Counter::default(), Counter::default());
        let decisions = Family::<Decision, Counter>::default();
        registry.register(
            "requests",
            "Decisions about flows and DNS queries, allowed or not",
            requests.clone(),
        );
        registry.register(
            "requests_blocked",
            "Decisions that refused",
            blocked.clone(),
        );
        registry.register(
            "requests_rate_limited",
            "Requests that were refused or delayed by a limit",
            limited.clone(),
        );
        registry.register(
            "decisions",
            "Decisions by verdict, reason and the layer that judged",
            decisions.clone(),
        );
        let alerts = Family::<Alerted, Counter>::default();
        registry.register("alerts", "Alerts by condition and severity", alerts.clone());
        let (last_reload_good, last_good_reload) = (Gauge::default(), Gauge::default());
        registry.register(
            "policy_last_reload_successful",
            "1 if the last load of policies was accepted",
            last_reload_good.clone(),
        );
        registry.register(
            "policy_last_reload_success_timestamp_seconds",
            "When policies were last loaded, in seconds since the epoch",
            last_good_reload.clone(),
        );
        let sandboxes = sandboxes.map(|limit| {
            let decisions = Family::<InSandbox, Counter>::default();
            registry.register(
                "sandbox_decisions",
                "Decisions by sandbox and verdict; sandboxes beyond the bound together as _others",
                decisions.clone(),
            );
            Sandboxes {
                decisions,
                known: Mutex::default(),
                limit,
            }
        });
        Self {
            registry,
            requests,
            blocked,
            limited,
            decisions,
            alerts,
            last_reload_good,
            last_good_reload,
            sandboxes,
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
        }
    }

    /// Bytes that the sandboxes which ended had sent, and received, as far as
    /// their closing records tell.
    pub fn bytes_of_ended(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        )
    }

    /// Counts what a record stands for.
    pub fn count(&self, record: &Record) {
        let is_limit =
            record.kind == RecordKind::Limit || record.reason == Some(Reason::TooManyQueries);
        if is_limit {
            self.limited.inc_by(record.count);
        }
        if let Some(usage) = &record.usage {
            let (sent, received) = (usage.sent_bytes, usage.received_bytes);
            self.sent.fetch_add(sent.unwrap_or(0), Ordering::Relaxed);
            self.received
                .fetch_add(received.unwrap_or(0), Ordering::Relaxed);
        }
        let Some(outcome) = record.outcome else {
            return;
        };
        if !matches!(record.kind, RecordKind::Flow | RecordKind::Dns) {
            return;
        }
        self.requests.inc_by(record.count);
        if outcome == Outcome::Denied {
            self.blocked.inc_by(record.count);
        }
        let decision = Decision {
            verdict: outcome.name(),
            reason: record.reason.map_or("none", Reason::name),
            layer: record.hook.unwrap_or("unknown"),
        };
        self.decisions.get_or_create(&decision).inc_by(record.count);
        if let (Some(sandboxes), Some(name)) = (&self.sandboxes, &record.sandbox) {
            sandboxes.count(name, outcome, record.count);
        }
    }

    /// Counts an alert.
    pub fn alerted(&self, condition: &'static str, severity: &'static str) {
        let alerted = Alerted {
            condition,
            severity,
        };
        self.alerts.get_or_create(&alerted).inc();
    }

    /// Notes a load of policies.
    pub fn policies_loaded(&self, good: bool, now: Timestamp) {
        self.last_reload_good.set(i64::from(good));
        if good {
            self.last_good_reload
                .set(now.as_millisecond() as f64 / 1000.0);
        }
    }

    /// Everything, with what was read for the occasion.
    pub fn render(&self, readings: Vec<Reading>, form: Exposition) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode_registry(&mut text, &self.registry)?;
        let mut now = Registry::with_prefix(PREFIX);
        now.register_collector(Box::new(reading::Readings(readings)));
        text::encode_registry(&mut text, &now)?;
        Ok(match form {
            Exposition::OpenMetrics => {
                text::encode_eof(&mut text)?;
                text
            }
            Exposition::Classic => classic::from_open_metrics(&text),
        })
    }
}

impl Sandboxes {
    fn count(&self, name: &str, outcome: Outcome, count: u64) {
        // A set is whole after every statement, whoever panics.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = if known.contains(name) {
            name
        } else if known.len() < self.limit {
            known.insert(name.to_owned());
            name
        } else {
            OTHERS
        };
        drop(known);
        let labels = InSandbox {
            sandbox: counted.to_owned(),
            verdict: outcome.name(),
        };
        self.decisions.get_or_create(&labels).inc_by(count);
    }
}

#[cfg(test)]
mod tests;
