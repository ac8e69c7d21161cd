//! Policies change under load, again and again.

use crate::policy::{self, MANY_NAMES};
use crate::scene::{Siege, closed_stayed_closed, times, world};
use egress_tests::address::ALLOWED_V4;
use egress_tests::packet::Packet;
use egress_tests::probe::until_pause;
use egress_tests::product::Agent;
use egress_tests::servers::closing;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Every name below `load.example`, and one more that changes.
fn both_allow(other: &str) -> String {
    format!(
        "apiVersion: egress/v1\nname: load\negress:\n  default_action: deny\n  mode: enforce\n\
         allowlist:\n  many:\n    - domain: \"*.load.example\"\n      ports: [8443]\n      \
         protocols: [tcp]\n    - domain: \"{other}\"\n      protocols: [https]\n{MANY_NAMES}"
    )
}

#[test]
fn reloads_under_load_fail_no_first_connect_that_both_policies_allow() {
    let Some(world) = world("changes: many reloads") else {
        return;
    };
    let addresses: Vec<IpAddr> = (1..255)
        .map(|host| Ipv4Addr::new(198, 51, 100, host).into())
        .collect();
    world.dns.resolve_below("load.example", &addresses);
    world
        .far
        .configure("route add local 198.51.100.0/24 dev lo\n")
        .expect("the far side is the test's own");
    let _server = closing(&world.far, (Ipv4Addr::UNSPECIFIED, 8443).into()).expect("free");

    let reloads = times("EGRESS_RELOADS", 40);
    let mut agent = Agent::prepare(&world, &[("load", &both_allow("allowed.example"))]);
    // A fast machine asks more in a tenth of a second than one sandbox may by default,
    // and what is refused for that says nothing of reloads.
    agent.configure(&(agent.configuration() + "[dns]\nqueries_per_second = 1000000\n"));
    agent.launch();
    let batches: Vec<String> = (0..reloads.max(8))
        .map(|batch| format!("rounds {} 50 5 8443 load.example", batch * 50))
        .collect();
    let mut steps = vec!["pause"];
    steps.extend(batches.iter().map(String::as_str));
    steps.push("pause");
    let mut run = agent.probe("s", "load", &steps);
    until_pause(&mut run);
    run.say("go on").expect("it waits");
    let begun = Instant::now();
    for turn in 0..reloads {
        let other = ["second.example", "allowed.example"][turn as usize % 2];
        agent.write_policy("load", &both_allow(other));
        let (code, body) = agent.request("POST", "/v1/reload", &Value::Null);
        assert_eq!(code, 200, "{body}");
    }
    let took = begun.elapsed();
    let attempts = until_pause(&mut run);
    println!(
        "{reloads} reloads in {took:?} beside {} first connects in {:?}",
        attempts.len() * 50,
        begun.elapsed()
    );
    assert_eq!(attempts.len(), batches.len());
    for attempt in attempts {
        attempt.succeeded();
    }
    let denied = agent.status()["counters"]["kernel_denied"].clone();
    let is_denial = |record: &Value| record["kind"] == "flow" && record["verdict"] == "deny";
    if denied != 0 {
        // Said in the end, when the record of it is there.
        agent.awaits_record(is_denial);
    }
    let denials: Vec<Value> = agent.audit().into_iter().filter(is_denial).collect();
    assert_eq!(denied, 0, "{denials:#?}");
}

#[test]
fn what_a_reload_takes_away_is_silent_when_it_answers() {
    let Some(world) = world("changes: revocation") else {
        return;
    };
    let both = policy::changing(&["allowed.example", "second.example"], "");
    let agent = Agent::start(&world, &[("changing", &both)]);
    let siege = Siege::begin(&agent, "besieged", "changing");
    assert!(world.sniffer.awaits(|packet| packet.carries(b"ping")));
    agent.write_policy("changing", &policy::changing(&["second.example"], ""));
    let begun = Instant::now();
    let (code, body) = agent.request("POST", "/v1/reload", &Value::Null);
    let answered = begun.elapsed();
    assert_eq!(code, 200, "{body}");
    let towards = || {
        world.settle();
        let packets = world.sniffer.packets();
        // The kernel itself resets what the server still sends.
        let own = |packet: &&Packet| packet.goes_to(ALLOWED_V4) && packet.carries(b"ping");
        packets.iter().filter(own).count()
    };
    let before = towards();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(towards(), before, "something went on after the answer");
    println!("the reload that cut a live connection answered after {answered:?}");
    let counted = siege.end();
    assert_ne!(counted["broken"], Value::Null, "{counted:#}");
    assert_ne!(counted["refused"], 0, "{counted:#}");
    closed_stayed_closed(&world, &counted);
}
