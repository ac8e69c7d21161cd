//! What systemd is told (`sd_notify(3)`). Without a supervisor that listens
//! these calls do nothing.

use sd_notify::NotifyState;
use std::path::Path;

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
