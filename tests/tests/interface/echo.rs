//! ICMP echo by rule only: pings that a rule names are answered, and nothing else
//! of ICMP crosses.

use crate::attempts::{IPV4, IPV6, scene_under};
use crate::frames::{ethernet, icmp, icmp6, v4, v6};
use crate::life::eventually;
use crate::pinger::{PATIENCE, Pinger, REPLY, REPLY6, REQUEST, REQUEST6};
use crate::scene::{Container, world};
use egress_tests::World;
use egress_tests::address::{
    ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6, SECOND_V4, SECOND_V6,
};
use egress_tests::product::{Agent, audit};
use egress_tests::raw::{RawSocket, Way};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

/// Echo of the allowed server, and UDP to it, with which the tests show that
/// frames come out at all.
const PINGS: &str = r#"
apiVersion: egress/v1
name: datagrams
applies_to:
  - interface: "nobody*"
allowlist:
  servers:
    - { cidr: 203.0.113.10/32, ports: [4433], protocols: [udp, icmp] }
    - { cidr: "2001:db8:ff::10/128", ports: [4433], protocols: [udp, icmp] }
"#;

/// The same server by its name, echo only.
const NAMED: &str = r#"
apiVersion: egress/v1
name: named
applies_to:
  - interface: "nobody*"
allowlist:
  servers:
    - { domain: allowed.example, protocols: [icmp] }
"#;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
fn pingers(container: &Container<'_>) -> (Pinger, Pinger) {
    let inside = &container.inside;
    (Pinger::open(inside, true), Pinger::open(inside, false))
}

/// Asserts that no packet outside has this text.
#[track_caller]
fn never_outside(world: &World, text: &str) {
    world.settle();
    let packets = world.sniffer.packets();
    let out: Vec<_> = packets
        .iter()
        .filter(|packet| packet.carries(text.as_bytes()))
        .collect();
    assert!(out.is_empty(), "it came out: {out:?}");
}

#[test]
fn pings_that_a_rule_names_are_answered_and_no_other_leaves() {
    let Some(world) = world("interface: pings that a rule names are answered and no other leaves")
    else {
        return;
    };
    let agent = Agent::start(&world, &[("datagrams", PINGS)]);
    let container = Container::new(&world, 30);
    // The harness itself works: without a policy everything is open.
    let (four, six) = pingers(&container);
    assert!(four.ping(SECOND_V4.into(), 1, "before"));
    assert!(six.ping(SECOND_V6.into(), 1, "before"));
    container.attach(&agent, "datagrams");
    assert!(four.ping(ALLOWED_V4.into(), 7, "four"));
    assert!(six.ping(ALLOWED_V6.into(), 7, "six"));
    // The same connection, and one more.
    assert!(four.ping(ALLOWED_V4.into(), 7, "again"));
    assert!(four.ping(ALLOWED_V4.into(), 8, "another"));
    let gateway = (container.v4(1), container.v6(1));
    for to in [SECOND_V4, FORBIDDEN_V4, gateway.0] {
        assert!(!four.ping(to.into(), 7, "secret ping"), "{to}");
    }
    for to in [SECOND_V6, FORBIDDEN_V6, gateway.1] {
        assert!(!six.ping(to.into(), 7, "secret ping"), "{to}");
    }
    container.attempt(&["tcp-exchange 203.0.113.10:443 secret"])[0].failed();
    never_outside(&world, "secret");
    // Both say in which protocol; the refused one says which line would open it.
    let state = agent.directory().join("state");
    for (address, verdict) in [
        (ALLOWED_V4.to_string(), "allow"),
        (ALLOWED_V6.to_string(), "allow"),
        (FORBIDDEN_V4.to_string(), "deny"),
        (FORBIDDEN_V6.to_string(), "deny"),
    ] {
        eventually("an echo is recorded", || {
            audit(&state).iter().any(|record| {
                record["address"] == address.as_str()
                    && record["protocol"] == "icmp"
                    && record["port"].is_null()
                    && record["verdict"] == verdict
                    && record["hook"] == "interface_leaves"
                    && (verdict == "allow" || record.to_string().contains("protocols: [icmp]"))
            })
        });
    }
}

#[test]
fn the_ping_of_a_distribution_is_answered() {
    let Some(world) = world("interface: the ping of a distribution is answered") else {
        return;
    };
    let agent = Agent::start(&world, &[("datagrams", PINGS)]);
    let container = Container::new(&world, 31);
    container.attach(&agent, "datagrams");
    let ping = |to: IpAddr| {
        let mut command = std::process::Command::new("busybox");
        command.args(["ping", "-c", "2", "-W", "2", &to.to_string()]);
        container.inside.run(|| command.output())
    };
    let Ok(output) = ping(ALLOWED_V4.into()) else {
        eprintln!("there is no busybox here");
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let output = ping(ALLOWED_V6.into()).expect("it is there");
    assert!(output.status.success(), "{output:?}");
    let output = ping(FORBIDDEN_V4.into()).expect("it is there");
    assert!(!output.status.success(), "{output:?}");
    world.settle();
    assert!(!world.sniffer.saw(|packet| packet.goes_to(FORBIDDEN_V4)));
}

#[test]
fn a_name_opens_its_echo_when_it_is_resolved_and_a_reload_closes_it() {
    let Some(world) =
        world("interface: a name opens its echo when it is resolved and a reload closes it")
    else {
        return;
    };
    let agent = Agent::start(&world, &[("named", NAMED)]);
    let container = Container::new(&world, 32);
    container.attach(&agent, "named");
    let (four, six) = pingers(&container);
    assert!(!four.ping(ALLOWED_V4.into(), 1, "secret, too early"));
    assert!(!six.ping(ALLOWED_V6.into(), 1, "secret, too early"));
    container.attempt(&["resolve allowed.example"])[0].succeeded();
    assert!(four.ping(ALLOWED_V4.into(), 2, "resolved"));
    assert!(six.ping(ALLOWED_V6.into(), 2, "resolved"));
    assert!(!four.ping(SECOND_V4.into(), 2, "secret, elsewhere"));
    // The grant is for echo only.
    let outcome = container.attempt(&[
        "tcp-exchange 203.0.113.10:443 secret",
        "resolve second.example",
    ]);
    outcome[0].failed();
    outcome[1].failed();
    agent.write_policy("named", "apiVersion: egress/v1\nname: named\n");
    let reload = agent.egressctl(&["reload"]).expect("egressctl starts");
    let (status, _, errors) = reload.finish();
    assert!(status.success(), "{errors}");
    // Both as what was under way and as something new.
    for identifier in [2, 3] {
        assert!(!four.ping(ALLOWED_V4.into(), identifier, "secret, after"));
        assert!(!six.ping(ALLOWED_V6.into(), identifier, "secret, after"));
    }
    never_outside(&world, "secret");
}

#[test]
fn nothing_but_echo_requests_leaves() {
    let Some(world) = world("interface: nothing but echo requests leaves") else {
        return;
    };
    let scene = scene_under(&world, PINGS);
    let container = &scene.container;
    let (from, to) = (container.v4(2), ALLOWED_V4);
    let (from6, to6) = (container.v6(2), ALLOWED_V6);
    let frame = |packet: Vec<u8>| ethernet(scene.gateway(), scene.own(), IPV4, &packet);
    let frame6 = |packet: Vec<u8>| ethernet(scene.gateway(), scene.own(), IPV6, &packet);
    let four = |ends: (Ipv4Addr, Ipv4Addr), kind: (u8, u8), text: &str| {
        frame(v4(ends, ICMP, &[], 0, &icmp(kind, 9, text.as_bytes())))
    };
    let six = |ends: (Ipv6Addr, Ipv6Addr), kind: (u8, u8), text: &str| {
        frame6(v6(ends, ICMPV6, 64, &icmp6(ends, kind, 9, text.as_bytes())))
    };
    // Whatever is refused below is refused for what it is.
    let raw = RawSocket::open(&container.inside, "eth0", Way::Usual).expect("a raw socket");
    container.attempt(&[&format!("udp-exchange {to}:4433 first")])[0].succeeded();
    container.attempt(&[&format!("udp-exchange [{to6}]:4433 first")])[0].succeeded();
    raw.send(&four((from, to), REQUEST, "good four"))
        .expect("sent");
    raw.send(&six((from6, to6), REQUEST6, "good six"))
        .expect("sent");
    for good in ["good four", "good six"] {
        let seen = world
            .sniffer
            .awaits(|packet| packet.carries(good.as_bytes()));
        assert!(seen, "{good} does not come out; the test proves nothing");
    }

    let request = icmp(REQUEST, 9, b"secret request");
    let mut frames = vec![
        ("a reply", four((from, to), REPLY, "secret")),
        ("an unreachable", four((from, to), (3, 1), "secret")),
        ("a source quench", four((from, to), (4, 0), "secret")),
        ("a redirect", four((from, to), (5, 1), "secret")),
        ("a router advertisement", four((from, to), (9, 0), "secret")),
        ("a timestamp", four((from, to), (13, 0), "secret")),
        ("a timestamp reply", four((from, to), (14, 0), "secret")),
        ("an address mask", four((from, to), (17, 0), "secret")),
        ("an extended echo", four((from, to), (42, 0), "secret")),
        ("ICMPv6's number", four((from, to), REQUEST6, "secret")),
        ("another code", four((from, to), (8, 1), "secret")),
        ("the other way round", four((to, from), REQUEST, "secret")),
        (
            "a forbidden server",
            four((from, FORBIDDEN_V4), REQUEST, "secret"),
        ),
        (
            "everybody",
            four((from, Ipv4Addr::BROADCAST), REQUEST, "secret"),
        ),
        (
            "a group",
            four((from, Ipv4Addr::new(224, 0, 0, 1)), REQUEST, "secret"),
        ),
        (
            "another source",
            four((Ipv4Addr::new(198, 18, 77, 2), to), REQUEST, "secret"),
        ),
        (
            "the gateway's source",
            four((container.v4(1), to), REQUEST, "secret"),
        ),
        (
            "a first fragment",
            frame(v4((from, to), ICMP, &[], 0x2000, &request)),
        ),
        (
            "a later fragment",
            frame(v4((from, to), ICMP, &[], 1, &request)),
        ),
        (
            "an option",
            frame(v4((from, to), ICMP, &[0x94, 4, 0, 0], 0, &request)),
        ),
        (
            "a short one",
            frame(v4((from, to), ICMP, &[], 0, &[8, 0, 0xf7, 0xff])),
        ),
        (
            "ICMPv6 in IPv4",
            frame(v4(
                (from, to),
                ICMPV6,
                &[],
                0,
                &icmp(REQUEST6, 9, b"secret"),
            )),
        ),
        ("a reply of IPv6", six((from6, to6), REPLY6, "secret")),
        (
            "an unreachable of IPv6",
            six((from6, to6), (1, 0), "secret"),
        ),
        ("a redirect of IPv6", six((from6, to6), (137, 0), "secret")),
        (
            "a question about a node",
            six((from6, to6), (139, 0), "secret"),
        ),
        (
            "another code of IPv6",
            six((from6, to6), (128, 1), "secret"),
        ),
        ("ICMP's number", six((from6, to6), REQUEST, "secret")),
        (
            "a forbidden server by IPv6",
            six((from6, FORBIDDEN_V6), REQUEST6, "secret"),
        ),
        (
            "another source of IPv6",
            six(
                (Ipv6Addr::new(0x2001, 0xdb8, 0x177, 0, 0, 0, 0, 2), to6),
                REQUEST6,
                "secret",
            ),
        ),
        (
            "ICMP in IPv6",
            frame6(v6((from6, to6), ICMP, 64, &icmp(REQUEST, 9, b"secret"))),
        ),
    ];
    for (name, kind) in [
        ("hop by hop", 0),
        ("a routing header", 43),
        ("an IPv6 fragment", 44),
        ("destination options", 60),
    ] {
        let mut packet = vec![ICMPV6, 0, 1, 4, 0, 0, 0, 0];
        packet.extend(icmp6((from6, to6), REQUEST6, 9, b"secret"));
        frames.push((name, frame6(v6((from6, to6), kind, 64, &packet))));
    }
    let mut stranger = four((from, to), REQUEST, "secret");
    stranger[6..12].copy_from_slice(&container.mac(9));
    let mut elsewhere = four((from, to), REQUEST, "secret");
    elsewhere[..6].copy_from_slice(&container.mac(9));
    frames.extend([
        ("another station's address", stranger),
        ("to another station", elsewhere),
    ]);
    scene.nothing_comes_out(&world, &frames);
    let short = world
        .sniffer
        .saw(|packet| packet.protocol == Some(ICMP) && packet.payload.len() <= 4);
    assert!(!short, "the short one came out");
}

#[test]
fn a_ping_in_fragments_does_not_get_through() {
    let Some(world) = world("interface: a ping in fragments does not get through") else {
        return;
    };
    let agent = Agent::start(&world, &[("datagrams", PINGS)]);
    let container = Container::new(&world, 33);
    let (four, six) = pingers(&container);
    // Without a policy the fragments go out, and are answered.
    let before = "before ".repeat(400);
    assert!(four.ping(ALLOWED_V4.into(), 1, &before));
    assert!(six.ping(ALLOWED_V6.into(), 1, &before));
    let big = "secret ".repeat(400);
    container.attach(&agent, "datagrams");
    let fits = "large ".repeat(200);
    assert!(four.ping(ALLOWED_V4.into(), 1, &fits));
    assert!(six.ping(ALLOWED_V6.into(), 1, &fits));
    assert!(!four.ping(ALLOWED_V4.into(), 1, &big));
    assert!(!six.ping(ALLOWED_V6.into(), 1, &big));
    never_outside(&world, "secret");
}

#[test]
fn only_replies_to_requests_of_its_own_reach_the_sandbox() {
    let Some(world) = world("interface: only replies to requests of its own reach the sandbox")
    else {
        return;
    };
    let agent = Agent::start(&world, &[("datagrams", PINGS)]);
    let container = Container::new(&world, 34);
    container.attach(&agent, "datagrams");
    let far = &world.far;
    let (four, six) = pingers(&container);
    for (pinger, here, there, second, request, reply, other) in [
        (
            &four,
            IpAddr::from(container.v4(2)),
            IpAddr::from(ALLOWED_V4),
            IpAddr::from(SECOND_V4),
            REQUEST,
            REPLY,
            (14, 0),
        ),
        (
            &six,
            container.v6(2).into(),
            ALLOWED_V6.into(),
            SECOND_V6.into(),
            REQUEST6,
            REPLY6,
            (140, 0),
        ),
    ] {
        let server = Pinger::at(far, there);
        let stranger = Pinger::at(far, second);
        server
            .send(here, reply, 7, b"unasked, before any")
            .expect("sent");
        assert!(pinger.ping(there, 7, "asked"));
        server
            .send(here, reply, 8, b"unasked, identifier")
            .expect("sent");
        server
            .send(here, (reply.0, 1), 7, b"unasked, code")
            .expect("sent");
        server
            .send(here, request, 7, b"unasked, a request")
            .expect("sent");
        server
            .send(here, other, 7, b"unasked, a kind")
            .expect("sent");
        stranger
            .send(here, reply, 7, b"unasked, a stranger")
            .expect("sent");
        stranger
            .send(here, request, 7, b"unasked, by a stranger")
            .expect("sent");
        // What answers comes in as often as it is sent, and behind all of these.
        server.send(here, reply, 7, b"one more").expect("sent");
        let deadline = Instant::now() + PATIENCE;
        let heard = pinger.next(deadline).expect("the reply comes in");
        assert_eq!(heard[8..], *b"one more", "{there}");
        // The sandbox answered nobody either.
        never_outside(&world, "unasked");
    }
}

#[test]
fn a_sandbox_has_its_share_of_echoes_and_no_more() {
    let Some(world) = world("interface: a sandbox has its share of echoes and no more") else {
        return;
    };
    let agent = Agent::start(&world, &[("datagrams", PINGS)]);
    let (greedy, other) = (Container::new(&world, 35), Container::new(&world, 36));
    greedy.attach(&agent, "datagrams");
    other.attach(&agent, "datagrams");
    let (four, _) = pingers(&greedy);
    assert!(four.ping(ALLOWED_V4.into(), 0, "the first"));
    const SHARE: u16 = 16_384;
    for identifier in 1..SHARE + 100 {
        // A queue that is full for a moment loses one, which another makes up for.
        let _ = four.send(ALLOWED_V4.into(), REQUEST, identifier, b"one of many");
    }
    let full = (SHARE + 100..SHARE + 110)
        .all(|identifier| !four.ping(ALLOWED_V4.into(), identifier, "secret, beyond"));
    assert!(full, "there is no bound");
    never_outside(&world, "secret");
    assert!(four.ping(ALLOWED_V4.into(), 0, "goes on"));
    assert!(pingers(&other).0.ping(ALLOWED_V4.into(), 1, "has its own"));
}
