//! What the ledger promises, one case at a time.

use super::{Adopted, Bounds, Changes, Clamp, Full, Ledger, Offer};
use crate::model::{DomainName, PortRange, Transport};
use egress_common::{Destination, Grant, GrantKey, Ip, NameId, Port, Protocol, RuleId, SandboxId};
use std::net::IpAddr;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const A: SandboxId = SandboxId(1);

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("a name")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn tcp(ports: PortRange) -> Transport {
    Transport {
        protocol: Protocol::Tcp,
        ports,
    }
}

fn key(sandbox: SandboxId, address: &str, port: u16) -> GrantKey {
    let port = Port::from_host(port);
    let to = Destination {
        ip: Ip::from(ip(address)),
        port,
        protocol: Protocol::Tcp,
    };
    GrantKey::new(sandbox, &to, port)
}

fn offer(
    ledger: &mut Ledger,
    now: u64,
    domain: &str,
    addresses: &[&str],
    (ports, rule): (PortRange, u32),
    ttl: u64,
) -> Result<Changes, Full> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| ip(a)).collect();
    ledger.offer(
        now,
        &Offer {
            sandbox: A,
            name: &name(domain),
            addresses: &addresses,
            services: &[(tcp(ports), RuleId(rule))],
            ttl: Duration::from_secs(ttl),
            answer_ttl: Duration::from_secs(ttl),
            clamp: Clamp::default(),
        },
    )
}

const HTTPS: (PortRange, u32) = (PortRange::one(443), 1);

#[test]
fn a_grant_outlives_the_answer_and_obeys_the_clamp() {
    let clamp = Clamp::default();
    let life = |ttl, answer| {
        clamp
            .lifetime(Duration::from_secs(ttl), Duration::from_secs(answer))
            .as_secs()
    };
    assert_eq!(life(0, 0), 30 + 60);
    assert_eq!(life(300, 300), 300 + 60);
    assert_eq!(life(86_400, 300), 3_600 + 60);
    assert_eq!(life(86_400, 7_200), 7_200 + 60, "the answer says two hours");
}

#[test]
fn any_port_is_one_key_and_a_range_is_one_per_port() {
    let mut ledger = Ledger::new(Bounds::default());
    let any = offer(
        &mut ledger,
        0,
        "a.example",
        &["192.0.2.1"],
        (PortRange::ANY, 1),
        60,
    );
    let any = any.expect("taken").write;
    assert_eq!(any.len(), 1);
    assert_eq!(any[0].0.port, Port::ANY);
    // A range from 0 must not become "any".
    let range = PortRange { first: 0, last: 3 };
    let some = offer(&mut ledger, 0, "a.example", &["192.0.2.2"], (range, 1), 60);
    let ports: Vec<u16> = some
        .expect("taken")
        .write
        .iter()
        .map(|(k, _)| k.port.host())
        .collect();
    assert_eq!(ports.len(), 3);
    assert!(!ports.contains(&0));
}

#[test]
fn an_echo_is_one_key_of_its_own_protocol() {
    let echo = Transport {
        protocol: Protocol::Icmp,
        ports: PortRange::ANY,
    };
    let mut ledger = Ledger::new(Bounds::default());
    let opened = ledger.offer(
        0,
        &Offer {
            sandbox: A,
            name: &name("a.example"),
            addresses: &[ip("192.0.2.1"), ip("2001:db8::1")],
            services: &[(echo, RuleId(1))],
            ttl: Duration::from_secs(60),
            answer_ttl: Duration::from_secs(60),
            clamp: Clamp::default(),
        },
    );
    let keys: Vec<_> = opened
        .expect("taken")
        .write
        .iter()
        .map(|(key, _)| (key.protocol, key.port))
        .collect();
    assert_eq!(keys, [(1, Port::ANY); 2]);
}

#[test]
fn two_names_on_one_address_keep_it_open_until_the_later_ends() {
    let mut ledger = Ledger::new(Bounds::default());
    let at = key(A, "192.0.2.1", 443);
    let first = offer(&mut ledger, 0, "a.example", &["192.0.2.1"], HTTPS, 1000).expect("taken");
    let second = offer(
        &mut ledger,
        0,
        "b.example",
        &["192.0.2.1"],
        (PortRange::one(443), 2),
        100,
    );
    let second = second.expect("taken");
    let (long, short) = (first.write[0].1, second.write[0].1);
    assert_eq!(short.expires, 1060 * SECOND, "the later expiry stays");
    assert_eq!(short.rule, RuleId(2), "the last writer is named");
    assert_ne!(short.name, long.name);

    // The long one is revoked: the address stays open for the other, as long as that was promised.
    let changes = ledger.revoke(|_, n| (n == &name("b.example")).then_some(RuleId(2)));
    let rest = Grant {
        expires: 160 * SECOND,
        ..short
    };
    assert_eq!(changes.write, [(at, rest)]);
    assert!(changes.remove.is_empty());

    let changes = ledger.revoke(|_, _| None);
    assert_eq!(changes.remove, [at]);
    assert!(ledger.is_empty());
}

#[test]
fn a_renumbered_rule_rewrites_and_an_unchanged_one_does_not() {
    let mut ledger = Ledger::new(Bounds::default());
    let _ = offer(&mut ledger, 0, "a.example", &["192.0.2.1"], HTTPS, 60).expect("taken");
    assert_eq!(ledger.revoke(|_, _| Some(RuleId(1))), Changes::default());
    let changes = ledger.revoke(|_, _| Some(RuleId(9)));
    assert_eq!(changes.write.len(), 1);
    assert_eq!(changes.write[0].1.rule, RuleId(9));
}

#[test]
fn lapsed_entries_stay_until_they_are_swept() {
    let mut ledger = Ledger::new(Bounds::default());
    let _ = offer(&mut ledger, 0, "a.example", &["192.0.2.1"], HTTPS, 60).expect("taken");
    let hour = Duration::from_secs(3600);
    assert!(ledger.sweep(121 * SECOND, hour).is_empty());
    assert_eq!(ledger.grants(A).count(), 1);
    assert_eq!(
        ledger.sweep(3720 * SECOND, hour),
        [key(A, "192.0.2.1", 443)]
    );
    assert!(ledger.is_empty());
}

#[test]
fn at_the_bound_lapsed_entries_go_and_open_ones_refuse_the_offer() {
    let mut ledger = Ledger::new(Bounds {
        entries_per_sandbox: 2,
        ..Bounds::default()
    });
    let _ = offer(&mut ledger, 0, "a.example", &["192.0.2.1"], HTTPS, 60).expect("taken");
    let _ = offer(&mut ledger, 0, "b.example", &["192.0.2.2"], HTTPS, 3000).expect("taken");
    let full = offer(&mut ledger, 0, "c.example", &["192.0.2.3"], HTTPS, 60);
    assert!(matches!(
        full,
        Err(Full::Sandbox {
            held: 2,
            wanted: 1,
            bound: 2,
            ..
        })
    ));
    let changes = offer(
        &mut ledger,
        121 * SECOND,
        "c.example",
        &["192.0.2.3"],
        HTTPS,
        60,
    );
    let changes = changes.expect("the lapsed one makes room");
    assert_eq!(changes.remove, [key(A, "192.0.2.1", 443)]);
    assert_eq!(changes.write[0].0, key(A, "192.0.2.3", 443));
}

#[test]
fn a_name_with_ever_new_addresses_keeps_the_latest() {
    let mut ledger = Ledger::new(Bounds {
        addresses_per_name: 2,
        ..Bounds::default()
    });
    let mut now = 0;
    for n in 1..=5 {
        let address = format!("192.0.2.{n}");
        let changes = offer(&mut ledger, now, "a.example", &[&address], HTTPS, 60);
        assert!(changes.is_ok());
        now += 121 * SECOND;
    }
    let kept: Vec<GrantKey> = ledger.grants(A).map(|held| held.key).collect();
    assert_eq!(kept, [key(A, "192.0.2.4", 443), key(A, "192.0.2.5", 443)]);
    let many = offer(
        &mut ledger,
        now,
        "a.example",
        &["192.0.2.7", "192.0.2.8", "192.0.2.9"],
        HTTPS,
        60,
    );
    assert!(matches!(many, Err(Full::Name { .. })));
}

#[test]
fn wide_ranges_are_refused_before_they_are_built() {
    let mut ledger = Ledger::new(Bounds::default());
    let range = PortRange {
        first: 1,
        last: 60_000,
    };
    let full = offer(&mut ledger, 0, "a.example", &["192.0.2.1"], (range, 1), 60);
    assert!(matches!(full, Err(Full::Sandbox { wanted: 60_000, .. })));
}

#[test]
fn what_an_earlier_agent_left_is_taken_over_and_its_ids_are_not_reused() {
    let mut ledger = Ledger::new(Bounds::default());
    let grant = |id| Grant {
        expires: 500 * SECOND,
        name: NameId(id),
        rule: RuleId(3),
    };
    let (known, unknown) = (key(A, "192.0.2.1", 443), key(A, "192.0.2.2", 443));
    ledger.adopt([
        Adopted {
            key: known,
            grant: grant(40),
            name: Some(name("a.example")),
        },
        Adopted {
            key: unknown,
            grant: grant(41),
            name: None,
        },
    ]);
    assert_eq!(ledger.name(NameId(40)), Some(&name("a.example")));
    assert_eq!(ledger.len(), 2);
    let fresh = offer(&mut ledger, 0, "b.example", &["192.0.2.3"], HTTPS, 60).expect("taken");
    assert_eq!(fresh.write[0].1.name, NameId(42));
    // Nothing can be asked about an unknown name, so it does not survive a reload.
    let changes = ledger.revoke(|_, _| Some(RuleId(3)));
    assert_eq!(changes.remove, [unknown]);
}

#[test]
fn a_dropped_sandbox_leaves_nothing_and_others_keep_theirs() {
    let mut ledger = Ledger::new(Bounds::default());
    let _ = offer(&mut ledger, 0, "a.example", &["192.0.2.1"], HTTPS, 60).expect("taken");
    let other = SandboxId(2);
    let taken = ledger.offer(
        0,
        &Offer {
            sandbox: other,
            name: &name("a.example"),
            addresses: &[ip("192.0.2.1")],
            services: &[(tcp(PortRange::one(443)), RuleId(1))],
            ttl: Duration::from_secs(60),
            answer_ttl: Duration::from_secs(60),
            clamp: Clamp::default(),
        },
    );
    assert_eq!(
        taken.expect("taken").write[0].0,
        key(other, "192.0.2.1", 443)
    );
    assert_eq!(ledger.drop_sandbox(A), [key(A, "192.0.2.1", 443)]);
    assert_eq!(ledger.grants(A).count(), 0);
    assert_eq!(ledger.grants(other).count(), 1);
}
