//! What sandboxes use of the network, as the kernel programs count it.

use super::{Enforcer, EnforcerError};
use egress_common::{CgroupId, Settings, Traffic};

impl Enforcer {
    /// Counts what sandboxes send and receive, or no longer.
    pub fn count_bytes(&self, count: bool) -> Result<(), EnforcerError> {
        self.maps.set_settings(Settings {
            count_bytes: u32::from(count),
            ..self.maps.settings()?
        })
    }

    /// What a cgroup has sent and received while it was counted.
    pub fn traffic(&self, cgroup: CgroupId) -> Result<Traffic, EnforcerError> {
        self.maps.traffic_of(cgroup)
    }

    /// How many TCP sockets are connected in a cgroup; 0 where they are not counted.
    pub fn open_connections(&self, cgroup: CgroupId) -> Result<u64, EnforcerError> {
        self.maps.open_connections(cgroup)
    }
}
