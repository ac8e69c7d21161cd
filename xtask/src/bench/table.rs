//! The result, for people and for programs.

use super::summary::{Cell, Row, Spread, Summary};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use std::fmt::Write;

/// The result as tables.
pub fn text(summary: &Summary) -> String {
    let run = &summary.run;
    let mut text = format!(
        "Linux {}, {} x {}, load before {}; {} rounds\n\
         {} grants, {} sandboxes, {} networks in the maps; medians, quartiles in brackets,\n\
         differences and ratios to bare of the same round\n\n{}\n",
        run.kernel,
        run.processors,
        run.processor,
        run.load_before.as_deref().unwrap_or("unknown"),
        run.rounds,
        run.grants,
        run.sandboxes,
        run.networks,
        operations(summary),
    );
    // Writing into a string cannot fail.
    for (column, reason) in &run.missing {
        let _ = writeln!(text, "no column {column}: {reason}");
    }
    let _ = write!(
        text,
        "\nThe programs by the kernel's own clock (bpf_stats), which adds about 50 ns to each run\n\n{}",
        programs(summary)
    );
    text
}

fn operations(summary: &Summary) -> Table {
    let mut table = new_table();
    let columns = ["operation", "bare", "empty", "enforced", "nftables"];
    table.set_header(columns.into_iter().chain(["must / goal", "met"]));
    for row in &summary.rows {
        let mut cells = vec![row.operation.clone()];
        for column in &columns[1..] {
            let cell = row.cells.iter().find(|cell| cell.column == *column);
            cells.push(cell.map_or_else(String::new, |cell| words(row, cell)));
        }
        let (target, met) = row
            .target
            .map_or_else(Default::default, |(bound, verdict)| {
                (bound.words(), verdict.word().to_owned())
            });
        cells.extend([target, met]);
        table.add_row(cells);
    }
    table
}

/// `3798 ns`, `+330 [314..339]\n×1.087`, `×0.991 [0.98..1.00]`.
fn words(row: &Row, cell: &Cell) -> String {
    let Spread { low, median, high } = cell.more;
    let ratio = cell.ratio;
    match (cell.column.as_str(), row.unit.as_str()) {
        ("bare", "ns") => format!("{:.0} ns", cell.value.median),
        ("bare", unit) => format!("{:.1} {unit}", cell.value.median),
        (_, "ns") => format!("{median:+.0} [{low:.0}..{high:.0}]\n×{:.3}", ratio.median),
        _ => format!(
            "×{:.3}\n[{:.3}..{:.3}]",
            ratio.median, ratio.low, ratio.high
        ),
    }
}

fn programs(summary: &Summary) -> Table {
    let mut table = new_table();
    table.set_header(["operation", "program", "runs", "ns each"]);
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for program in &summary.run.programs {
        let runs = program.runs_per_operation;
        table.add_row([
            program.operation.clone(),
            program.program.clone(),
            runs.map_or_else(String::new, |runs| format!("{runs:.1}")),
            format!("{:.0}", program.ns_per_run),
        ]);
    }
    table
}

fn new_table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The result as JSON.
pub fn json(summary: &Summary) -> Value {
    let run = &summary.run;
    let rows: Vec<Value> = summary.rows.iter().map(row_json).collect();
    let programs: Vec<Value> = run
        .programs
        .iter()
        .map(|program| {
            json!({
                "operation": program.operation,
                "program": program.program,
                "runs_per_operation": program.runs_per_operation,
                "ns_per_run": program.ns_per_run,
                "verified_instructions": program.verified_instructions,
            })
        })
        .collect();
    json!({
        "kernel": run.kernel,
        "processor": run.processor,
        "processors": run.processors,
        "load_before": run.load_before,
        "rounds": run.rounds,
        "grants": run.grants,
        "sandboxes": run.sandboxes,
        "networks": run.networks,
        "operations": rows,
        "programs": programs,
        "missing": run.missing,
    })
}

fn row_json(row: &Row) -> Value {
    let columns: serde_json::Map<String, Value> = row
        .cells
        .iter()
        .map(|cell| {
            let value = json!({
                "value": spread_json(cell.value),
                "more_than_bare": spread_json(cell.more),
                "times_bare": spread_json(cell.ratio),
            });
            (cell.column.clone(), value)
        })
        .collect();
    json!({
        "operation": row.operation,
        "unit": row.unit,
        "columns": columns,
        "target": row.target.map(|(bound, _)| bound.words()),
        "met": row.target.map(|(_, verdict)| verdict.word()),
    })
}

fn spread_json(spread: Spread) -> Value {
    json!({ "median": spread.median, "first_quartile": spread.low, "third_quartile": spread.high })
}
