//! What the fuzz targets do with their bytes: `fuzz/fuzz_targets` hands them
//! over, and `tests/tests/corpora.rs` replays the corpora with a stable compiler.
//!
//! Each function must come back from any bytes; a panic is a finding. Beyond
//! that each holds the product to something that it promises.

mod resolver;

pub use resolver::dns_message;

use crate::comparison::{Stop, World};
use crate::scenario;
use egress_agent::events::Report;
use egress_agent::image::{Image, View};
use egress_agent::policy::render::{Colour, diagnostics_json, diagnostics_text};
use egress_agent::policy::{Policy, PolicySet};
use egress_common::{
    CgroupId, Destination, Event, Grant, GrantKey, Ip, NameId, Network, NetworkKey, PolicyId, Port,
    Protocol, RuleId, Sandbox, SandboxId, Service, Standing, Verdict,
};
use jiff::Timestamp;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::net::IpAddr;

/// What a target is called, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("dns_message", dns_message),
    ("policy_file", policy_file),
    ("ring_record", ring_record),
    ("packet", packet),
    ("history", history),
];

/// Bytes as a policy file: they give a policy without a problem or problems
/// that can be shown, and what is shown cannot steer a terminal.
pub fn policy_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let now = Timestamp::UNIX_EPOCH;
    let found = match Policy::parse("p.yaml", text, now) {
        Ok((policy, warnings)) => {
            assert!(!policy.name.is_empty());
            for network in policy.networks(now) {
                assert!(network.services.len() <= egress_common::MAX_SERVICES);
            }
            assert!(PolicySet::new(vec![policy]).is_ok());
            assert!(!warnings.iter().any(|warning| warning.is_error()));
            warnings
        }
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.is_error()));
            problems
        }
    };
    let shown = diagnostics_text(&found, Colour::No);
    assert!(
        !shown.chars().any(|c| c.is_control() && c != '\n'),
        "{shown:?}"
    );
    assert_eq!(
        diagnostics_json(&found).as_array().map(Vec::len),
        Some(found.len())
    );
}

/// Bytes as a record of the ring: the two readers agree on it, and what is
/// accepted stands in the vocabularies.
pub fn ring_record(data: &[u8]) {
    let event = Event::from_bytes(data);
    match (event, Report::read(data)) {
        (None, Err(_)) => {}
        (None, Ok(report)) => panic!("{report:?} was read from {} bytes", data.len()),
        (Some(event), read) => {
            assert_eq!(read, Report::new(&event));
            if let Ok(report) = read {
                assert_eq!(report.event, event);
                assert_eq!(report.reason.is_some(), report.event.reason != 0);
            }
        }
    }
}

/// Takes fixed parts from the front of the bytes; zeros when there are no more.
struct Bytes<'d>(&'d [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut part = [0; N];
        let count = N.min(self.0.len());
        let (front, rest) = self.0.split_at(count);
        part[..count].copy_from_slice(front);
        self.0 = rest;
        part
    }

    fn ip(&mut self) -> Ip {
        let [kind] = self.take();
        if kind % 2 == 0 {
            IpAddr::from(self.take::<4>()).into()
        } else {
            IpAddr::from(self.take::<16>()).into()
        }
    }

    fn port(&mut self) -> Port {
        Port::from_network(u16::from_ne_bytes(self.take()))
    }

    fn protocol(&mut self) -> Protocol {
        let [kind] = self.take();
        match kind % 3 {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _ => Protocol::Icmp,
        }
    }
}

/// Bytes as an image of the kernel's maps and a packet: the shared decision, and
/// beside it what the contract says about each verdict.
pub fn packet(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut image = Image::default();
    let sandbox = Sandbox {
        id: SandboxId(1),
        policy: PolicyId(1),
        ..Sandbox::default()
    };
    image.sandboxes.insert(CgroupId(1), sandbox);
    let to = Destination {
        ip: bytes.ip(),
        port: bytes.port(),
        protocol: bytes.protocol(),
    };
    let now = u64::from(u32::from_ne_bytes(bytes.take()));
    let [grants, networks] = bytes.take();
    for _ in 0..grants % 8 {
        let place = Destination {
            ip: bytes.ip(),
            port: bytes.port(),
            protocol: bytes.protocol(),
        };
        let expires = u64::from(u32::from_ne_bytes(bytes.take()));
        let grant = Grant {
            expires,
            name: NameId(1),
            rule: RuleId(1),
        };
        let key = GrantKey::new(sandbox.id, &place, place.port);
        image.grants.insert(key, grant);
    }
    for _ in 0..networks % 8 {
        let [bits, first, last] = bytes.take();
        // Only the prefix counts, as in the kernel's trie.
        let bits = u32::from(bits) % 129;
        let keep = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let words = bytes.ip().words().map(u32::from_be);
        let address = words.iter().fold(0, |all, w| all << 32 | u128::from(*w)) & keep;
        let key = NetworkKey::new(sandbox.policy, &IpAddr::V6(address.into()).into());
        let mut network = Network::default();
        network.services[0] = Service {
            protocol: bytes.protocol().number(),
            first: first.into(),
            last: last.into(),
            rule: RuleId(2),
            ..Service::default()
        };
        image
            .networks
            .insert((NetworkKey::POLICY_BITS + bits, key), network);
    }
    let view = View::new(&image, now);
    let judged = |standing| {
        view.decide(CgroupId(1), &to, standing)
            .expect("it is known")
    };
    let (new, live) = (judged(Standing::New), judged(Standing::Live));
    assert_eq!(new == Verdict::Redirect, to.port == Port::DNS);
    if let Verdict::Allow(because) = new {
        assert!(!to.ip.is_never_allowed());
        assert!(
            matches!(live, Verdict::Allow(_)),
            "what is new may also go on"
        );
        // A grant opens until it expires, and never loopback.
        if because.rule() == RuleId(1) {
            assert!(!to.ip.is_loopback());
            let granted = |port| image.grants.get(&GrantKey::new(sandbox.id, &to, port));
            let grants = [to.port, Port::ANY].into_iter().filter_map(granted);
            assert!(grants.map(|grant| grant.expires).any(|end| now < end));
        }
    }
    assert!(view.decide(CgroupId(2), &to, Standing::Live).is_err());
}

/// Bytes as the seed of a random history: the product against the model.
///
/// The bytes are folded into a seed and are not the choices themselves: proptest
/// splits a source of given bytes in halves, and waits for ever in rejection
/// sampling once a half has run out and gives zeros only.
pub fn history(data: &[u8]) {
    let mut seed = [0_u8; 32];
    for (at, byte) in data.iter().enumerate() {
        let place = &mut seed[at % 32];
        *place = place.wrapping_mul(31).wrapping_add(*byte);
    }
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let Ok(tree) = scenario::history(8, 12).new_tree(&mut runner) else {
        return;
    };
    if let Err(Stop::Disagreement(what)) = World::run(&tree.current()) {
        panic!("{what}");
    }
}
