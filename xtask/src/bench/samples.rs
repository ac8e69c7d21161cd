//! What the measuring program prints.

use serde::Deserialize;
use std::collections::BTreeMap;

/// One run.
#[derive(Debug, Deserialize)]
pub struct Run {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// How many processors the run could use.
    pub processors: usize,
    /// The load average of the last minute before the run.
    pub load_before: Option<String>,
    /// How many samples each column has of each operation.
    pub rounds: u32,
    /// Grants in the maps.
    pub grants: u32,
    /// Sandboxes in the maps.
    pub sandboxes: u32,
    /// Static networks in the maps.
    pub networks: u32,
    /// What was measured.
    pub operations: Vec<Operation>,
    /// What each program cost by the kernel's clock.
    pub programs: Vec<Program>,
    /// Columns that could not be made, with the reason.
    pub missing: BTreeMap<String, String>,
}

/// The samples of one operation.
#[derive(Debug, Deserialize)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// What a sample counts: `ns`, or `Gbit/s`.
    pub unit: String,
    /// The samples by column; the n-th of each column are of one round.
    pub samples: BTreeMap<String, Vec<f64>>,
}

/// The cost of one program during one operation.
#[derive(Debug, Deserialize)]
pub struct Program {
    /// The operation.
    pub operation: String,
    /// The program's name.
    pub program: String,
    /// How often it runs; absent where an operation is not countable.
    pub runs_per_operation: Option<f64>,
    /// Mean run time, with what the statistics themselves cost.
    pub ns_per_run: f64,
    /// Instructions that the verifier walked.
    pub verified_instructions: Option<u32>,
}
