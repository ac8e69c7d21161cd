//! What systemd is told (`sd_notify(3)`). Without a supervisor that listens
//! these calls do nothing.

use sd_notify::NotifyState;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

/// Does something that may take minutes before the agent is ready, and asks for
/// patience meanwhile: the audit file of an older version is rewritten, and whoever
/// was killed in the middle of that would begin anew each time.
pub async fn patiently<T>(work: impl Future<Output = T>) -> T {
    /// How often it is asked.
    const TURN: Duration = Duration::from_secs(10);
    /// For how long, in microseconds.
    const MORE: u32 = 60_000_000;
    let mut work = pin!(work);
    let mut turns = tokio::time::interval(TURN);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = turns.tick() => tell(&[NotifyState::ExtendTimeoutUsec(MORE)]),
        }
    }
}

/// The agent enforces and answers.
pub fn ready(root: &Path) {
    let status = format!("enforcing below {}", root.display());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The agent's loop went round. It does so once a second, and the unit gives it
/// thirty (`WatchdogSec=`).
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The agent ends; enforcement stays.
pub fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopped; enforcement stays in force"),
    ]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the supervisor cannot be told");
    }
}
