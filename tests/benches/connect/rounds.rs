//! The run: rounds over operations and columns, in rotating order.

use super::columns::{Column, Guard};
use super::enforced::{GRANTS, NETWORKS, SANDBOXES};
use super::guardian::Guarded;
use super::operation::Operation;
use egress_agent::enforcer::{Enforcer, ProgramStatistics, Statistics};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{self, Write};
use std::time::Duration;

/// So few runs have no meaningful mean.
const FEW: u64 = 100;

/// Runs everything and prints the samples.
pub fn run(rounds: u32, operations: &[Operation]) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::other(
            "it needs root for cgroups, namespaces and programs",
        ));
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let guarded = Guarded::cgroup()?;
    let mut columns = Vec::new();
    let mut missing = Map::new();
    for guard in Guard::ALL {
        match Column::new(guard, &guarded) {
            Ok(column) => columns.push(column),
            // Whoever has no nft still wants to know the rest.
            Err(error) if guard == Guard::Nftables => {
                missing.insert(guard.name().into(), error.to_string().into());
            }
            Err(error) => {
                return Err(io::Error::other(format!(
                    "column {}: {error}",
                    guard.name()
                )));
            }
        }
    }
    let samples = measure(rounds, operations, &mut columns)?;
    let programs = programs(operations, &mut columns)?;
    let operations: Vec<Value> = samples
        .into_iter()
        .map(|(operation, samples)| {
            json!({ "name": operation.name(), "unit": operation.unit(), "samples": samples })
        })
        .collect();
    drop(columns);
    let result = json!({
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "processor": processor(),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "load_before": load.split(' ').next(),
        "rounds": rounds,
        "grants": GRANTS,
        "sandboxes": SANDBOXES,
        "networks": NETWORKS,
        "operations": operations,
        "programs": programs,
        "missing": missing,
    });
    writeln!(io::stdout(), "{result}")
}

/// Samples of each operation by column.
type Samples = Vec<(Operation, Map<String, Value>)>;

fn measure(rounds: u32, operations: &[Operation], columns: &mut [Column]) -> io::Result<Samples> {
    let mut samples: Vec<(Operation, Vec<Vec<f64>>)> = operations
        .iter()
        .map(|operation| (*operation, vec![Vec::new(); columns.len()]))
        .collect();
    // The round before the first fills caches and socket storage.
    for round in 0..=rounds as usize {
        progress(round, rounds);
        for (operation, samples) in &mut samples {
            for turn in 0..columns.len() {
                let turn = (turn + round) % columns.len();
                let (value, _) = columns[turn].measure(*operation)?;
                if round > 0 {
                    samples[turn].push(value);
                }
            }
        }
    }
    eprintln!();
    let named = |samples: Vec<Vec<f64>>| {
        columns
            .iter()
            .zip(samples)
            .map(|(column, samples)| (column.guard.name().to_owned(), json!(samples)))
            .collect()
    };
    Ok(samples
        .into_iter()
        .map(|(operation, samples)| (operation, named(samples)))
        .collect())
}

fn progress(round: usize, rounds: u32) {
    // Who does not watch misses nothing.
    let _ = write!(io::stderr(), "\rround {round} of {rounds}");
}

/// What each program costs by the kernel's own clock, apart from the rounds,
/// which that clock would slow down.
fn programs(operations: &[Operation], columns: &mut [Column]) -> io::Result<Vec<Value>> {
    let failed = |error: egress_agent::enforcer::EnforcerError| io::Error::other(error.to_string());
    let _on = Statistics::enable().map_err(failed)?;
    let mut found = Vec::new();
    let Some(column) = columns.iter_mut().find(|it| it.guard == Guard::Enforced) else {
        return Ok(found);
    };
    for operation in operations.iter().copied() {
        let before = read(column.enforcer.as_ref());
        let (_, times) = column.measure(operation)?;
        for after in read(column.enforcer.as_ref()) {
            let (runs, spent) = before
                .iter()
                .find(|it| it.program == after.program)
                .map_or((after.runs, after.run_time), |before| {
                    (after.runs - before.runs, after.run_time - before.run_time)
                });
            // What ran now and then belongs to no operation.
            if runs < u64::from(times) / 2 || runs < FEW {
                continue;
            }
            found.push(json!({
                "operation": operation.name(),
                "program": after.program,
                "runs_per_operation": if operation.is_bulk() { Value::Null } else { json!(runs as f64 / f64::from(times)) },
                "ns_per_run": nanoseconds(spent) / runs as f64,
                "verified_instructions": after.verified_instructions,
            }));
        }
    }
    Ok(found)
}

fn read(enforcer: Option<&Enforcer>) -> Vec<ProgramStatistics> {
    enforcer.map(Enforcer::statistics).unwrap_or_default()
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown".into(), |(_, name)| name.to_owned())
}
