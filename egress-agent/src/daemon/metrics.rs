//! What is read when somebody asks for metrics.

use super::agent::Agent;
use super::control::mode_name;
use crate::alerts::Delivery;
use crate::api::Scrape;
use crate::image;
use crate::telemetry::metrics::{Exposition, Histogram, Reading};
use egress_common::{Counter, names};
use std::fmt;

impl Scrape for Agent {
    fn scrape(&self, form: Exposition) -> Result<String, fmt::Error> {
        self.recorder()
            .metrics()
            .render(self.metric_readings(), form)
    }
}

/// A count as Prometheus has it; exact up to 2^53.
fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

impl Agent {
    fn metric_readings(&self) -> Vec<Reading> {
        let mut readings = vec![
            Reading::gauges(
                "build_info",
                "The version that runs; always 1",
                vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
            ),
            Reading::gauge(
                "start_time_seconds",
                "When the agent began, in seconds since the epoch",
                self.since().as_millisecond() as f64 / 1000.0,
            ),
            Reading::gauge(
                "enforcement_disturbed",
                "Things about enforcement that somebody should look at",
                number(self.warnings().len()),
            ),
        ];
        self.read_book(&mut readings);
        self.read_kernel(&mut readings);
        if self.config().count_bytes {
            self.read_traffic(&mut readings);
        }
        self.read_resolver(&mut readings);
        self.read_store(&mut readings);
        self.read_deliveries(&mut readings);
        readings
    }

    /// Policies, sandboxes, and how full the maps are. The book says what the
    /// kernel holds: reading maps of a hundred thousand entries would keep
    /// answers waiting.
    fn read_book(&self, readings: &mut Vec<Reading>) {
        let book = self.book();
        let sandboxes = book.members().count();
        let policies = book
            .policies()
            .iter()
            .map(|policy| {
                let labels = vec![
                    ("policy", policy.name.clone()),
                    ("digest", policy.digest.clone()),
                    ("mode", mode_name(policy.mode).to_owned()),
                ];
                (labels, 1.0)
            })
            .collect();
        let fill = [
            (names::SANDBOXES, sandboxes, image::MAX_SANDBOXES),
            (names::METERS, sandboxes + 1, image::MAX_SANDBOXES),
            (
                names::GRANTS,
                book.ledger().entries().count(),
                image::MAX_GRANTS,
            ),
            (names::NETWORKS, book.networks(), image::MAX_NETWORKS),
        ];
        drop(book);
        let of = |wanted: fn(&(&'static str, usize, usize)) -> usize| {
            fill.iter()
                .map(|map| {
                    (
                        vec![("map", map.0.to_ascii_lowercase())],
                        number(wanted(map)),
                    )
                })
                .collect()
        };
        readings.extend([
            Reading::gauge("sandboxes", "Sandboxes that run", number(sandboxes)),
            Reading::gauges("policy_info", "The policies in force; always 1", policies),
            Reading::gauges(
                "bpf_map_entries",
                "Entries in use of kernel maps",
                of(|map| map.1),
            ),
            Reading::gauges(
                "bpf_map_max_entries",
                "Entries that kernel maps hold at most",
                of(|map| map.2),
            ),
        ]);
    }

    fn read_kernel(&self, readings: &mut Vec<Reading>) {
        for counter in Counter::ALL {
            if let Ok(total) = self.enforcer().counter(*counter) {
                readings.push(Reading::counter(
                    format!("kernel_{}", counter.name()),
                    format!("Kernel programs: {}", counter.name().replace('_', " ")),
                    number(total),
                ));
            }
        }
        let lost: u64 = self
            .enforcer()
            .meters()
            .unwrap_or_default()
            .iter()
            .map(|(_, meter)| meter.lost)
            .fold(0, u64::saturating_add);
        readings.push(Reading::gauge(
            "reports_lost",
            "Reports beyond the events per second of the sandboxes that run now",
            number(lost),
        ));
        let programs = self.enforcer().statistics();
        let of = |wanted: fn(&crate::enforcer::ProgramStatistics) -> f64| {
            programs
                .iter()
                .map(|one| (vec![("program", one.program.to_owned())], wanted(one)))
                .collect()
        };
        readings.extend([
            Reading::counters(
                "bpf_program_runs",
                "Runs of kernel programs, while kernel.bpf_stats_enabled is set",
                of(|one| number(one.runs)),
            ),
            Reading::counters(
                "bpf_program_run_seconds",
                "Run time of kernel programs, while kernel.bpf_stats_enabled is set",
                of(|one| one.run_time.as_secs_f64()),
            ),
        ]);
    }

    /// What sandboxes sent and received: those that run as the kernel counts it,
    /// those that ended as their closing records told it.
    fn read_traffic(&self, readings: &mut Vec<Reading>) {
        let running: Vec<_> = self.book().members().map(|member| member.cgroup).collect();
        let recording = self.recorder();
        let (mut sent, mut received) = recording.metrics().bytes_of_ended();
        for cgroup in running {
            let traffic = self.enforcer().traffic(cgroup).unwrap_or_default();
            sent = sent.saturating_add(traffic.sent);
            received = received.saturating_add(traffic.received);
        }
        let of = |direction: &str, bytes: u64| {
            (vec![("direction", direction.to_owned())], number(bytes))
        };
        readings.push(Reading::counters(
            "bytes",
            "Bytes of IP packets that sandboxes sent and received",
            vec![of("sent", sent), of("received", received)],
        ));
    }

    fn read_resolver(&self, readings: &mut Vec<Reading>) {
        let Some((_, counts)) = self.resolver() else {
            return;
        };
        for (name, total) in counts.named() {
            readings.push(Reading::counter(
                format!("dns_{name}"),
                format!("Resolver: {}", name.replace('_', " ")),
                number(total),
            ));
        }
        if let Some((sum, buckets)) = self.resolver_latency() {
            readings.push(Reading::histogram(
                "latency_seconds",
                "How long the resolver takes to answer, refusals included",
                Histogram { sum, buckets },
            ));
        }
    }

    fn read_deliveries(&self, readings: &mut Vec<Reading>) {
        let counts = self.delivery().map(Delivery::counts).unwrap_or_default();
        let of = |outcome: &str, count| (vec![("outcome", outcome.to_owned())], number(count));
        readings.push(Reading::counters(
            "alert_deliveries",
            "Alerts on their way to people, by what became of them",
            vec![
                of("delivered", counts.delivered),
                of("retried", counts.retried),
                of("failed", counts.failed),
                of("dropped", counts.dropped),
            ],
        ));
    }

    fn read_store(&self, readings: &mut Vec<Reading>) {
        let health = self.store().health();
        readings.extend([
            Reading::gauge(
                "audit_queue_length",
                "Records that wait to be written",
                number(health.queued),
            ),
            Reading::counter(
                "audit_records_written",
                "Records written to the audit store",
                number(health.written),
            ),
            Reading::counter(
                "audit_records_lost",
                "Records that found no place in the audit queue",
                number(health.lost),
            ),
            Reading::gauge(
                "audit_failing",
                "1 while records cannot be written",
                if health.error.is_some() { 1.0 } else { 0.0 },
            ),
        ]);
    }
}
