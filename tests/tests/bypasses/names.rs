//! Names and addresses that can be read in two ways, and answers that try to
//! open more than they should. Witnesses are the upstream and the sniffer.

use crate::policy::{EVERYTHING_BELOW, MANY_NAMES, ONE_NAME};
use crate::scene::{attempt, rest, until_pause, world};
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::dns::wire::kind;
use egress_tests::dns::{Data, Manner, Record};
use egress_tests::product::Agent;
use std::net::{Ipv4Addr, SocketAddr};

#[test]
fn an_address_in_another_notation_is_that_address() {
    let Some(world) = world("bypass: notations of an address") else {
        return;
    };
    let [a, b, c, d] = FORBIDDEN_V4.octets();
    let number = u32::from(FORBIDDEN_V4);
    // Every one is an address to the C library, which asks nobody for it.
    let spellings = [
        format!("{number}"),
        format!("0x{number:x}"),
        format!("0{number:o}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
        format!("::ffff:{FORBIDDEN_V4}"),
        format!(
            "::ffff:{:x}:{:x}",
            u32::from(a) << 8 | u32::from(b),
            u32::from(c) << 8 | u32::from(d)
        ),
    ];
    let steps = spellings.map(|spelling| format!("named-exchange {spelling} 443 secret"));
    let steps = steps.each_ref().map(String::as_str);
    let outcome = attempt(&world, ONE_NAME, &steps);
    for step in 0..steps.len() {
        outcome[step].refused();
    }
    world.nothing_escaped(&[]);
    assert_eq!(world.dns.asked(), [], "an address is no name");
}

#[test]
fn a_name_that_only_looks_allowed_is_never_forwarded() {
    let Some(world) = world("bypass: names that look alike") else {
        return;
    };
    let names = [
        "allowed.example.forbidden.example",
        "xallowed.example",
        "allowed.examplex",
        "allowed-example",
        "allowed%2eexample",
        "allowed.example%00.forbidden.example",
        "[allowed.example]",
        "\"allowed.example\"",
        "allowed.example:443",
        // Cyrillic, in letters and in the form for the wire; an ideographic dot;
        // fullwidth letters; a soft hyphen.
        "\u{430}llowed.example",
        "xn--llowed-3ve.example",
        "allowed\u{3002}example",
        "\u{ff41}llowed.example",
        "al\u{ad}lowed.example",
    ];
    let mut steps: Vec<String> = Vec::new();
    for name in names {
        steps.push(format!("resolve {name}"));
        steps.push(format!("dns-udp 127.0.0.1:53 A {name}"));
    }
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, ONE_NAME, &steps);
    for attempt in &outcome.attempts {
        let answered = attempt.ok && attempt.detail.contains("code=0 ");
        assert!(!answered, "{attempt:?}");
        if attempt.step.starts_with("resolve") {
            attempt.failed();
        }
    }
    assert_eq!(world.dns.asked(), [], "something was forwarded");
    attempt(&world, ONE_NAME, &["resolve allowed.example"])[0].succeeded();
}

#[test]
fn an_answer_with_hundreds_of_addresses_opens_the_first_of_them_only() {
    let Some(world) = world("bypass: hundreds of addresses") else {
        return;
    };
    // 198.51.100.1 to .120: fewer than the bound on records, more than the
    // bound on addresses.
    let address = |number: u8| Ipv4Addr::new(198, 51, 100, number);
    let records = (1..=120).map(|number| Record {
        owner: "many.allowed.example".into(),
        ttl: 60,
        data: Data::Address(address(number).into()),
    });
    world
        .dns
        .answer("many.allowed.example", kind::A, records.collect());
    world.dns.behave("many.allowed.example", Manner::Truncated);
    let beyond = format!("tcp-exchange {}:443 secret", address(33));
    let last = format!("tcp-exchange {}:443 secret", address(120));
    let steps = [
        "dns-tcp 127.0.0.1:53 A many.allowed.example",
        &beyond,
        &last,
    ];
    let outcome = attempt(&world, EVERYTHING_BELOW, &steps);
    let told = outcome[0].succeeded();
    assert_eq!(told.matches(" 198.51.100.").count(), 32, "{told}");
    outcome[1].refused();
    outcome[2].refused();
    world.nothing_escaped(&[]);
}

#[test]
fn an_answer_that_is_over_at_once_can_still_be_connected_to() {
    let Some(world) = world("bypass: TTL 0") else {
        return;
    };
    for (name, ttl) in [
        ("zero.allowed.example", 0),
        ("huge.allowed.example", u32::MAX),
    ] {
        let record = Record {
            owner: name.into(),
            ttl,
            data: Data::Address(ALLOWED_V4.into()),
        };
        world.dns.answer(name, kind::A, vec![record]);
    }
    let steps = [
        "named-exchange zero.allowed.example 443 hello",
        "named-exchange huge.allowed.example 443 hello",
    ];
    let outcome = attempt(&world, EVERYTHING_BELOW, &steps);
    outcome[0].succeeded();
    outcome[1].succeeded();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}

/// What one sandbox may hold.
const GRANTS: usize = 16_384;
/// More than that. `EGRESS_NAMES` asks for more, or for fewer where the machine is
/// emulated.
const NAMES: usize = 20_000;

#[test]
fn endless_names_of_one_sandbox_cost_another_nothing() {
    let Some(world) = world("bypass: endless names") else {
        return;
    };
    let names = std::env::var("EGRESS_NAMES").map_or(NAMES, |n| n.parse().expect("a number"));
    world
        .dns
        .resolve_below("allowed.example", &[ALLOWED_V4.into()]);
    let policy = format!("{EVERYTHING_BELOW}{MANY_NAMES}");
    let agent = Agent::start(&world, &[("below", &policy)]);
    // In parts, so that a slow machine says something now and then.
    const PART: usize = 100;
    let parts: Vec<String> = (0..names / PART)
        .map(|part| format!("wildcard {} {PART} allowed.example", part * PART))
        .collect();
    let mut steps = vec!["pause"];
    for part in &parts {
        steps.extend([part, "pause"]);
    }
    let mut hostile = agent.probe("hostile", "everything-below", &steps);
    until_pause(&mut hostile);
    // Resolves a name of its own and connects, with patience.
    let ask = [
        "rounds 900001 1 1 443",
        "rounds 900002 1 1 443",
        "rounds 900003 1 1 443",
    ];
    let ask = ask.map(|ask| format!("{ask} allowed.example"));
    let steps = ["pause", &ask[0], "pause", &ask[1], "pause", &ask[2]];
    let mut other = agent.probe("other", "everything-below", &steps);
    until_pause(&mut other);
    let mut answered = 0;
    for part in 0..parts.len() {
        hostile.say("go on").expect("the probe waits");
        // While the first names come, and while its share is being used up.
        if part == 1 || part == parts.len() * 3 / 4 {
            other.say("go on").expect("the probe waits");
            until_pause(&mut other)[0].succeeded();
        }
        let told = until_pause(&mut hostile);
        answered += told[0].succeeded().parse::<usize>().expect("a number");
    }
    // And when nothing is left of it.
    rest(other)[0].succeeded();
    let least = names.min(GRANTS);
    assert!(answered >= least, "{answered} of {names} were answered");
    rest(hostile);
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}
