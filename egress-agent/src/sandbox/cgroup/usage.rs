//! What a sandbox has used, and which limits it has met.

use super::{CgroupError, SandboxCgroup};
use std::time::Duration;

/// A reading. Absent is what this kernel or host does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// CPU time.
    pub cpu: Option<Duration>,
    /// Time for which it was held back by `cpu_limit`.
    pub throttled: Option<Duration>,
    /// The most memory at a time, in bytes. Linux 5.19.
    pub memory_peak: Option<u64>,
    /// Memory now, in bytes.
    pub memory: Option<u64>,
    /// The most processes at a time, the namespace's own one left out. Linux 6.6.
    pub processes_peak: Option<u64>,
    /// Bytes read from block devices.
    pub read: Option<u64>,
    /// Bytes written to them.
    pub written: Option<u64>,
    /// Times that the kernel killed in it for want of memory.
    pub out_of_memory: u64,
    /// Processes that could not be started because of `pids_limit`.
    pub forks_refused: u64,
}

impl SandboxCgroup {
    /// Reads what it has used until now.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let cpu = self.counters("cpu.stat")?;
        let memory = self.counters("memory.events")?;
        let pids = self.counters("pids.events")?;
        let io = self.optional("io.stat")?;
        let micros = |name| value(&cpu, name).map(Duration::from_micros);
        Ok(Usage {
            cpu: micros("usage_usec"),
            throttled: micros("throttled_usec"),
            memory_peak: self.number("memory.peak")?,
            memory: self.number("memory.current")?,
            processes_peak: self.number("pids.peak")?.map(|peak| peak.saturating_sub(1)),
            read: io.as_deref().map(|text| io_sum(text, "rbytes=")),
            written: io.as_deref().map(|text| io_sum(text, "wbytes=")),
            out_of_memory: value(&memory, "oom_kill").unwrap_or(0),
            forks_refused: value(&pids, "max").unwrap_or(0),
        })
    }

    /// A file of one number.
    fn number(&self, file: &str) -> Result<Option<u64>, CgroupError> {
        Ok(self
            .optional(file)?
            .and_then(|text| text.trim().parse().ok()))
    }

    /// A file of names and numbers.
    fn counters(&self, file: &str) -> Result<String, CgroupError> {
        Ok(self.optional(file)?.unwrap_or_default())
    }

    /// A file that is there only with its controller.
    fn optional(&self, file: &str) -> Result<Option<String>, CgroupError> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(CgroupError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn value(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
}

/// The sum of one counter over all devices.
fn io_sum(text: &str, name: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{io_sum, value};

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "low 0\noom 3\noom_kill 2\n";
        assert_eq!(value(text, "oom"), Some(3));
        assert_eq!(value(text, "oom_kill"), Some(2));
        assert_eq!(value(text, "max"), None);
    }

    #[test]
    fn devices_are_added_up() {
        let text = "8:0 rbytes=10 wbytes=1 rios=1\n8:16 rbytes=5 wbytes=2 rios=1\n";
        assert_eq!((io_sum(text, "rbytes="), io_sum(text, "wbytes=")), (15, 3));
    }
}
