//! The agent comes and goes; enforcement stays, and the next agent takes over.

mod policy;

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4, SECOND_V4};
use egress_tests::operation::attached;
use egress_tests::probe::{Attempt, go_on, rest, until_pause};
use egress_tests::process::{Running, paced};
use egress_tests::product::{Agent, programs};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

/// `allowed.example`, HTTPS.
const OPEN: &str = "203.0.113.10:443";
/// A server that no policy names.
const CLOSED: &str = "203.0.113.66:443";

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    world.dns.resolve("second.example", &[SECOND_V4.into()]);
    assert_eq!(OPEN, SocketAddr::from((ALLOWED_V4, 443)).to_string());
    assert_eq!(CLOSED, SocketAddr::from((FORBIDDEN_V4, 443)).to_string());
    Some(world)
}

fn agent(world: &World) -> Agent<'_> {
    let names = policy::changing(&["allowed.example", "second.example"], "");
    Agent::start(world, &[("changing", &names)])
}

/// Starts a sandbox with a live connection `t`, which pauses five times.
fn witness(agent: &Agent<'_>) -> Running {
    let closed = format!("tcp-exchange {CLOSED} secret");
    let (connect, open) = (
        format!("connect t {OPEN}"),
        format!("tcp-exchange {OPEN} new"),
    );
    let alive = ["send t more", "receive t", &open, &closed];
    let mut steps = vec!["resolve allowed.example", "open t tcp4", &connect];
    steps.extend(["send t first", "receive t", "pause"]);
    // While no agent runs.
    steps.extend(alive);
    steps.extend(["resolve allowed.example", "pause"]);
    // Under the next agent, then after a reload of it.
    for _ in 0..2 {
        steps.push("named-exchange second.example 443 again");
        steps.extend(alive);
        steps.push("pause");
    }
    let mut run = agent.probe("witness", "changing", &steps);
    for attempt in until_pause(&mut run) {
        attempt.succeeded();
    }
    run
}

/// What holds with and without an agent: the live connection goes on, the
/// grants open, the rest is closed.
#[track_caller]
fn enforced(attempts: &[Attempt]) {
    for attempt in &attempts[..3] {
        attempt.succeeded();
    }
    attempts[3].refused();
}

/// Starts an agent again, and asserts what it took over.
fn take_over(agent: &mut Agent<'_>, run: &mut Running) {
    let begun = Instant::now();
    agent.launch();
    let attempts = go_on(run);
    // An answer, not a second try of the C library after five seconds.
    assert!(
        begun.elapsed() < paced(Duration::from_secs(2)),
        "{:?}",
        begun.elapsed()
    );
    attempts[0].succeeded();
    enforced(&attempts[1..]);

    let status = agent.status();
    let started = status["started"].as_str().expect("words");
    assert!(started.contains("took over"), "{status:#}");
    assert_eq!(status["state"], "enforcing", "{status:#}");
    let list = agent.ask(&["sandbox", "list", "-o", "json"]).json();
    assert_eq!(list[0]["name"], "witness", "{list:#}");
    assert_eq!(list[0]["policy"], "changing", "{list:#}");
    assert_eq!(list[0]["processes"], 2, "{list:#}");
    // It knows the names behind the grants that it found.
    let since = status["since"].as_str().expect("a time").to_owned();
    let named = agent.awaits_record(|record| {
        record["time"].as_str() > Some(&since)
            && record["sandbox"] == "witness"
            && record["address"] == ALLOWED_V4.to_string()
            && record["name"] == "allowed.example"
            && record["verdict"] == "allow"
            && record["rule"]["file"]
                .as_str()
                .is_some_and(|file| file.ends_with("changing.yaml"))
    });
    assert!(named, "{:#?}", agent.audit());

    let reloaded = agent.reload();
    assert_eq!(reloaded["connections_ended"], 0, "{reloaded:#}");
    let attempts = go_on(run);
    attempts[0].succeeded();
    enforced(&attempts[1..]);
}

#[test]
fn a_killed_agent_is_replaced_without_a_gap() {
    let Some(world) = world("restart: kill") else {
        return;
    };
    let mut agent = agent(&world);
    let mut run = witness(&agent);
    agent.kill();
    let attempts = go_on(&mut run);
    enforced(&attempts);
    attempts[4].failed();
    take_over(&mut agent, &mut run);
    rest(run);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_stopped_agent_says_so_and_is_replaced_without_a_gap() {
    let Some(world) = world("restart: stop") else {
        return;
    };
    let mut agent = agent(&world);
    let mut run = witness(&agent);
    let said = agent.terminate();
    assert!(said.status.success(), "{said:#?}");
    assert!(!agent.socket().exists(), "the control socket is gone");
    assert!(agent.recorded(&["agent stops; enforcement stays in force"]));
    let attempts = go_on(&mut run);
    enforced(&attempts);
    attempts[4].failed();
    take_over(&mut agent, &mut run);
    rest(run);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

/// Runs the probe in a cgroup below the root that no agent made.
fn stranger(world: &World, agent: &Agent<'_>, name: &str) {
    let cgroup = agent.root_directory().join(name);
    std::fs::create_dir(&cgroup).expect("root may make cgroups");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&cgroup)
        .arg(world.probe())
        .args([
            format!("tcp-exchange {OPEN} secret"),
            format!("udp-send {OPEN} secret"),
            "resolve allowed.example".into(),
        ]);
    let run = world.near.run(|| Running::start(&mut command));
    let (_, lines, errors) = run.expect("a shell").finish();
    let attempts: Vec<Attempt> = lines
        .iter()
        .filter_map(|line| Attempt::parse(line))
        .collect();
    assert_eq!(attempts.len(), 3, "{errors}");
    attempts[0].refused();
    attempts[1].refused();
    attempts[2].failed();
}

#[test]
fn a_cgroup_that_appears_below_the_root_is_denied_with_and_without_an_agent() {
    let Some(world) = world("restart: unknown cgroup") else {
        return;
    };
    let mut agent = agent(&world);
    stranger(&world, &agent, "one");
    assert!(agent.recorded(&["unknown_sandbox"]));
    agent.kill();
    stranger(&world, &agent, "two");
    world.nothing_escaped(&[]);
}

#[test]
fn an_armed_root_is_denied_until_an_agent_takes_over_what_is_in_force() {
    let Some(world) = world("restart: armed") else {
        return;
    };
    let mut agent = Agent::prepare(&world, &[("changing", "no policy at all")]);
    let arm = || {
        let mut command = Command::new(egress_tests::product::binary("egress-agent"));
        command
            .arg("--arm")
            .arg("--config")
            .arg(agent.directory().join("agent.toml"));
        egress_tests::operation::Said::of(&mut command)
    };
    assert!(arm().errors.contains("is denied until an agent runs"));
    stranger(&world, &agent, "one");
    // Again is no harm, and no agent's work is undone by it.
    assert!(arm().errors.contains("stays as it is"));
    agent.write_policy("changing", &policy::changing(&["allowed.example"], ""));
    agent.launch();
    let started = agent.status()["started"].to_string();
    assert!(
        started.contains("took over the programs and maps in force, unchanged"),
        "{started}"
    );
    world.nothing_escaped(&[]);
}

#[test]
fn a_sandbox_that_ends_while_no_agent_runs_is_collected_by_the_next() {
    let Some(world) = world("restart: ended meanwhile") else {
        return;
    };
    let mut agent = agent(&world);
    let mut run = agent.probe("short", "changing", &["pause"]);
    until_pause(&mut run);
    agent.kill();
    run.say("go on").expect("the probe waits");
    let (status, _, errors) = run.finish();
    assert!(status.success(), "the command's status counts: {errors}");
    assert!(errors.contains("no agent answers"), "{errors}");
    assert!(agent.root_directory().join("short").exists());
    agent.launch();
    for _ in 0..50 {
        if !agent.root_directory().join("short").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!agent.root_directory().join("short").exists());
    assert_eq!(agent.status()["sandboxes"], 0);
    assert!(agent.recorded(&["short", "ended"]));
}

#[test]
fn where_the_resolvers_port_was_taken_another_is_used_and_told() {
    let Some(world) = world("restart: port taken") else {
        return;
    };
    let mut agent = agent(&world);
    let mut run = agent.probe(
        "s",
        "changing",
        &[
            "resolve allowed.example",
            "pause",
            "named-exchange second.example 443 hi",
            "pause",
        ],
    );
    until_pause(&mut run)[0].succeeded();
    let before = agent.status()["resolver"].clone();
    let address: SocketAddr = before[0]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("an address");
    agent.kill();
    let squatters = world
        .near
        .run(|| (UdpSocket::bind(address), TcpListener::bind(address)));
    squatters.0.as_ref().expect("the port is free now");
    agent.launch();
    let status = agent.status();
    assert_ne!(status["resolver"], before, "{status:#}");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains(&address.port().to_string()), "{status:#}");
    assert!(agent.recorded(&["resolver", &address.port().to_string()]));
    go_on(&mut run)[0].succeeded();
    rest(run);
}

#[test]
fn a_program_that_somebody_took_away_is_put_back_and_recorded() {
    let Some(world) = world("restart: detached program") else {
        return;
    };
    let agent = agent(&world);
    let root = agent.root_directory();
    let all = attached(&root);
    assert_eq!(all.len(), programs(), "{all:?}");
    let output = Command::new("bpftool")
        .args(["--json", "cgroup", "show"])
        .arg(&root)
        .output()
        .expect("bpftool");
    let programs: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let connect4 = programs
        .as_array()
        .and_then(|list| list.iter().find(|program| program["name"] == "connect4"))
        .expect("connect4 is attached");
    let detached = Command::new("bpftool")
        .args(["cgroup", "detach"])
        .arg(&root)
        .args(["cgroup_inet4_connect", "id", &connect4["id"].to_string()])
        .status()
        .expect("bpftool");
    assert!(detached.success());
    assert!(agent.awaits_record(|record| {
        let text = record["detail"].as_str().unwrap_or_default();
        record["reason"] == "enforcement_disturbed" && text.contains("connect4; put back")
    }));
    assert_eq!(attached(&root), all);
    let status = agent.status();
    assert_eq!(status["warnings"], serde_json::json!([]));
    assert_eq!(status["state"], "enforcing");
}
