//! Queries that are cut, half sent, of other classes, and about the reverse zones.

use crate::policy::ONE_NAME;
use crate::scene::{attempt, world};
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4};
use std::net::{IpAddr, SocketAddr};

const SERVER: &str = "192.0.2.1:53";

#[test]
fn no_class_but_the_internets_is_an_errand() {
    let Some(world) = world("bypass: classes") else {
        return;
    };
    // 0, CSNET, CHAOS, HESIOD, NONE, ANY and a private one; A, TXT and ANY.
    let mut steps: Vec<String> = Vec::new();
    for class in [0, 2, 3, 4, 254, 255, 65280] {
        for kind in ["A", "TXT", "255"] {
            for name in ["allowed.example", "version.bind", "forbidden.example"] {
                steps.push(format!("dns-class {SERVER} {class} {kind} {name}"));
            }
        }
    }
    let count = steps.len();
    steps.push(format!("tcp-exchange {ALLOWED_V4}:443 secret"));
    steps.push("named-exchange allowed.example 443 hello".into());
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, ONE_NAME, &steps);
    for step in 0..count {
        let answer = &outcome[step];
        assert!(!answer.detail.contains("code=0 "), "{answer:?}");
    }
    outcome[count].refused();
    outcome[count + 1].succeeded();
    let asked = world.dns.asked();
    let foreign = asked.iter().filter(|asked| asked.name != "allowed.example");
    assert_eq!(foreign.count(), 0, "{asked:?}");
    // The C library's two questions, and nothing of what came before.
    assert!(asked.len() <= 2, "{asked:?}");
    let open = [IpAddr::from(ALLOWED_V4), ALLOWED_V6.into()];
    world.nothing_escaped(&open.map(|ip| SocketAddr::from((ip, 443))));
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn reverse_zones_carry_nothing_out() {
    let Some(world) = world("bypass: reverse zones") else {
        return;
    };
    let names = [
        // Of an address that is open, of one that is not, and one that spells a secret.
        "10.113.0.203.in-addr.arpa".to_owned(),
        "66.113.0.203.in-addr.arpa".to_owned(),
        "116.101.114.99.in-addr.arpa".to_owned(),
        format!("{}ip6.arpa", "e.".repeat(32)),
        format!("{}ip6.arpa", "secret.".repeat(8)),
        "secret.home.arpa".to_owned(),
    ];
    let mut steps = vec!["resolve allowed.example".to_owned()];
    for name in &names {
        for kind in ["PTR", "A", "TXT", "CNAME"] {
            steps.push(format!("dns-udp-once {SERVER} {kind} {name}"));
        }
    }
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, ONE_NAME, &steps);
    for step in 1..steps.len() {
        let answer = outcome[step].succeeded();
        assert!(answer.starts_with("code=3"), "{}: {answer}", steps[step]);
    }
    let asked = world.dns.asked();
    let leaked = asked.iter().filter(|asked| asked.name.ends_with("arpa"));
    assert_eq!(leaked.count(), 0, "{asked:?}");
    world.nothing_escaped(&[]);
}

#[test]
fn queries_in_pieces_are_each_judged() {
    let Some(world) = world("bypass: split queries") else {
        return;
    };
    let steps = [
        // A byte at a time; both names in one stream.
        format!("dns-pieces {SERVER} A allowed.example forbidden.example"),
        format!("tcp-exchange {ALLOWED_V4}:443 hello"),
        format!("tcp-exchange {FORBIDDEN_V4}:443 secret"),
        // Half a query that never ends, while others are asked.
        "open half tcp4".to_owned(),
        format!("connect half {SERVER}"),
        "send half x".to_owned(),
        format!("dns-pieces {SERVER} A forbidden.example allowed.example"),
        format!("dns-udp {SERVER} A allowed.example"),
    ];
    let outcome = attempt(&world, ONE_NAME, &steps.each_ref().map(String::as_str));
    let answers: Vec<&str> = outcome[0].succeeded().split(" / ").collect();
    assert_eq!(answers[0], format!("code=0 {ALLOWED_V4}"));
    assert!(answers[1].starts_with("code=3"), "{answers:?}");
    outcome[1].succeeded();
    outcome[2].refused();
    outcome[5].succeeded();
    let answers: Vec<&str> = outcome[6].succeeded().split(" / ").collect();
    assert!(answers[0].starts_with("code=3"), "{answers:?}");
    assert_eq!(answers[1], format!("code=0 {ALLOWED_V4}"));
    outcome[7].succeeded();
    assert!(!world.dns.heard_of("forbidden.example"));
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}
