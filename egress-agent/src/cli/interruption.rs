//! Signals that arrive before the command runs, or after its end.
//!
//! While the command runs they are handed to it. Before and after, this process
//! has things to put away (a cgroup, a governed root with its programs), which
//! the default action would leave behind.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals by which people and init systems end a process.
const ENDING: [SignalKind; 3] = [
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::hangup(),
];

/// Holds the signals back as long as the process lives, and tells of them.
pub struct Interruption {
    held: Vec<(SignalKind, Signal)>,
}

impl Interruption {
    /// Holds back the signals that end this process, except those that the
    /// caller made it ignore, as `nohup` does.
    pub fn hold_back() -> std::io::Result<Self> {
        let ignored = ignored();
        let held = ENDING
            .into_iter()
            .filter(|kind| ignored & bit(kind.as_raw_value()) == 0)
            .map(|kind| Ok((kind, signal(kind)?)))
            .collect::<std::io::Result<_>>()?;
        Ok(Self { held })
    }

    /// The exit code of a process that was ended, if a signal has come.
    pub async fn exit_code(&mut self) -> Option<u8> {
        for (kind, arrivals) in &mut self.held {
            let came = tokio::select! {
                biased;
                came = arrivals.recv() => came.is_some(),
                () = std::future::ready(()) => false,
            };
            if came {
                return u8::try_from(128 + kind.as_raw_value()).ok();
            }
        }
        None
    }
}

/// Where a signal stands in the kernel's masks.
fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The mask of ignored signals. Where it cannot be read, none is ignored: then
/// ending is what a signal means.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_the_kernels() {
        // Rust's start-up ignores SIGPIPE, and nobody has told it to ignore SIGSEGV.
        assert_ne!(ignored() & bit(libc::SIGPIPE), 0);
        assert_eq!(ignored() & bit(libc::SIGSEGV), 0);
    }

    #[tokio::test]
    async fn a_signal_is_told_once_it_has_come() {
        let mut interruption = Interruption::hold_back().expect("signals");
        assert_eq!(interruption.exit_code().await, None);
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::HUP).expect("sent");
        let mut code = None;
        for _ in 0..100 {
            code = interruption.exit_code().await;
            if code.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(code, Some(129));
    }
}
