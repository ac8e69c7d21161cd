//! What is exposed, and how it is bounded.

use super::{Exposition, Histogram, Metrics, OTHERS, Reading};
use crate::model::{Record, RecordKind};
use egress_common::{Outcome, Reason};
use jiff::Timestamp;

fn denial(sandbox: &str, count: u64) -> Record {
    Record {
        sandbox: Some(sandbox.to_owned()),
        outcome: Some(Outcome::Denied),
        reason: Some(Reason::NoRule),
        hook: Some("connect"),
        count,
        ..Record::new(Timestamp::UNIX_EPOCH, RecordKind::Flow)
    }
}

fn classic(metrics: &Metrics, readings: Vec<Reading>) -> String {
    metrics.render(readings, Exposition::Classic).expect("text")
}

#[test]
fn a_folded_record_counts_as_often_as_it_stands_for() {
    let metrics = Metrics::new(None);
    metrics.count(&denial("build", 41));
    metrics.count(&Record {
        outcome: Some(Outcome::Allowed),
        reason: None,
        ..denial("build", 1)
    });
    // No decision: what the agent tells of itself.
    metrics.count(&Record::new(Timestamp::UNIX_EPOCH, RecordKind::Agent));
    let text = classic(&metrics, Vec::new());
    for line in [
        "egress_requests_total 42",
        "egress_requests_blocked_total 41",
        "egress_requests_rate_limited_total 0",
        "egress_decisions_total{verdict=\"deny\",reason=\"no_rule\",layer=\"connect\"} 41",
        "egress_decisions_total{verdict=\"allow\",reason=\"none\",layer=\"connect\"} 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} in:\n{text}"
        );
    }
    assert!(
        !text.contains("build"),
        "no label that sandboxes multiply:\n{text}"
    );
}

#[test]
fn limits_are_counted_by_their_kind_and_by_their_reason() {
    let metrics = Metrics::new(None);
    metrics.count(&Record {
        reason: Some(Reason::TooManyQueries),
        ..denial("build", 3)
    });
    metrics.count(&Record {
        count: 4,
        ..Record::new(Timestamp::UNIX_EPOCH, RecordKind::Limit)
    });
    let text = classic(&metrics, Vec::new());
    assert!(
        text.contains("\negress_requests_rate_limited_total 7\n"),
        "{text}"
    );
}

#[test]
fn sandboxes_beyond_the_bound_share_one_series() {
    let metrics = Metrics::new(Some(2));
    for (sandbox, count) in [("a", 1), ("b", 2), ("c", 4), ("d", 8), ("a", 16)] {
        metrics.count(&denial(sandbox, count));
    }
    let text = classic(&metrics, Vec::new());
    for (sandbox, count) in [("a", 17), ("b", 2), (OTHERS, 12)] {
        let line = format!(
            "egress_sandbox_decisions_total{{sandbox=\"{sandbox}\",verdict=\"deny\"}} {count}"
        );
        assert!(text.contains(&line), "{line} in:\n{text}");
    }
    assert_eq!(text.matches("egress_sandbox_decisions_total{").count(), 3);
}

#[test]
fn both_forms_describe_every_series() {
    let metrics = Metrics::new(None);
    let readings = vec![
        Reading::gauge("sandboxes", "Sandboxes that run", 2.0),
        Reading::counters(
            "kernel_events",
            "Events",
            vec![(vec![("event", "denied".to_owned())], 7.0)],
        ),
        Reading::histogram(
            "latency_seconds",
            "Latency",
            Histogram {
                sum: 0.5,
                buckets: vec![(0.1, 2), (f64::INFINITY, 1)],
            },
        ),
    ];
    let text = classic(&metrics, readings.clone());
    for line in [
        "# TYPE egress_sandboxes gauge",
        "egress_sandboxes 2.0",
        "# TYPE egress_kernel_events_total counter",
        "egress_kernel_events_total{event=\"denied\"} 7.0",
        "# TYPE egress_latency_seconds histogram",
        "egress_latency_seconds_bucket{le=\"0.1\"} 2",
        "egress_latency_seconds_bucket{le=\"+Inf\"} 3",
        "egress_latency_seconds_count 3",
        "egress_latency_seconds_sum 0.5",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} in:\n{text}"
        );
    }
    assert!(!text.contains("# EOF"));
    let open = metrics
        .render(readings, Exposition::OpenMetrics)
        .expect("text");
    assert!(open.ends_with("# EOF\n"));
    assert!(
        open.contains("# TYPE egress_kernel_events counter\n"),
        "{open}"
    );
    assert_eq!(
        Exposition::wanted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
        Exposition::OpenMetrics
    );
    assert_eq!(Exposition::wanted("*/*"), Exposition::Classic);
}
