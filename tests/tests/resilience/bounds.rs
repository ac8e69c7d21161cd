//! Everything that has a bound is filled to it. What does not fit is refused,
//! counted and told; what was open stays open; others notice nothing.

use crate::policy;
use crate::scene::{Siege, closed_stayed_closed, world};
use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::operation::{Said, map_of};
use egress_tests::probe::{Attempt, go_on, rest, until_pause};
use egress_tests::process::Running;
use egress_tests::product::Agent;
use serde_json::Value;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

/// 64 ports for every name below `many.example`; 443 is among them.
const MANY_PORTS: &str = r#"
apiVersion: egress/v1
name: many-ports
egress:
  default_action: deny
  mode: enforce
allowlist:
  many:
    - domain: "*.many.example"
      ports: ["400-463"]
      protocols: [tcp]
# None of them lapses while the map is being filled, on a slow machine either.
dns:
  min_ttl: 3600s
  max_ttl: 3600s
"#;

/// Names that fill a sandbox's share of 16,384, with 64 ports each.
const NAMES: u8 = 32;
/// Addresses of each: few, since an answer waits until all of them are open, and a
/// client on a slow machine waits five seconds.
const ADDRESSES: u8 = 8;
/// Sandboxes whose shares fill the map of 131,072.
const SHARES: u8 = 8;

fn many_addresses(world: &World) {
    for name in 0..=NAMES {
        let mut addresses: Vec<IpAddr> = (0..ADDRESSES)
            .map(|host| Ipv4Addr::new(198, 51, 100, ADDRESSES * (name % NAMES) + host).into())
            .map(|ip: IpAddr| match (name, ip) {
                // Those of the name beyond the share lie elsewhere.
                (NAMES, IpAddr::V4(v4)) => {
                    let [.., host] = v4.octets();
                    Ipv4Addr::new(192, 0, 2, host).into()
                }
                _ => ip,
            })
            .collect();
        if name == 0 {
            addresses[0] = ALLOWED_V4.into();
        }
        world
            .dns
            .resolve(&format!("n{name}.many.example"), &addresses);
    }
}

/// A sandbox that has used up its share of the map.
fn glutton(agent: &Agent<'_>, number: u8) -> Running {
    let names: Vec<String> = (0..=NAMES)
        .map(|name| format!("resolve n{name}.many.example"))
        .collect();
    let use_it = format!("tcp-exchange {ALLOWED_V4}:443 still");
    let mut steps: Vec<&str> = names[..usize::from(NAMES)]
        .iter()
        .map(String::as_str)
        .collect();
    steps.extend(["pause", &names[usize::from(NAMES)], &use_it, "pause"]);
    let mut run = agent.probe(&format!("glutton-{number}"), "many-ports", &steps);
    for attempt in until_pause(&mut run) {
        assert_eq!(
            attempt.addresses().len(),
            usize::from(ADDRESSES),
            "{attempt:?}"
        );
    }
    run
}

#[test]
fn a_full_allow_map_refuses_new_addresses_and_keeps_what_is_open() {
    let Some(world) = world("bounds: GRANTS") else {
        return;
    };
    many_addresses(&world);
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let policies = [("many-ports", MANY_PORTS), ("changing", names.as_str())];
    let agent = Agent::start(&world, &policies);
    let siege = Siege::begin(&agent, "besieged", "changing");
    let mut first = glutton(&agent, 0);
    // Its share is used up, and that is its own misfortune.
    let attempts = go_on(&mut first);
    attempts[0].failed();
    attempts[1].succeeded();
    let beyond = format!("n{NAMES}.many.example");
    assert!(agent.recorded(&["glutton-0", &beyond, "too_many_addresses"]));
    // The whole map: what the siege opened is in it too, so the last one finds
    // no room for all that its share would allow.
    let mut gluttons: Vec<Running> = (1..SHARES - 1).map(|n| glutton(&agent, n)).collect();
    let names: Vec<String> = (0..NAMES)
        .map(|name| format!("resolve n{name}.many.example"))
        .collect();
    let mut steps: Vec<&str> = names.iter().map(String::as_str).collect();
    steps.push("pause");
    let mut last = agent.probe("last", "many-ports", &steps);
    let attempts = until_pause(&mut last);
    assert!(attempts[0].ok, "{:?}", attempts[0]);
    attempts[usize::from(NAMES) - 1].failed();
    assert!(agent.recorded(&["\"last\"", "too_many_addresses"]));
    for run in &mut gluttons {
        go_on(run)[1].succeeded();
    }
    siege.ends_unharmed(&world);
    for run in gluttons.into_iter().chain([first, last]) {
        rest(run);
    }
}

/// A policy `wide` with a rule for each of `count` networks.
fn networks(first: u32, count: u32) -> String {
    let mut text = String::from(
        "apiVersion: egress/v1\nname: wide\negress:\n  default_action: deny\n  mode: enforce\n\
         allowlist:\n  own:\n    - cidr: \"203.0.113.10/32\"\n      ports: [443]\n      \
         protocols: [tcp]\n  many:\n",
    );
    for number in first..first + count {
        let [_, a, b, c] = number.to_be_bytes();
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "    - {{ cidr: \"20.{a}.{b}.{c}/32\", ports: [443], protocols: [tcp] }}"
        );
    }
    text
}

#[test]
fn networks_that_do_not_fit_are_refused_and_those_in_force_stay() {
    /// More than half of the 65,536: both versions together do not fit.
    const MANY: u32 = 33_000;
    let Some(world) = world("bounds: NETWORKS") else {
        return;
    };
    let agent = Agent::start(&world, &[("wide", &networks(0, MANY))]);
    let open = format!("tcp-exchange {ALLOWED_V4}:443 open");
    let mut run = agent.probe(
        "s",
        "wide",
        &[
            &open,
            "pause",
            &open,
            "udp-send 20.0.0.1:443 secret",
            "pause",
        ],
    );
    until_pause(&mut run)[0].succeeded();
    agent.write_policy("wide", &networks(100_000, MANY));
    let said = agent.ask(&["reload", "--wait"]);
    assert!(!said.status.success(), "{said:#?}");
    assert!(said.errors.contains("65536"), "{said:#?}");
    let attempts = go_on(&mut run);
    attempts[0].succeeded();
    attempts[1].refused();
    // What was refused is told until something better is there.
    assert_eq!(agent.status()["state"], "enforcing, with warnings");
    rest(run);
}

#[test]
fn a_full_map_of_askers_forgets_the_oldest_and_goes_on() {
    let Some(world) = world("bounds: ASKERS") else {
        return;
    };
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let agent = Agent::start(&world, &[("changing", &names)]);
    let siege = Siege::begin(&agent, "besieged", "changing");
    let askers = map_of(&agent.root_directory(), "ASKERS");
    let mut batch = String::new();
    for number in 0_u32..70_000 {
        let [a, b, c, d] = number.to_be_bytes();
        let key = format!("0 0 0 0 0 0 0 0 0 0 255 255 10 {b} {c} {d} {a} 1 17 0 0 0 0 0");
        let _ = writeln!(
            batch,
            "map update id {askers} key {key} value 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
        );
    }
    let file = world.fresh_directory().join("batch");
    std::fs::write(&file, batch).expect("written");
    let mut bpftool = Command::new("bpftool");
    Said::of(bpftool.arg("batch").arg("file").arg(&file)).succeeded();
    let steps = ["resolve second.example", "pause"];
    let mut run = agent.probe("asker", "changing", &steps);
    until_pause(&mut run)[0].succeeded();
    siege.ends_unharmed(&world);
    rest(run);
}

#[test]
fn sockets_that_can_remember_nothing_are_judged_each_time() {
    let Some(world) = world("bounds: socket storage") else {
        return;
    };
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let agent = Agent::start(&world, &[("changing", &names)]);
    let siege = Siege::begin(&agent, "besieged", "changing");
    let open = format!("tcp-exchange {ALLOWED_V4}:443 open");
    let steps = [
        "resolve allowed.example",
        "pause",
        &open,
        "resolve second.example",
        "udp-send 203.0.113.66:443 secret",
        "pause",
    ];
    let mut run = agent.probe("s", "changing", &steps);
    until_pause(&mut run)[0].succeeded();
    // The memory that sockets may spend on such things, which is the
    // namespace's own from Linux 6.9 on.
    if world.near.set("core/optmem_max", "1").is_err() {
        eprintln!("this kernel has one bound for all namespaces, which is not the test's own");
        return;
    }
    let attempts = go_on(&mut run);
    attempts[0].succeeded();
    attempts[1].failed();
    attempts[2].refused();
    let counters = agent.status()["counters"].clone();
    assert_ne!(counters["kernel_denied"], 0, "{counters:#}");
    let counted = siege.end();
    assert_eq!(counted["broken"], Value::Null, "{counted:#}");
    assert_eq!(counted["refused"], 0, "{counted:#}");
    closed_stayed_closed(&world, &counted);
    rest(run);
}

#[test]
fn a_full_event_ring_loses_reports_counts_them_and_no_verdict() {
    let Some(world) = world("bounds: EVENTS") else {
        return;
    };
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let mut agent = Agent::prepare(&world, &[("changing", &names)]);
    // A sandbox's own budget would keep it from filling the ring.
    agent.configure(&(agent.configuration() + "events_per_second = 1000000\n"));
    agent.launch();
    let siege = Siege::begin(&agent, "besieged", "changing");
    let flood = "udp-storm 203.0.113.66:443 120000";
    let mut run = agent.probe("loud", "changing", &["pause", flood, "pause"]);
    until_pause(&mut run);
    agent.signal(rustix::process::Signal::STOP);
    let attempts: Vec<Attempt> = go_on(&mut run);
    assert_eq!(attempts[0].succeeded(), "0 taken, 120000 refused");
    agent.signal(rustix::process::Signal::CONT);
    let deadline = Instant::now() + Duration::from_secs(20);
    while agent.status()["counters"]["kernel_ring_full"] == 0 {
        assert!(Instant::now() < deadline, "{:#}", agent.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        agent.recorded(&["\"loss\"", "ring"]),
        "{:#?}",
        agent.audit()
    );
    let counted = siege.end();
    assert_eq!(counted["broken"], Value::Null, "{counted:#}");
    assert_eq!(counted["refused"], 0, "{counted:#}");
    closed_stayed_closed(&world, &counted);
    rest(run);
}
