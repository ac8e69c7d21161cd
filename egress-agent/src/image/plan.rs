//! From one image to another: closing before opening.

use super::{Image, Prefix};
use egress_common::{CgroupId, Grant, GrantKey, Network, Sandbox, Settings};

/// One change to one map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the verb and the map are the meaning")]
pub enum Change {
    PutMeter(CgroupId),
    RemoveMeter(CgroupId),
    PutNetwork(Prefix, Network),
    RemoveNetwork(Prefix),
    PutSandbox(CgroupId, Sandbox),
    RemoveSandbox(CgroupId),
    PutGrant(GrantKey, Grant),
    RemoveGrant(GrantKey),
    SetSettings(Settings),
}

/// The changes that lead from `current` to `wanted`.
///
/// The order, and why no prefix of it opens anything that neither end opens:
///
/// 1. sandboxes that end: from then on they are unknown, so denied;
/// 2. grants that end, or that change;
/// 3. networks of policies that no sandbox uses yet, so nobody can use them;
/// 4. sandboxes that move to another policy: one write each, so that a sandbox
///    is under the old policy or the new one and never under both;
/// 5. the settings with the epoch: live connections are judged again, and find
///    only what is wanted;
/// 6. networks that nobody refers to any more, and meters of what has ended;
/// 7. sandboxes that begin, and grants that begin.
///
/// A network that changes *in place* under a policy that is in use is not
/// ordered against the rest: callers give every version of a policy its own id.
pub fn plan(current: &Image, wanted: &Image) -> Vec<Change> {
    let mut changes = Vec::new();

    for cgroup in current.sandboxes.keys() {
        if !wanted.sandboxes.contains_key(cgroup) {
            changes.push(Change::RemoveSandbox(*cgroup));
        }
    }
    for (key, grant) in &current.grants {
        match wanted.grants.get(key) {
            None => changes.push(Change::RemoveGrant(*key)),
            Some(new) if new != grant => changes.push(Change::PutGrant(*key, *new)),
            Some(_) => {}
        }
    }
    for (prefix, network) in &wanted.networks {
        if current.networks.get(prefix) != Some(network) {
            changes.push(Change::PutNetwork(*prefix, *network));
        }
    }
    for (cgroup, sandbox) in &wanted.sandboxes {
        if current
            .sandboxes
            .get(cgroup)
            .is_some_and(|old| old != sandbox)
        {
            changes.push(Change::PutSandbox(*cgroup, *sandbox));
        }
    }
    if current.settings != wanted.settings {
        changes.push(Change::SetSettings(wanted.settings));
    }
    for prefix in current.networks.keys() {
        if !wanted.networks.contains_key(prefix) {
            changes.push(Change::RemoveNetwork(*prefix));
        }
    }
    for cgroup in current.sandboxes.keys() {
        if !wanted.sandboxes.contains_key(cgroup) {
            changes.push(Change::RemoveMeter(*cgroup));
        }
    }
    for (cgroup, sandbox) in &wanted.sandboxes {
        if !current.sandboxes.contains_key(cgroup) {
            // Without its meter a sandbox is enforced, but could not report.
            changes.push(Change::PutMeter(*cgroup));
            changes.push(Change::PutSandbox(*cgroup, *sandbox));
        }
    }
    for (key, grant) in &wanted.grants {
        if !current.grants.contains_key(key) {
            changes.push(Change::PutGrant(*key, *grant));
        }
    }
    changes
}

impl Change {
    /// Carries the change out on an image, as the enforcer does on the kernel.
    pub fn apply_to(&self, image: &mut Image) {
        match *self {
            // Meters open nothing and stand in no image.
            Self::PutMeter(_) | Self::RemoveMeter(_) => {}
            Self::PutNetwork(prefix, network) => {
                image.networks.insert(prefix, network);
            }
            Self::RemoveNetwork(prefix) => {
                image.networks.remove(&prefix);
            }
            Self::PutSandbox(cgroup, sandbox) => {
                image.sandboxes.insert(cgroup, sandbox);
            }
            Self::RemoveSandbox(cgroup) => {
                image.sandboxes.remove(&cgroup);
            }
            Self::PutGrant(key, grant) => {
                image.grants.insert(key, grant);
            }
            Self::RemoveGrant(key) => {
                image.grants.remove(&key);
            }
            Self::SetSettings(settings) => image.settings = settings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::View;
    use super::*;
    use egress_common::{
        Destination, Ip, Mode, NameId, NetworkKey, PolicyId, Port, Protocol, RuleId, SandboxId,
        Service, Standing, Verdict,
    };
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    /// A small world, so that random images meet in the same places.
    fn addresses() -> Vec<Ip> {
        (1..=3)
            .map(|n| Ip::from(IpAddr::from(Ipv4Addr::new(198, 51, 100, n))))
            .collect()
    }

    fn image(version: u32) -> impl Strategy<Value = Image> {
        let sandboxes = proptest::collection::btree_map(1_u64..4, 0_u32..2, 0..3);
        let networks = proptest::collection::btree_map((0_u32..2, 0_usize..3), any::<bool>(), 0..4);
        let grants = proptest::collection::btree_map((1_u32..4, 0_usize..3), any::<bool>(), 0..5);
        (sandboxes, networks, grants).prop_map(move |(sandboxes, networks, grants)| {
            // Each version of a policy has its own id, as callers promise.
            let policy = |n: u32| PolicyId(1 + n + 10 * version);
            Image {
                settings: Settings {
                    epoch: version,
                    ..Settings::default()
                },
                sandboxes: sandboxes
                    .into_iter()
                    .map(|(cgroup, n)| {
                        let id = SandboxId(cgroup as u32);
                        let mode = Mode::Enforce as u32;
                        (
                            CgroupId(cgroup),
                            Sandbox {
                                id,
                                policy: policy(n),
                                mode,
                                max_connections: 0,
                                send_buffer: 0,
                                flags: 0,
                            },
                        )
                    })
                    .collect(),
                networks: networks
                    .into_iter()
                    .map(|((n, ip), tcp)| {
                        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp }.number();
                        let mut network = Network::default();
                        network.services[0] = Service {
                            protocol,
                            first: 1,
                            last: 100,
                            rule: RuleId(1),
                            ..Service::default()
                        };
                        ((160, NetworkKey::new(policy(n), &addresses()[ip])), network)
                    })
                    .collect(),
                grants: grants
                    .into_iter()
                    .map(|((sandbox, ip), long)| {
                        let to = Destination {
                            ip: addresses()[ip],
                            port: Port::from_host(80),
                            protocol: Protocol::Tcp,
                        };
                        let expires = if long { 1000 } else { 10 };
                        (
                            GrantKey::new(SandboxId(sandbox), &to, to.port),
                            Grant {
                                expires,
                                name: NameId(1),
                                rule: RuleId(2),
                            },
                        )
                    })
                    .collect(),
            }
        })
    }

    fn allows(image: &Image, cgroup: u64, to: &Destination) -> bool {
        matches!(
            View::new(image, 500).decide(CgroupId(cgroup), to, Standing::New),
            Ok(Verdict::Allow(_))
        )
    }

    proptest! {
        #[test]
        fn no_step_of_a_plan_opens_what_neither_end_opens(old in image(0), new in image(1)) {
            let mut step = old.clone();
            for change in plan(&old, &new) {
                change.apply_to(&mut step);
                for cgroup in 1..4 {
                    for ip in addresses() {
                        for protocol in [Protocol::Tcp, Protocol::Udp] {
                            let to = Destination { ip, port: Port::from_host(80), protocol };
                            let ends = allows(&old, cgroup, &to) || allows(&new, cgroup, &to);
                            prop_assert!(ends || !allows(&step, cgroup, &to), "{change:?} opened {to} for {cgroup}");
                        }
                    }
                }
            }
            prop_assert_eq!(step, new);
        }
    }
}
