//! From samples to medians and ratios.

use super::servers::Server;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names that nobody asked before.
pub const COLD: &str = "cold";
/// The same, asked from where they are known.
pub const ALONE: &str = "the upstream alone";

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
    /// Microseconds of processor that the server used for one answer.
    Cost(f64),
}

impl Sample {
    pub const fn rate(scenario: &'static str, rate: f64) -> Self {
        Self {
            scenario,
            measure: Measure::Rate(rate),
        }
    }

    pub const fn cost(scenario: &'static str, cost: f64) -> Self {
        Self {
            scenario,
            measure: Measure::Cost(cost),
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
    rates: Samples,
    costs: Samples,
    times: Samples,
}

type ByServer = BTreeMap<Server, Vec<f64>>;

/// By scenario.
type Samples = BTreeMap<&'static str, ByServer>;

impl Report {
    pub fn new(rounds: u32, workers: u32) -> Self {
        Self {
            rounds,
            workers,
            rates: BTreeMap::new(),
            costs: BTreeMap::new(),
            times: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, server: Server, sample: Sample) {
        let (kept, new) = match sample.measure {
            Measure::Rate(rate) => (&mut self.rates, vec![rate]),
            Measure::Cost(cost) => (&mut self.costs, vec![cost]),
            Measure::Each(each) => (&mut self.times, each),
        };
        let samples = kept.entry(sample.scenario).or_default();
        samples.entry(server).or_default().extend(new);
    }

    /// A table for people.
    pub fn text(&self) -> String {
        let rate = |[low, middle, high]: [f64; 3]| {
            format!("{:.0}k [{:.0}..{:.0}]", middle / 1e3, low / 1e3, high / 1e3)
        };
        let cost = |[low, middle, high]: [f64; 3]| format!("{middle:.2} [{low:.2}..{high:.2}]");
        let rates = compared(
            "answers per second",
            &self.rates,
            "egress / unbound",
            rate,
            ratio,
        );
        // Turned round, so that more is better here, too.
        let saved = |samples: &ByServer| ratio(samples).map(f64::recip);
        let costs = compared(
            "µs of the server's processor per answer",
            &self.costs,
            "unbound / egress",
            cost,
            saved,
        );
        let mut times = Table::new();
        times.load_style(presets::ASCII_MARKDOWN);
        times.set_header(
            [
                &["µs: median, p99"],
                Server::ALL.map(Server::name).as_slice(),
            ]
            .concat(),
        );
        for (scenario, samples) in &self.times {
            let mut row = vec![(*scenario).to_owned()];
            row.extend(Server::ALL.map(|server| {
                samples.get(&server).map_or("–".to_owned(), |samples| {
                    format!("{:.0}, {:.0}", at(samples, 0.5), at(samples, 0.99))
                })
            }));
            times.add_row(row);
        }
        if let Some((cold, alone)) = self.beside_the_upstream() {
            let mut row = vec!["cold, added to the upstream alone".to_owned()];
            row.extend(Server::ALL.map(|server| {
                cold.get(&server).map_or("–".to_owned(), |cold| {
                    let added = |share| at(cold, share) - at(alone, share);
                    format!("{:.0}, {:.0}", added(0.5), added(0.99))
                })
            }));
            times.add_row(row);
        }
        format!(
            "{} rounds; our resolver with {} reading thread(s), the others with one\n\n{rates}\n\n{costs}\n\n{times}",
            self.rounds, self.workers
        )
    }

    /// What cold names took at each server, and at the upstream without one in between.
    fn beside_the_upstream(&self) -> Option<(&ByServer, &[f64])> {
        let alone = self.times.get(ALONE)?.get(&Server::Egress)?;
        Some((self.times.get(COLD)?, alone))
    }

    /// One JSON object with every sample.
    pub fn json(&self) -> Value {
        let named = |samples: &Samples| {
            let servers = |by: &ByServer| -> Value {
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
            "processor_microseconds_per_answer": named(&self.costs),
            "microseconds": named(&self.times),
        })
    }
}

/// A table of all servers, with ours beside unbound at the end.
fn compared(
    what: &str,
    scenarios: &Samples,
    beside: &str,
    cell: impl Fn([f64; 3]) -> String,
    ratio: impl Fn(&ByServer) -> Option<f64>,
) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let names = Server::RESOLVERS.map(Server::name);
    table.set_header([&[what], names.as_slice(), &[beside]].concat());
    for (scenario, samples) in scenarios {
        let cells = Server::RESOLVERS.map(|server| {
            let samples = samples.get(&server);
            samples.map_or("–".to_owned(), |samples| cell(quartiles(samples)))
        });
        let ratio = ratio(samples).map_or("–".to_owned(), |ratio| format!("×{ratio:.2}"));
        let mut row = vec![(*scenario).to_owned()];
        row.extend(cells);
        row.push(ratio);
        table.add_row(row);
    }
    table
}

/// The median of ours divided by unbound's of the same round.
fn ratio(samples: &ByServer) -> Option<f64> {
    let (own, peer) = (
        samples.get(&Server::Egress)?,
        samples.get(&Server::Unbound)?,
    );
    let ratios: Vec<f64> = own.iter().zip(peer).map(|(own, peer)| own / peer).collect();
    Some(at(&ratios, 0.5))
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
        for (own, peer) in [(2.0, 2.0), (2.0, 5.0), (4.0, 10.0)] {
            report.add(Server::Egress, Sample::cost("refused", own));
            report.add(Server::Unbound, Sample::cost("refused", peer));
        }
        assert_eq!(ratio(&report.rates["cached"]), Some(1.5));
        let text = report.text();
        assert!(text.contains("×1.50"), "{text}");
        assert!(text.contains("×2.50"), "less is better: {text}");
        assert_eq!(ratio(&BTreeMap::new()), None);
    }

    #[test]
    fn what_is_added_is_told_for_each_server() {
        let mut report = Report::new(1, 1);
        report.add(
            Server::Egress,
            Sample::each(COLD, vec![100.0, 150.0, 400.0]),
        );
        report.add(Server::Relay, Sample::each(COLD, vec![90.0, 120.0, 130.0]));
        assert!(!report.text().contains("added"), "to what is not known");
        report.add(Server::Egress, Sample::each(ALONE, vec![50.0, 80.0, 100.0]));
        let text = report.text();
        let row = text.lines().find(|line| line.contains("added"));
        let cells: Vec<&str> = row.expect("a row").split('|').map(str::trim).collect();
        assert_eq!(cells[2..7], ["70, 300", "–", "–", "–", "40, 30"], "{text}");
    }
}
