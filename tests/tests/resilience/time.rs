//! Time passes, stands still, or jumps.

use crate::policy;
use crate::scene::{CLOSED, OPEN, closed_stayed_closed, world};
use egress_tests::address::{ALLOWED_V4, UPSTREAM_V4};
use egress_tests::operation::{Said, map_of};
use egress_tests::probe::{go_on, rest, until_pause};
use egress_tests::product::Agent;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_download_goes_on_long_after_its_grant_and_its_name_are_gone() {
    let Some(world) = world("time: download") else {
        return;
    };
    let short = policy::changing(&["allowed.example", "second.example"], policy::SHORT_GRANTS);
    let agent = Agent::start(&world, &[("changing", &short)]);
    let siege = format!("siege {OPEN} {CLOSED} {UPSTREAM_V4}:53 second.example");
    let steps = ["resolve allowed.example", "pause", &siege, "pause"];
    let mut run = agent.probe("s", "changing", &steps);
    until_pause(&mut run)[0].succeeded();
    run.say("begin").expect("it waits");
    // Two seconds to live; and the name leads nowhere any more.
    world.dns.resolve("allowed.example", &[]);
    std::thread::sleep(Duration::from_secs(4));
    let before = world.sniffer.packets().len();
    agent.reload();
    std::thread::sleep(Duration::from_secs(2));
    world.settle();
    let later = world.sniffer.packets().split_off(before);
    let went_on = later.iter().filter(|p| p.carries(b"ping")).count();
    run.say("end").expect("it listens");
    let counted = until_pause(&mut run);
    let counted: Value = serde_json::from_str(counted[0].succeeded()).expect("JSON");
    assert_eq!(counted["broken"], Value::Null, "{counted:#}");
    assert!(
        went_on > 10,
        "{went_on} echoes after the reload: {counted:#}"
    );
    assert_ne!(counted["refused"], 0, "new connections end: {counted:#}");
    closed_stayed_closed(&world, &counted);
    rest(run);
}

#[test]
fn a_connection_that_was_idle_for_hours_lives_and_new_ones_do_not_begin() {
    let Some(world) = world("time: idle for hours") else {
        return;
    };
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let agent = Agent::start(&world, &[("changing", &names)]);
    let (connect, new) = (
        format!("connect t {OPEN}"),
        format!("tcp-exchange {OPEN} new"),
    );
    let alive = ["send t alive", "receive t", &new];
    let mut steps = vec!["resolve allowed.example", "open t tcp4", &connect];
    steps.extend(["send t first", "receive t", "pause"]);
    steps.extend(alive);
    steps.extend(["resolve allowed.example", &new, "pause"]);
    steps.extend(["send t secret", "pause"]);
    let mut run = agent.probe("s", "changing", &steps);
    for attempt in until_pause(&mut run) {
        attempt.succeeded();
    }
    // The connection fell silent at once, and its grant lapsed as long ago as the
    // machine runs: for the programs hours have passed.
    let grants = map_of(&agent.root_directory(), "GRANTS");
    let dumped = Said::of(Command::new("bpftool").args(["--json", "map", "dump", "id", &grants]));
    let dumped = dumped.json();
    let entries = dumped.as_array().expect("entries");
    assert!(!entries.is_empty(), "no grant was found");
    for entry in entries {
        let hex = |value: &Value| -> Vec<String> {
            let bytes = value.as_array().expect("bytes").iter();
            bytes
                .map(|byte| byte.as_str().expect("a byte").to_owned())
                .collect()
        };
        let mut value = hex(&entry["value"]);
        // The expiry stands first: one nanosecond after the machine started.
        for (place, byte) in value.iter_mut().take(8).enumerate() {
            *byte = if place == 0 { "0x01" } else { "0x00" }.to_owned();
        }
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["map", "update", "id", &grants, "key"]);
        bpftool.args(hex(&entry["key"])).arg("value").args(value);
        Said::of(&mut bpftool).succeeded();
    }
    let attempts = go_on(&mut run);
    attempts[0].succeeded();
    attempts[1].succeeded();
    attempts[2].refused();
    attempts[3].succeeded();
    attempts[4].succeeded();
    assert!(agent.recorded(&["lapsed_grant", &ALLOWED_V4.to_string()]));
    // Revocation is another matter.
    agent.write_policy("changing", &policy::changing(&["second.example"], ""));
    agent.reload();
    go_on(&mut run)[0].failed();
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
    rest(run);
}

/// Set in the virtual machines of `cargo xtask vm`, whose clock is theirs alone.
const OWN_CLOCK: &str = "EGRESS_OWN_CLOCK";

/// Moves the wall clock by what `date` understands.
fn jump(by: &str) {
    let now = Command::new("date").args(["+%s", "--date", by]).output();
    let now = String::from_utf8(now.expect("date").stdout).expect("text");
    let seconds = format!("@{}", now.trim());
    Said::of(Command::new("date").args(["--set", &seconds])).succeeded();
}

#[test]
fn a_wall_clock_that_jumps_changes_no_verdict_but_those_that_name_a_date() {
    if std::env::var_os(OWN_CLOCK).is_none() {
        eprintln!("the clock of this machine is not the test's own: `cargo xtask vm` runs it");
        return;
    }
    let Some(world) = world("time: clock jumps") else {
        return;
    };
    let until = policy::seconds_from_now(1800);
    let rules = format!(
        "    - domain: \"second.example\"\n      protocols: [https]\n      expires: {until}\n"
    );
    let agent = Agent::start(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], &rules))],
    );
    let (connect, new, closed) = (
        format!("connect t {OPEN}"),
        format!("tcp-exchange {OPEN} new"),
        format!("tcp-exchange {CLOSED} secret"),
    );
    let mut steps = vec!["resolve allowed.example", "open t tcp4", &connect];
    let each = [
        "send t alive",
        "receive t",
        &new,
        "resolve allowed.example",
        "resolve second.example",
        &closed,
        "pause",
    ];
    steps.extend(std::iter::repeat_n(each, 3).flatten());
    let mut run = agent.probe("s", "changing", &steps);
    let attempts = until_pause(&mut run);
    for attempt in &attempts[..8] {
        attempt.succeeded();
    }
    attempts[8].refused();
    for (by, dated) in [("now + 1 day", false), ("now - 2 days", true)] {
        jump(by);
        // Rules that expire are looked at once a second.
        std::thread::sleep(Duration::from_secs(3));
        let attempts = go_on(&mut run);
        for attempt in &attempts[..4] {
            attempt.succeeded();
        }
        assert_eq!(attempts[4].ok, dated, "{by}: {:?}", attempts[4]);
        attempts[5].refused();
    }
    jump("now + 1 day");
    assert_eq!(agent.status()["state"], "enforcing");
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
    rest(run);
}
