//! Metrics that are read when somebody asks.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// Label names with their values.
type Labels = Vec<(&'static str, String)>;

/// One metric at one moment. Names are without prefix, and those of counters
/// without `_total`.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    name: String,
    help: String,
    values: Values,
}

#[derive(Clone, PartialEq, Debug)]
enum Values {
    Counter(Vec<(Labels, f64)>),
    Gauge(Vec<(Labels, f64)>),
    Histogram(Histogram),
}

/// A distribution.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Histogram {
    /// The sum of all that was observed, in the metric's unit.
    pub sum: f64,
    /// Upper bounds in rising order, the last infinite, each with how many were
    /// at most so large and larger than the bound before.
    pub buckets: Vec<(f64, u64)>,
}

impl Reading {
    /// Something that only grows.
    pub fn counter(name: impl Into<String>, help: impl Into<String>, value: f64) -> Self {
        Self::counters(name, help, vec![(Vec::new(), value)])
    }

    /// Several of them, told apart by labels.
    pub fn counters(
        name: impl Into<String>,
        help: impl Into<String>,
        values: Vec<(Labels, f64)>,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            values: Values::Counter(values),
        }
    }

    /// Something that rises and falls.
    pub fn gauge(name: impl Into<String>, help: impl Into<String>, value: f64) -> Self {
        Self::gauges(name, help, vec![(Vec::new(), value)])
    }

    /// Several of them, told apart by labels.
    pub fn gauges(
        name: impl Into<String>,
        help: impl Into<String>,
        values: Vec<(Labels, f64)>,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            values: Values::Gauge(values),
        }
    }

    /// A distribution.
    pub fn histogram(
        name: impl Into<String>,
        help: impl Into<String>,
        histogram: Histogram,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            values: Values::Histogram(histogram),
        }
    }
}

/// Readings as a source of metrics.
#[derive(Debug)]
pub(super) struct Readings(pub Vec<Reading>);

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for reading in &self.0 {
            let kind = match reading.values {
                Values::Counter(_) => MetricType::Counter,
                Values::Gauge(_) => MetricType::Gauge,
                Values::Histogram(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(&reading.name, &reading.help, None, kind)?;
            match &reading.values {
                Values::Counter(values) => {
                    for (labels, value) in values {
                        match labels.as_slice() {
                            [] => metric.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                            _ => metric
                                .encode_family(labels)?
                                .encode_counter::<NoLabelSet, _, f64>(value, None)?,
                        }
                    }
                }
                Values::Gauge(values) => {
                    for (labels, value) in values {
                        match labels.as_slice() {
                            [] => metric.encode_gauge(value)?,
                            _ => metric.encode_family(labels)?.encode_gauge(value)?,
                        }
                    }
                }
                Values::Histogram(histogram) => {
                    let count = histogram.buckets.iter().map(|(_, count)| count).sum();
                    metric.encode_histogram::<NoLabelSet>(
                        histogram.sum,
                        count,
                        &histogram.buckets,
                        None,
                    )?;
                }
            }
        }
        Ok(())
    }
}
