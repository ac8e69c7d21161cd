//! From samples to medians and ratios.

use super::servers::Server;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What one measurement found.
pub struct Sample {
    scenario: &'static str,
    measure: Measure,
}

enum Measure {
    /// Answers per second.
    Rate(f64),
    /// Microseconds of each answer.
    Each(Vec<f64>),
}

impl Sample {
    pub const fn rate(scenario: &'static str, rate: f64) -> Self {
        Self {
            scenario,
            measure: Measure::Rate(rate),
        }
    }

    pub const fn each(scenario: &'static str, each: Vec<f64>) -> Self {
        Self {
            scenario,
            measure: Measure::Each(each),
        }
    }
}

/// A run.
pub struct Report {
    rounds: u32,
    workers: u32,
    rates: BTreeMap<&'static str, BTreeMap<Server, Vec<f64>>>,
    times: BTreeMap<&'static str, BTreeMap<Server, Vec<f64>>>,
}

impl Report {
    pub fn new(rounds: u32, workers: u32) -> Self {
        Self {
            rounds,
            workers,
            rates: BTreeMap::new(),
            times: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, server: Server, sample: Sample) {
        let (kept, new) = match sample.measure {
            Measure::Rate(rate) => (&mut self.rates, vec![rate]),
            Measure::Each(each) => (&mut self.times, each),
        };
        let samples = kept.entry(sample.scenario).or_default();
        samples.entry(server).or_default().extend(new);
    }

    /// A table for people.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "answers per second",
            "egress",
            "unbound",
            "dnsmasq",
            "dnsdist",
            "egress / unbound",
        ]);
        for (scenario, samples) in &self.rates {
            let cell = |server: Server| {
                samples.get(&server).map_or("–".to_owned(), |samples| {
                    let [low, middle, high] = quartiles(samples);
                    format!("{:.0}k [{:.0}..{:.0}]", middle / 1e3, low / 1e3, high / 1e3)
                })
            };
            let mut row = vec![(*scenario).to_owned()];
            row.extend(Server::ALL.map(cell));
            row.push(
                self.ratio(scenario)
                    .map_or("–".to_owned(), |ratio| format!("×{ratio:.2}")),
            );
            table.add_row(row);
        }
        let mut times = Table::new();
        times.load_style(presets::ASCII_MARKDOWN);
        times.set_header(["µs: median, p99", "egress", "unbound", "dnsmasq", "dnsdist"]);
        for (scenario, samples) in &self.times {
            let mut row = vec![(*scenario).to_owned()];
            row.extend(Server::ALL.map(|server| {
                samples.get(&server).map_or("–".to_owned(), |samples| {
                    format!("{:.0}, {:.0}", at(samples, 0.5), at(samples, 0.99))
                })
            }));
            times.add_row(row);
        }
        format!(
            "{} rounds; our resolver with {} reading thread(s), the others with one\n\n{table}\n\n{times}",
            self.rounds, self.workers
        )
    }

    /// The median of the ratios of each round.
    fn ratio(&self, scenario: &str) -> Option<f64> {
        let samples = self.rates.get(scenario)?;
        let pairs = samples
            .get(&Server::Egress)?
            .iter()
            .zip(samples.get(&Server::Unbound)?);
        let ratios: Vec<f64> = pairs.map(|(own, peer)| own / peer).collect();
        Some(at(&ratios, 0.5))
    }

    /// One JSON object with every sample.
    pub fn json(&self) -> Value {
        let named = |samples: &BTreeMap<&'static str, BTreeMap<Server, Vec<f64>>>| {
            let servers = |by: &BTreeMap<Server, Vec<f64>>| -> Value {
                by.iter()
                    .map(|(server, samples)| (server.name().to_owned(), json!(samples)))
                    .collect()
            };
            samples
                .iter()
                .map(|(scenario, by)| ((*scenario).to_owned(), servers(by)))
                .collect::<Value>()
        };
        json!({
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "rounds": self.rounds,
            "workers": self.workers,
            "answers_per_second": named(&self.rates),
            "microseconds": named(&self.times),
        })
    }
}

/// The sample at a share of the sorted samples.
fn at(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

fn quartiles(samples: &[f64]) -> [f64; 3] {
    [0.25, 0.5, 0.75].map(|share| at(samples, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_rounds() {
        let mut report = Report::new(3, 1);
        for (own, peer) in [(10.0, 10.0), (30.0, 20.0), (90.0, 30.0)] {
            report.add(Server::Egress, Sample::rate("cached", own));
            report.add(Server::Unbound, Sample::rate("cached", peer));
        }
        assert_eq!(report.ratio("cached"), Some(1.5));
        assert!(report.text().contains("×1.50"));
        assert_eq!(report.ratio("cold"), None);
    }
}
