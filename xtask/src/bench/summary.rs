//! From samples to medians.
//!
//! Columns are compared round by round, and the median is taken of the
//! differences: what disturbed a round disturbed both sides of it.

use super::samples::{Operation, Run};
use super::targets::{Bound, Verdict, bound};

/// The column that the others are compared with.
const BARE: &str = "bare";
/// The column that is judged.
const ENFORCED: &str = "enforced";

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A quarter is below.
    pub low: f64,
    /// Half is below.
    pub median: f64,
    /// A quarter is above.
    pub high: f64,
}

impl Spread {
    /// The spread of these values; zero where there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * values.len().saturating_sub(1) as f64;
            let value = |place: f64| values.get(place as usize).copied().unwrap_or_default();
            let (below, above) = (value(place.floor()), value(place.ceil()));
            below + (above - below) * place.fract()
        };
        Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        }
    }
}

/// One cell of the table.
#[derive(Debug)]
pub struct Cell {
    /// The column.
    pub column: String,
    /// The samples.
    pub value: Spread,
    /// How much more than bare, in the same round.
    pub more: Spread,
    /// How many times bare, in the same round.
    pub ratio: Spread,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The operation.
    pub operation: String,
    /// What is counted.
    pub unit: String,
    /// The columns, bare first.
    pub cells: Vec<Cell>,
    /// What it may cost, and whether it does.
    pub target: Option<(Bound, Verdict)>,
}

/// The whole run.
pub struct Summary {
    /// Where it comes from.
    pub run: Run,
    /// The operations.
    pub rows: Vec<Row>,
}

impl Summary {
    /// Sums a run up.
    pub fn of(run: Run) -> Self {
        let rows = run.operations.iter().map(row).collect();
        Self { run, rows }
    }

    /// The operations that cost more than they may.
    pub fn missed(&self) -> Vec<&str> {
        let missed = |row: &&Row| matches!(row.target, Some((_, Verdict::Missed)));
        let rows = self.rows.iter().filter(missed);
        rows.map(|row| row.operation.as_str()).collect()
    }
}

fn row(operation: &Operation) -> Row {
    const ORDER: [&str; 4] = [BARE, "empty", ENFORCED, "nftables"];
    let none = Vec::new();
    let bare = operation.samples.get(BARE).unwrap_or(&none);
    let cells: Vec<Cell> = ORDER
        .iter()
        .filter_map(|column| {
            let samples = operation.samples.get(*column)?;
            let pairs = || samples.iter().zip(bare);
            Some(Cell {
                column: (*column).to_owned(),
                value: Spread::of(samples.clone()),
                more: Spread::of(pairs().map(|(own, bare)| own - bare).collect()),
                ratio: Spread::of(pairs().map(|(own, bare)| own / bare).collect()),
            })
        })
        .collect();
    let judged = cells.iter().find(|cell| cell.column == ENFORCED);
    let target = bound(&operation.name)
        .zip(judged)
        .map(|(bound, cell)| (bound, bound.judge(cell.more, cell.ratio)));
    Row {
        operation: operation.name.clone(),
        unit: operation.unit.clone(),
        cells,
        target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn quartiles_lie_between_the_samples() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        let spread = Spread::of(vec![1.0, 2.0]);
        assert_eq!((spread.low, spread.median, spread.high), (1.25, 1.5, 1.75));
        assert_eq!(Spread::of(Vec::new()).median, 0.0);
    }

    #[test]
    fn columns_are_compared_round_by_round() {
        // The machine is ten times slower in the second round; the difference
        // of the medians would say 1, which is true of no round.
        let samples = BTreeMap::from([
            (BARE.to_owned(), vec![1_000.0, 10_000.0, 1_001.0]),
            (ENFORCED.to_owned(), vec![1_100.0, 10_100.0, 1_002.0]),
        ]);
        let row = row(&Operation {
            name: "udp-connect".into(),
            unit: "ns".into(),
            samples,
        });
        assert_eq!(row.cells[1].more.median, 100.0);
        let (_, verdict) = row.target.expect("it has a bound");
        assert_eq!(verdict, Verdict::Goal);
    }
}
