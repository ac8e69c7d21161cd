//! How much of the machine a sandbox may use.

use std::fmt;
use std::time::Duration;

/// Limits of a sandbox. What is absent is not limited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Thousandths of a CPU.
    pub cpu: Option<u32>,
    /// Share of the CPU against other sandboxes, 1 to 10,000; 100 is the kernel's own.
    pub cpu_weight: Option<u16>,
    /// Bytes of memory; beyond it the sandbox is killed.
    pub memory: Option<u64>,
    /// Bytes of memory beyond which it is slowed down.
    pub memory_high: Option<u64>,
    /// Bytes of swap; with `memory` and without this, none.
    pub memory_swap: Option<u64>,
    /// Processes and threads at a time.
    pub pids: Option<u32>,
    /// Limits of block devices.
    pub io: Vec<IoLimit>,
    /// Wall-clock time from its beginning to its end.
    pub timeout: Option<Duration>,
    /// Bytes of `/tmp`, everything else being read-only.
    pub disk: Option<u64>,
    /// TCP connections at a time.
    pub max_connections: Option<u32>,
    /// Bytes that wait to be sent over TCP, all connections together.
    pub max_pending_bytes: Option<u64>,
    /// What the host cannot limit is left out and told, instead of refused.
    pub best_effort: bool,
}

/// Which system calls a command cannot make. The order is that of strictness.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum SeccompProfile {
    /// It can make all of them.
    None,
    /// None that goes round the kernel programs.
    #[default]
    Default,
    /// Nor any that ordinary programs do without.
    Strict,
}

/// What a block device may be asked to do, per second.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IoLimit {
    /// A path such as `/dev/vda`, or a mount point's.
    pub device: String,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Read operations.
    pub read_operations: Option<u64>,
    /// Write operations.
    pub write_operations: Option<u64>,
}

/// The smallest send buffer that the kernel gives a socket, in bytes
/// (`SOCK_MIN_SNDBUF`, include/net/sock.h, on 64-bit machines).
pub const LEAST_SEND_BUFFER: u64 = 4608;
/// The largest that a socket can be given (`INT_MAX`); no host lets one have it.
const MOST_SEND_BUFFER: u64 = i32::MAX as u64;

impl Limits {
    /// Whether anything is limited.
    pub fn is_empty(&self) -> bool {
        let unlimited = Self {
            best_effort: self.best_effort,
            ..Self::default()
        };
        *self == unlimited
    }

    /// The send buffer of each connection, in bytes: their sum is the bound.
    pub fn send_buffer(&self) -> Option<u32> {
        let connections = u64::from(self.max_connections?);
        let each = self.max_pending_bytes?.checked_div(connections)?;
        Some(u32::try_from(each.min(MOST_SEND_BUFFER)).unwrap_or(u32::MAX))
    }
}

/// A number of bytes as policies write it: in the largest unit that fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [
            ("Ti", 1 << 40),
            ("Gi", 1 << 30),
            ("Mi", 1 << 20),
            ("Ki", 1 << 10),
        ] {
            if self.0 != 0 && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Limits};

    #[test]
    fn bytes_are_written_as_policies_write_them() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (1 << 20, "1Mi"),
            (3 << 29, "1536Mi"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_send_buffers_of_all_connections_are_the_bound() {
        let limits = Limits {
            max_connections: Some(10),
            max_pending_bytes: Some(100_000),
            ..Limits::default()
        };
        assert_eq!(limits.send_buffer(), Some(10_000));
        assert!(
            Limits {
                best_effort: true,
                ..Limits::default()
            }
            .is_empty()
        );
        assert!(!limits.is_empty());
    }
}
