//! What a sandbox used of its machine.

use serde::{Deserialize, Serialize};

/// What a sandbox used from its beginning to its end, as the kernel accounts for
/// its cgroup. Absent is what the kernel does not tell.
///
/// The members stand in the order of their names, as a canonical record has them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceUse {
    /// Processor time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Times that the kernel killed in it for want of memory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_kills: u64,
    /// The most memory at a time, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// The most processes at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_peak: Option<u64>,
    /// Processes that could not be started because of `pids_limit`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub processes_refused: u64,
    /// Bytes read from block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// Bytes of IP packets that it received, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Bytes of IP packets that it sent, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Time for which `cpu_limit` held it back, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
    /// Bytes written to block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ResourceUse {
    /// Takes another sandbox's use to this one: times and bytes are summed up, of
    /// peaks the higher one stays.
    pub fn join(&mut self, other: &Self) {
        let sum = |own: &mut Option<u64>, other: Option<u64>| {
            if let Some(other) = other {
                *own = Some(own.unwrap_or(0).saturating_add(other));
            }
        };
        sum(&mut self.cpu_us, other.cpu_us);
        sum(&mut self.throttled_us, other.throttled_us);
        sum(&mut self.read_bytes, other.read_bytes);
        sum(&mut self.written_bytes, other.written_bytes);
        sum(&mut self.sent_bytes, other.sent_bytes);
        sum(&mut self.received_bytes, other.received_bytes);
        self.memory_kills = self.memory_kills.saturating_add(other.memory_kills);
        self.processes_refused = self
            .processes_refused
            .saturating_add(other.processes_refused);
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        self.processes_peak = self.processes_peak.max(other.processes_peak);
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
