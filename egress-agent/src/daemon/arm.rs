//! Enforcement without an agent: what a host has from early in its boot until
//! the agent is up.

use super::config::Config;
use super::error::AgentError;
use crate::enforcer::{self, Place};
use crate::sandbox::{GovernedRoot, Hierarchy};

/// Denies everything below the configured root until an agent runs; whether
/// something had to be done. Policies are not looked at: whatever is wrong with
/// them, this holds.
pub fn arm(config: &Config) -> Result<bool, AgentError> {
    let root = GovernedRoot::ensure(&Hierarchy::find()?, &config.root)?;
    let place = Place {
        path: root.path().to_owned(),
        cgroup: root.id(),
        level: root.level(),
    };
    Ok(enforcer::arm(place, config.events_per_second)?)
}
