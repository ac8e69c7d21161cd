//! The ledger against an obvious model of it, over random histories.

use super::{Bounds, Changes, Clamp, Ledger, Offer};
use crate::model::{DomainName, PortRange, Transport};
use egress_common::{Destination, Grant, GrantKey, Ip, Port, Protocol, RuleId, SandboxId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const CLAMP: Clamp = Clamp {
    min: Duration::from_secs(2),
    max: Duration::from_secs(6),
    grace: Duration::from_secs(1),
};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Offer {
        sandbox: u32,
        name: u8,
        addresses: Vec<u8>,
        ports: u16,
        ttl: u64,
    },
    Wait(u64),
    Revoke(BTreeSet<u8>),
    Drop(u32),
    Sweep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4_u32, 0..4_u8, prop::collection::vec(0..6_u8, 1..4), 1..4_u16, 0..10_u64)
            .prop_map(|(sandbox, name, addresses, ports, ttl)| Step::Offer {
                sandbox, name, addresses, ports, ttl
            }),
        4 => (0..4_u64).prop_map(Step::Wait),
        1 => prop::collection::btree_set(0..4_u8, 0..3).prop_map(Step::Revoke),
        1 => (1..4_u32).prop_map(Step::Drop),
        2 => (0..5_u64).prop_map(Step::Sweep),
    ]
}

fn name(n: u8) -> DomainName {
    DomainName::parse(&format!("n{n}.example")).expect("a name")
}

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, n))
}

fn key(sandbox: u32, ip: u8, port: u16) -> GrantKey {
    let port = Port::from_host(port);
    let to = Destination {
        ip: Ip::from(address(ip)),
        port,
        protocol: Protocol::Tcp,
    };
    GrantKey::new(SandboxId(sandbox), &to, port)
}

/// The ledger together with the kernel map that its changes make.
struct World {
    ledger: Ledger,
    kernel: BTreeMap<GrantKey, Grant>,
    /// The model: who may reach what under which name, until when.
    model: BTreeMap<(GrantKey, u8), u64>,
    now: u64,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self {
            ledger: Ledger::new(bounds),
            kernel: BTreeMap::new(),
            model: BTreeMap::new(),
            now: SECOND,
        }
    }

    fn apply(&mut self, changes: Changes) {
        for key in changes.remove {
            assert!(
                self.kernel.remove(&key).is_some(),
                "a removal names what is there"
            );
        }
        self.kernel.extend(changes.write);
    }

    /// Whether the offer was taken; true for every other step.
    fn run(&mut self, step: &Step) -> bool {
        match step {
            Step::Offer {
                sandbox,
                name: n,
                addresses,
                ports,
                ttl,
            } => {
                let addresses_full: Vec<IpAddr> = addresses.iter().map(|a| address(*a)).collect();
                let transport = Transport {
                    protocol: Protocol::Tcp,
                    ports: PortRange {
                        first: 1,
                        last: *ports,
                    },
                };
                let ttl = Duration::from_secs(*ttl);
                let offer = Offer {
                    sandbox: SandboxId(*sandbox),
                    name: &name(*n),
                    addresses: &addresses_full,
                    services: &[(transport, RuleId(7))],
                    ttl,
                    answer_ttl: ttl.min(Duration::from_secs(3)),
                    clamp: CLAMP,
                };
                let Ok(changes) = self.ledger.offer(self.now, &offer) else {
                    return false;
                };
                self.apply(changes);
                let expires = self.now + (ttl.as_secs().clamp(2, 6) + 1) * SECOND;
                for (a, port) in addresses
                    .iter()
                    .flat_map(|a| (1..=*ports).map(move |p| (a, p)))
                {
                    let until = self.model.entry((key(*sandbox, *a, port), *n)).or_default();
                    *until = (*until).max(expires);
                }
            }
            Step::Wait(seconds) => self.now += seconds * SECOND,
            Step::Revoke(gone) => {
                let names: BTreeSet<DomainName> = gone.iter().map(|n| name(*n)).collect();
                let changes = self
                    .ledger
                    .revoke(|_, name| (!names.contains(name)).then_some(RuleId(8)));
                self.apply(changes);
                self.model.retain(|(_, n), _| !gone.contains(n));
            }
            Step::Drop(sandbox) => {
                let remove = self.ledger.drop_sandbox(SandboxId(*sandbox));
                self.apply(Changes {
                    remove,
                    write: Vec::new(),
                });
                self.model
                    .retain(|(key, _), _| key.sandbox != SandboxId(*sandbox));
            }
            Step::Sweep(keep) => {
                let remove = self.ledger.sweep(self.now, Duration::from_secs(*keep));
                self.apply(Changes {
                    remove,
                    write: Vec::new(),
                });
            }
        }
        true
    }

    fn open(&self) -> BTreeSet<GrantKey> {
        let open = self
            .kernel
            .iter()
            .filter(|(_, grant)| self.now < grant.expires);
        open.map(|(key, _)| *key).collect()
    }

    fn open_by_model(&self) -> BTreeSet<GrantKey> {
        let open = self.model.iter().filter(|(_, until)| self.now < **until);
        open.map(|((key, _), _)| *key).collect()
    }
}

proptest! {
    #[test]
    fn what_is_open_is_what_the_model_says(history in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(Bounds::default());
        for step in &history {
            prop_assert!(world.run(step), "nothing is near a bound");
            prop_assert_eq!(world.open(), world.open_by_model());
            let ledger: BTreeMap<_, _> = world.ledger.entries().collect();
            prop_assert_eq!(&ledger, &world.kernel);
            prop_assert_eq!(world.ledger.len(), world.kernel.len());
        }
    }

    #[test]
    fn bounds_hold_and_cost_nobody_what_is_open(
        history in prop::collection::vec(step(), 1..60),
        entries in 6..20_usize,
        entries_per_sandbox in 3..10_usize,
        addresses_per_name in 1..4_usize,
    ) {
        let bounds = Bounds {
            entries,
            entries_per_sandbox,
            addresses_per_name,
            names_per_entry: 2,
            retired_names: 2,
        };
        let mut world = World::new(bounds);
        for step in &history {
            let before = world.open();
            let kernel_before = world.kernel.clone();
            let taken = world.run(step);
            match step {
                Step::Offer { .. } if !taken => prop_assert_eq!(&world.kernel, &kernel_before),
                // An offer never closes anything.
                Step::Offer { .. } => prop_assert!(world.open().is_superset(&before)),
                _ => {}
            }
            // Nothing is open that nobody was granted, to whomever.
            prop_assert!(world.open().is_subset(&world.open_by_model()));
            prop_assert!(world.kernel.len() <= entries);
            for sandbox in 1..4 {
                let held: Vec<_> = world.ledger.grants(SandboxId(sandbox)).collect();
                prop_assert!(held.len() <= entries_per_sandbox);
                for n in 0..4 {
                    let under: BTreeSet<_> = held
                        .iter()
                        .filter(|held| held.names.contains(&name(n)))
                        .map(|held| held.key.ip)
                        .collect();
                    prop_assert!(under.len() <= addresses_per_name);
                }
            }
            let ledger: BTreeMap<_, _> = world.ledger.entries().collect();
            prop_assert_eq!(&ledger, &world.kernel);
        }
        prop_assert!(world.ledger.names() <= 4 + 2 + 1);
    }
}
