//! Policies that change while sandboxes run: what is added works at once, what
//! is removed is closed at once, and everything else goes on.

mod policy;

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, SECOND_V4};
use egress_tests::probe::{Attempt, go_on, rest, until_pause};
use egress_tests::process::paced;
use egress_tests::product::Agent;
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::time::Duration;

/// `allowed.example`, HTTPS.
const FIRST: &str = "203.0.113.10:443";
/// `second.example`, HTTPS.
const SECOND: &str = "203.0.113.20:443";

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    world.dns.resolve("second.example", &[SECOND_V4.into()]);
    assert_eq!(FIRST, SocketAddr::from((ALLOWED_V4, 443)).to_string());
    assert_eq!(SECOND, SocketAddr::from((SECOND_V4, 443)).to_string());
    Some(world)
}

fn both() -> [SocketAddr; 2] {
    [
        SocketAddr::from((ALLOWED_V4, 443)),
        SocketAddr::from((SECOND_V4, 443)),
    ]
}

/// A policy `changing` that opens these names for HTTPS.
fn names(names: &[&str]) -> String {
    policy::changing(names, "")
}

/// Steps that resolve a name, connect to `to` on a socket and use it.
fn live(socket: &str, name: &str, to: &str) -> [String; 5] {
    [
        format!("resolve {name}"),
        format!("open {socket} tcp4"),
        format!("connect {socket} {to}"),
        format!("send {socket} before"),
        format!("receive {socket}"),
    ]
}

/// Asserts that the owner was told that the kernel ended its connection.
#[track_caller]
fn was_ended(attempt: &Attempt) {
    let ended = [libc::ECONNABORTED, libc::EPIPE];
    assert!(
        attempt.errno.is_some_and(|errno| ended.contains(&errno)),
        "the connection should have been ended: {attempt:?}"
    );
}

#[test]
fn an_added_rule_works_at_once() {
    let Some(world) = world("reload: added rule") else {
        return;
    };
    let agent = Agent::start(&world, &[("changing", &names(&["allowed.example"]))]);
    let mut probe = agent.probe(
        "s",
        "changing",
        &[
            "resolve second.example",
            "pause",
            "named-exchange second.example 443 hello",
            "pause",
        ],
    );
    until_pause(&mut probe)[0].failed();
    agent.write_policy("changing", &names(&["allowed.example", "second.example"]));
    let reloaded = agent.reload();
    assert_eq!(reloaded["connections_ended"], 0, "{reloaded}");
    go_on(&mut probe)[0].succeeded();
    rest(probe);
    assert!(agent.recorded(&["\"policy\"", "in force: changing", "\"allow\""]));
}

#[test]
fn a_hangup_reloads_as_the_command_does() {
    let Some(world) = world("reload: hangup") else {
        return;
    };
    let agent = Agent::start(&world, &[("changing", &names(&["allowed.example"]))]);
    let before = agent.status()["policies"].clone();
    agent.write_policy("changing", &names(&["second.example"]));
    let pid = agent
        .pid()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .expect("it runs");
    kill_process(pid, Signal::HUP).expect("it runs");
    assert!(agent.recorded(&["\"policy\"", "in force: changing", "\"allow\""]));
    assert_ne!(agent.status()["policies"], before);
    // A bad file is refused, and the agent goes on.
    agent.write_policy("changing", "no policy");
    kill_process(pid, Signal::HUP).expect("it runs");
    assert!(agent.recorded(&["refused; the policies in force stay"]));
    assert_eq!(agent.status()["state"], "enforcing, with warnings");
}

#[test]
fn a_removed_rule_ends_its_connections_and_no_others() {
    let Some(world) = world("reload: removed rule") else {
        return;
    };
    let all = names(&["allowed.example", "second.example"]);
    let agent = Agent::start(&world, &[("changing", &all)]);
    let mut steps: Vec<String> = live("t", "allowed.example", FIRST).into();
    steps.extend(live("s", "second.example", SECOND));
    steps.extend([
        "pause".into(),
        "send t secret-one".into(),
        format!("tcp-exchange {FIRST} secret-two"),
        "resolve allowed.example".into(),
        "send s after".into(),
        "receive s".into(),
        "pause".into(),
        "send t secret-three".into(),
        "sleep 1000".into(),
        "named-exchange allowed.example 443 again".into(),
        "pause".into(),
    ]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut probe = agent.probe("s", "changing", &steps);
    for attempt in until_pause(&mut probe) {
        attempt.succeeded();
    }
    world.settle();
    let towards = || {
        let packets = world.sniffer.packets();
        packets.iter().filter(|p| p.goes_to(ALLOWED_V4)).count()
    };
    let before = towards();

    agent.write_policy("changing", &names(&["second.example"]));
    let reloaded = agent.reload();
    assert_eq!(reloaded["connections_ended"], 1, "{reloaded}");
    let attempts = go_on(&mut probe);
    was_ended(&attempts[0]);
    attempts[1].refused();
    attempts[2].failed();
    attempts[3].succeeded();
    attempts[4].succeeded();
    world.settle();
    assert_eq!(towards(), before, "a revoked connection sent something");

    // Allowed again: the old connection stays dead, and nothing that was
    // written to it is sent after all (kernel.md, S15).
    agent.write_policy("changing", &all);
    agent.reload();
    let attempts = go_on(&mut probe);
    attempts[0].failed();
    attempts[2].succeeded();
    rest(probe);
    world.nothing_escaped(&both());
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn what_was_written_to_a_revoked_connection_is_never_sent() {
    let Some(world) = world("reload: queued data") else {
        return;
    };
    let agent = Agent::start(&world, &[("changing", &names(&["allowed.example"]))]);
    // The sandbox writes all the time, so that something is always on its way
    // between the moment of the revocation and that of the connection's end.
    let mut steps: Vec<String> = live("t", "allowed.example", FIRST).into();
    steps.push("pause".into());
    // Two seconds of it, so that the reload falls into them on any machine.
    steps.extend((0..1000).flat_map(|_| ["send t flood".into(), "sleep 2".into()]));
    steps.extend(["send t flood".into(), "pause".into(), "send t flood".into()]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut probe = agent.probe("s", "changing", &steps);
    until_pause(&mut probe);
    probe.say("go on").expect("the probe waits");
    agent.write_policy("changing", &names(&["second.example"]));
    agent.reload();
    let attempts = until_pause(&mut probe);
    was_ended(attempts.last().expect("it wrote"));
    world.settle();
    let seen = || {
        let packets = world.sniffer.packets();
        // The kernel itself resets what the server still sends.
        packets.iter().filter(|p| p.carries(b"flood")).count()
    };
    let before = seen();
    agent.write_policy("changing", &names(&["allowed.example"]));
    agent.reload();
    // The first retransmission would come after 200 ms, the second after 600.
    std::thread::sleep(Duration::from_secs(2));
    world.settle();
    assert_eq!(seen(), before, "queued data was flushed");
    rest(probe);
}

#[test]
fn a_bad_file_changes_nothing_and_says_where() {
    let Some(world) = world("reload: bad file") else {
        return;
    };
    let agent = Agent::start(&world, &[("changing", &names(&["allowed.example"]))]);
    let mut probe = agent.probe(
        "s",
        "changing",
        &["pause", "named-exchange allowed.example 443 hello", "pause"],
    );
    until_pause(&mut probe);
    let before = agent.status()["policies"].clone();

    let bad = names(&["second.example"]).replace("protocols", "protocol");
    agent.write_policy("changing", &bad);
    let line = bad
        .lines()
        .position(|line| line.contains("protocol:"))
        .expect("the mistake")
        + 1;
    let said = agent.ask(&["reload", "--wait"]);
    said.failed_with(
        78,
        &[&format!("changing.yaml:{line}:"), "nothing was changed"],
    );
    assert_eq!(agent.status()["policies"], before);
    go_on(&mut probe)[0].succeeded();
    rest(probe);
    assert!(agent.recorded(&["\"deny\"", "refused; the policies in force stay"]));

    // A policy that is missing altogether is told with the same care.
    std::fs::remove_dir_all(agent.directory().join("policies.d")).expect("it is there");
    agent
        .ask(&["reload", "--wait"])
        .failed_with(78, &["policies.d", "nothing was changed"]);
    assert_eq!(agent.status()["policies"], before);
}

#[test]
fn a_reload_that_keeps_a_rule_spares_connections_whose_grant_has_lapsed() {
    let Some(world) = world("reload: lapsed grant") else {
        return;
    };
    let short = |names: &[&str]| policy::changing(names, policy::SHORT_GRANTS);
    let agent = Agent::start(&world, &[("changing", &short(&["allowed.example"]))]);
    let mut steps: Vec<String> = live("t", "allowed.example", FIRST).into();
    steps.extend([
        "sleep 3000".into(),
        format!("tcp-exchange {FIRST} secret"),
        "pause".into(),
        "send t after".into(),
        "receive t".into(),
        "pause".into(),
    ]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut probe = agent.probe("s", "changing", &steps);
    // The connection was proved live, and a new one is refused by now.
    until_pause(&mut probe)[6].refused();
    agent.write_policy("changing", &short(&["allowed.example", "second.example"]));
    let reloaded = agent.reload();
    assert_eq!(reloaded["connections_ended"], 0, "{reloaded}");
    for attempt in go_on(&mut probe) {
        attempt.succeeded();
    }
    rest(probe);
}

#[test]
fn a_rule_closes_on_its_date_while_the_agent_runs() {
    let Some(world) = world("reload: expiry date") else {
        return;
    };
    let until = policy::seconds_from_now(paced(Duration::from_secs(5)).as_secs());
    let text = policy::changing(&["second.example"], "").replace(
        "allowlist:\n  web:\n",
        &format!(
            "allowlist:\n  web:\n    - domain: \"allowed.example\"\n      protocols: [https]\n      expires: \"{until}\"\n"
        ),
    );
    let agent = Agent::start(&world, &[("changing", &text)]);
    let mut steps: Vec<String> = live("t", "allowed.example", FIRST).into();
    steps.extend(live("s", "second.example", SECOND));
    steps.extend([
        "pause".into(),
        "send t secret".into(),
        format!("tcp-exchange {FIRST} secret"),
        "resolve allowed.example".into(),
        "send s after".into(),
        "receive s".into(),
        "pause".into(),
    ]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut probe = agent.probe("s", "changing", &steps);
    for attempt in until_pause(&mut probe) {
        attempt.succeeded();
    }
    assert!(agent.recorded(&["rules that have expired"]));
    let attempts = go_on(&mut probe);
    was_ended(&attempts[0]);
    attempts[1].refused();
    attempts[2].failed();
    attempts[3].succeeded();
    attempts[4].succeeded();
    rest(probe);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
    assert!(agent.recorded(&["allowed.example", "rule_expired"]));
}

#[test]
fn a_blocklist_entry_takes_back_what_was_granted_already() {
    let Some(world) = world("reload: blocklist") else {
        return;
    };
    let free = names(&["allowed.example", "second.example"]);
    let agent = Agent::start(&world, &[("changing", &free)]);
    let mut steps: Vec<String> = live("t", "allowed.example", FIRST).into();
    steps.extend(live("s", "second.example", SECOND));
    steps.extend([
        "pause".into(),
        "send t secret".into(),
        format!("tcp-exchange {FIRST} secret"),
        "send s after".into(),
        "receive s".into(),
        "pause".into(),
    ]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut probe = agent.probe("s", "changing", &steps);
    for attempt in until_pause(&mut probe) {
        attempt.succeeded();
    }
    let blocked = format!("{free}blocklist:\n  - {{ cidr: \"{ALLOWED_V4}/32\" }}\n");
    agent.write_policy("changing", &blocked);
    let reloaded = agent.reload();
    assert_eq!(reloaded["connections_ended"], 1, "{reloaded}");
    let attempts = go_on(&mut probe);
    was_ended(&attempts[0]);
    attempts[1].refused();
    attempts[2].succeeded();
    attempts[3].succeeded();
    rest(probe);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_reload_leaves_the_connections_of_shadow_mode_alone() {
    let Some(world) = world("reload: shadow mode") else {
        return;
    };
    let shadow = |text: String| text.replace("mode: enforce", "mode: shadow");
    let agent = Agent::start(&world, &[("changing", &shadow(names(&["second.example"])))]);
    let mut steps: Vec<String> = live("t", "allowed.example", FIRST).into();
    steps.extend([
        "pause".into(),
        "send t after".into(),
        "receive t".into(),
        "pause".into(),
        "send t secret".into(),
        "pause".into(),
    ]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut probe = agent.probe("s", "changing", &steps);
    for attempt in until_pause(&mut probe) {
        attempt.succeeded();
    }
    agent.write_policy(
        "changing",
        &shadow(names(&["second.example", "third.example"])),
    );
    let reloaded = agent.reload();
    assert_eq!(reloaded["connections_ended"], 0, "{reloaded}");
    for attempt in go_on(&mut probe) {
        attempt.succeeded();
    }
    // From shadow to enforce is a revocation like any other.
    agent.write_policy("changing", &names(&["second.example"]));
    assert_eq!(agent.reload()["connections_ended"], 1);
    was_ended(&go_on(&mut probe)[0]);
    rest(probe);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_policy_that_changed_while_no_agent_ran_ends_connections_when_one_starts() {
    let Some(world) = world("reload: changed while dead") else {
        return;
    };
    let all = names(&["allowed.example", "second.example"]);
    let mut agent = Agent::start(&world, &[("changing", &all)]);
    let mut steps: Vec<String> = live("t", "allowed.example", FIRST).into();
    steps.extend(live("s", "second.example", SECOND));
    steps.extend([
        "pause".into(),
        "send t secret".into(),
        "send s after".into(),
        "receive s".into(),
        "pause".into(),
    ]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut probe = agent.probe("s", "changing", &steps);
    for attempt in until_pause(&mut probe) {
        attempt.succeeded();
    }
    agent.kill();
    agent.write_policy("changing", &names(&["second.example"]));
    agent.launch();
    let attempts = go_on(&mut probe);
    was_ended(&attempts[0]);
    attempts[1].succeeded();
    attempts[2].succeeded();
    rest(probe);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}
