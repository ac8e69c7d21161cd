//! Run time of the programs, for benchmarks and status.

use super::Enforcer;
use super::error::{EnforcerError, chain};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// One program's cost.
#[derive(Clone, Debug)]
pub struct ProgramStatistics {
    /// Its name.
    pub program: &'static str,
    /// Total run time while statistics were on.
    pub run_time: Duration,
    /// Runs while statistics were on.
    pub runs: u64,
    /// Instructions that the verifier walked to accept it.
    pub verified_instructions: Option<u32>,
}

/// Keeps the kernel's run-time statistics switched on, for all BPF programs of
/// the machine, as long as it lives. They cost about 20 ns a run.
pub struct Statistics(#[expect(dead_code, reason = "held open")] OwnedFd);

impl Statistics {
    /// Switches them on.
    pub fn enable() -> Result<Self, EnforcerError> {
        enable_stats(Stats::RunTime)
            .map(Self)
            .map_err(|error| EnforcerError::Object(format!("statistics: {}", chain(&error))))
    }
}

impl Enforcer {
    /// Run time and count of each program, while statistics are switched on.
    pub fn statistics(&self) -> Vec<ProgramStatistics> {
        let at_cgroup = self.own();
        let at_cgroup = at_cgroup.iter().map(|(hook, id)| (hook.program, *id));
        let all: Vec<_> = at_cgroup.chain(self.links.loaded()).collect();
        read(&all)
    }
}

fn read(own: &[(&'static str, u32)]) -> Vec<ProgramStatistics> {
    let mut all = Vec::with_capacity(own.len());
    for info in loaded_programs().flatten() {
        if let Some((program, _)) = own.iter().find(|(_, id)| *id == info.id()) {
            all.push(ProgramStatistics {
                program,
                run_time: info.run_time(),
                runs: info.run_count(),
                verified_instructions: info.verified_instruction_count(),
            });
        }
    }
    all
}
