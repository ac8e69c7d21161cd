//! Upstreams that lie, loop, flood, dawdle and fall silent, and answers that are
//! used again. Witnesses are the sniffer and what the sandbox could reach then.

use crate::policy::{EVERYTHING_BELOW, ONE_NAME, SHORT_GRANTS, changing};
use crate::scene::{attempt, rest, until_pause, world};
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4, SECOND_V4};
use egress_tests::dns::wire::kind;
use egress_tests::dns::{Data, FORGERIES, Manner, Record};
use egress_tests::product::Agent;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Any address; every query is brought to the agent.
const SERVER: &str = "192.0.2.1:53";

fn record(owner: &str, ttl: u32, data: Data) -> Record {
    let owner = owner.into();
    Record { owner, ttl, data }
}

#[test]
fn forged_answers_open_nothing_and_the_true_one_behind_them_counts() {
    let Some(world) = world("bypass: forged answers") else {
        return;
    };
    let manner = Manner::Forged(FORBIDDEN_V4.into());
    world.dns.behave("allowed.example", manner);
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let steps = [
        &format!("dns-udp-once {SERVER} A allowed.example"),
        &format!("tcp-exchange {FORBIDDEN_V4}:443 secret"),
        &format!("tcp-exchange {ALLOWED_V4}:443 hello"),
        "pause",
    ];
    let mut run = agent.probe("s", "one-name", &steps);
    let attempts = until_pause(&mut run);
    assert_eq!(attempts[0].succeeded(), format!("code=0 {ALLOWED_V4}"));
    attempts[1].refused();
    attempts[2].succeeded();
    // What came from other ports and hosts was never received.
    let status = agent.status();
    assert_eq!(status["counters"]["dns_forged"], FORGERIES, "{status:#}");
    rest(run);
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}

/// Everything below `allowed.example`, but for what leads over `blocked.example`.
fn with_blocklist() -> String {
    format!("{EVERYTHING_BELOW}blocklist:\n  - domain: \"**.blocked.example\"\n")
}

#[test]
fn chains_that_loop_or_lead_through_a_blocked_name_open_nothing() {
    let Some(world) = world("bypass: chains of aliases") else {
        return;
    };
    let alias = |from: &str, to: &str| record(from, 60, Data::Alias(to.into()));
    let address = |of: &str| record(of, 60, Data::Address(FORBIDDEN_V4.into()));
    let (itself, pair, long, blocked, hidden, without) = (
        "self.allowed.example",
        "pair.allowed.example",
        "long.allowed.example",
        "blocked.allowed.example",
        "hidden.allowed.example",
        "without.allowed.example",
    );
    let answer = |name: &str, records| world.dns.answer(name, kind::A, records);
    answer(
        itself,
        vec![alias(itself, itself), address("other.example")],
    );
    answer(
        pair,
        vec![
            alias(pair, "b.example"),
            alias("b.example", pair),
            address("c.example"),
        ],
    );
    let mut chain = vec![alias(long, "n0.example")];
    chain.extend((0..60).map(|n| alias(&format!("n{n}.example"), &format!("n{}.example", n + 1))));
    chain.push(address("n60.example"));
    answer(long, chain);
    answer(
        blocked,
        vec![
            alias(blocked, "x.blocked.example"),
            address("x.blocked.example"),
        ],
    );
    // The blocked one in the middle, behind a name that nobody has an opinion of.
    answer(
        hidden,
        vec![
            alias(hidden, "cdn.example"),
            alias("cdn.example", "y.blocked.example"),
            alias("y.blocked.example", "end.example"),
            address("end.example"),
        ],
    );
    // An alias to a name that no rule allows, and no address for it: it is not
    // looked for either.
    answer(without, vec![alias(without, "forbidden.example")]);
    let names = [itself, pair, long, blocked, hidden, without];
    let mut steps: Vec<String> = Vec::new();
    for name in names {
        steps.push(format!("dns-udp-once {SERVER} A {name}"));
        steps.push(format!("tcp-exchange {FORBIDDEN_V4}:443 secret"));
    }
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, &with_blocklist(), &steps);
    for (place, name) in names.iter().enumerate() {
        let answer = outcome[2 * place].succeeded();
        assert!(
            !answer.contains(&FORBIDDEN_V4.to_string()),
            "{name}: {answer}"
        );
        outcome[2 * place + 1].refused();
    }
    for (place, code) in [(0, 2), (1, 2), (2, 2), (3, 3), (4, 3)] {
        let answer = outcome[2 * place].succeeded();
        assert!(
            answer.starts_with(&format!("code={code}")),
            "{}: {answer}",
            names[place]
        );
    }
    assert!(!world.dns.heard_of("forbidden.example"));
    world.nothing_escaped(&[]);
}

#[test]
fn thousands_of_addresses_open_a_few_and_cost_others_nothing() {
    let Some(world) = world("bypass: thousands of addresses") else {
        return;
    };
    // As many as a message of 64 KiB holds: 198.18.0.0 and the following.
    const MANY: u32 = 1800;
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    let name = "many.allowed.example";
    let records = (0..MANY).map(|n| {
        let address = Ipv4Addr::from(first + n);
        record(name, 60, Data::Address(address.into()))
    });
    world.dns.answer(name, kind::A, records.collect());
    world.dns.behave(name, Manner::Truncated);
    let fine = record("fine.allowed.example", 60, Data::Address(ALLOWED_V4.into()));
    world
        .dns
        .answer("fine.allowed.example", kind::A, vec![fine]);
    let agent = Agent::start(&world, &[("below", EVERYTHING_BELOW)]);
    let beyond = Ipv4Addr::from(first + MANY - 1);
    let steps = [
        &format!("dns-tcp {SERVER} A {name} {name} {name}"),
        &format!("tcp-exchange {beyond}:443 secret"),
        "named-exchange fine.allowed.example 443 hello",
        "pause",
    ];
    let mut run = agent.probe("s", "everything-below", &steps);
    let attempts = until_pause(&mut run);
    let answers = attempts[0].succeeded();
    // 32 each time, or none; never what lies behind.
    for answer in answers.split(" / ") {
        let given = answer.matches(" 198.18.").count();
        assert_eq!(given, 32, "{answer}");
    }
    attempts[1].refused();
    attempts[2].succeeded();
    rest(run);
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}

#[test]
fn an_answer_from_the_cache_renews_what_is_about_to_lapse() {
    let Some(world) = world("bypass: cache after the grant") else {
        return;
    };
    let name = "kept.allowed.example";
    let kept = record(name, 10, Data::Address(ALLOWED_V4.into()));
    world.dns.answer(name, kind::A, vec![kept]);
    let policy = format!("{EVERYTHING_BELOW}dns:\n  min_ttl: 8s\n  grace: 0s\n");
    let ask = format!("dns-udp-once {SERVER} A {name}");
    let open = format!("tcp-exchange {ALLOWED_V4}:443 hello");
    let closed = format!("tcp-exchange {ALLOWED_V4}:443 secret");
    // The first grant ends after 10 s. Asking after 6 s is answered from the cache,
    // with 4 s to live, and grants what lasts 8 s from then on.
    let steps = [
        &ask,
        "sleep 6000",
        &ask,
        "sleep 5500",
        &open,
        "sleep 6500",
        &closed,
    ];
    let outcome = attempt(&world, &policy, &steps);
    for step in [0, 2, 4] {
        outcome[step].succeeded();
    }
    outcome[6].refused();
    assert_eq!(outcome[0].succeeded(), outcome[2].succeeded());
    assert_eq!(world.dns.times_asked(name), 1, "it was in the cache");
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_time_to_live_of_centuries_ends_with_the_bound_of_the_policy() {
    let Some(world) = world("bypass: huge TTL") else {
        return;
    };
    let policy = format!("{EVERYTHING_BELOW}{SHORT_GRANTS}");
    for (name, ttl) in [("huge", i32::MAX as u32), ("beyond", u32::MAX)] {
        let name = format!("{name}.allowed.example");
        let data = Data::Address(ALLOWED_V4.into());
        let records = vec![record(&name, ttl, data)];
        world.dns.answer(&name, kind::A, records);
        let steps = [
            &format!("named-exchange {name} 443 hello"),
            "sleep 3500",
            &format!("tcp-exchange {ALLOWED_V4}:443 secret"),
        ];
        let outcome = attempt(&world, &policy, &steps);
        outcome[0].succeeded();
        outcome[2].refused();
    }
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_slow_or_silent_upstream_delays_its_own_names_only() {
    let Some(world) = world("bypass: slow upstream") else {
        return;
    };
    world.dns.resolve("second.example", &[SECOND_V4.into()]);
    let names = changing(&["allowed.example", "second.example", "silent.example"], "");
    let agent = Agent::start(&world, &[("changing", &names)]);
    let slow = Manner::Slow(Duration::from_millis(700));
    world.dns.behave("second.example", slow);
    world.dns.resolve("silent.example", &[FORBIDDEN_V4.into()]);
    world.dns.behave("silent.example", Manner::Silent);
    let waiting = [
        "pause",
        &format!("dns-udp-once {SERVER} A silent.example"),
        &format!("tcp-exchange {FORBIDDEN_V4}:443 secret"),
        "pause",
        &format!("dns-udp-once {SERVER} A second.example"),
        &format!("tcp-exchange {SECOND_V4}:443 hello"),
        "pause",
    ];
    let mut patient = agent.probe("patient", "changing", &waiting);
    let steps = [
        "pause",
        &format!("dns-udp-once {SERVER} A allowed.example"),
        &format!("tcp-exchange {ALLOWED_V4}:443 hello"),
        "pause",
    ];
    let mut quick = agent.probe("quick", "changing", &steps);
    until_pause(&mut patient);
    until_pause(&mut quick);
    let begun = Instant::now();
    patient.say("go on").expect("the probe waits");
    std::thread::sleep(Duration::from_millis(100));
    quick.say("go on").expect("the probe waits");
    for attempt in until_pause(&mut quick) {
        attempt.succeeded();
    }
    let (others, silent) = (begun.elapsed(), until_pause(&mut patient));
    let gave_up = begun.elapsed();
    // SERVFAIL, before the C library would give up, and after the other one was served.
    assert!(
        silent[0].succeeded().starts_with("code=2"),
        "{:?}",
        silent[0]
    );
    silent[1].refused();
    assert!(others < gave_up, "{others:?} of {gave_up:?}");
    patient.say("go on").expect("the probe waits");
    let slow = until_pause(&mut patient);
    assert_eq!(slow[0].succeeded(), format!("code=0 {SECOND_V4}"));
    slow[1].succeeded();
    rest(patient);
    rest(quick);
    let open = [ALLOWED_V4, SECOND_V4].map(|ip| SocketAddr::from((ip, 443)));
    world.nothing_escaped(&open);
}
