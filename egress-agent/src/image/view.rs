//! The shared decision, asked of an image instead of the kernel.

use super::Image;
use egress_common::{
    CgroupId, Destination, Grant, GrantKey, Lookups, Neighbour, Network, NetworkKey, PolicyId,
    Reason, Standing, Verdict, decide,
};

/// An image at a point in time.
pub struct View<'a> {
    image: &'a Image,
    now: u64,
}

impl<'a> View<'a> {
    /// Looks at `image` at boot-time nanoseconds `now`.
    pub const fn new(image: &'a Image, now: u64) -> Self {
        Self { image, now }
    }

    /// What the kernel would decide for a process in `cgroup`. The error is the
    /// reason that precedes every rule: no such sandbox, or a blocked one.
    pub fn decide(
        &self,
        cgroup: CgroupId,
        to: &Destination,
        standing: Standing,
    ) -> Result<Verdict, Reason> {
        let sandbox = self
            .image
            .sandboxes
            .get(&cgroup)
            .ok_or(Reason::UnknownSandbox)?;
        sandbox.admit()?;
        Ok(decide(self, sandbox, to, standing))
    }
}

impl Lookups for View<'_> {
    fn grant(&self, key: &GrantKey) -> Option<Grant> {
        self.image.grants.get(key).copied()
    }

    /// Longest prefix first, as the trie does it.
    fn network(&self, policy: PolicyId, to: &Destination) -> Option<Network> {
        let key = NetworkKey::new(policy, &to.ip);
        (0..=128).rev().find_map(|bits| {
            let prefix = (
                NetworkKey::POLICY_BITS + bits,
                super::networks::mask(key, bits),
            );
            self.image.networks.get(&prefix).copied()
        })
    }

    /// Sockets are no part of an image: only the resolver is known.
    fn neighbour(&self, _: &Destination) -> Neighbour {
        Neighbour::Other
    }

    fn now(&self) -> u64 {
        self.now
    }
}
