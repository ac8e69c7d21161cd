//! The button that stops everything.

use crate::policy;
use crate::scene::{OPEN, world};
use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::operation::Said;
use egress_tests::probe::{Attempt, go_on, rest, until_pause};
use egress_tests::process::{Running, paced};
use egress_tests::product::{Agent, binary};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// Opens everything that a policy can open: a name, a network, a loopback listener.
const WIDE: &str = r#"
apiVersion: egress/v1
name: wide
egress:
  default_action: deny
  mode: enforce
allowlist:
  web:
    - domain: "*.example"
      ports: [443, 4433]
      protocols: [tcp, udp]
  network:
    - cidr: "203.0.113.8/29"
      ports: [80]
      protocols: [tcp]
  neighbour:
    - domain: "localhost"
      ports: [8080]
      protocols: [tcp]
"#;

fn agent(world: &World) -> Agent<'_> {
    let shadow = WIDE
        .replace("name: wide", "name: watched")
        .replace("mode: enforce", "mode: shadow");
    Agent::start(world, &[("wide", WIDE), ("watched", &shadow)])
}

/// Everything that is open in a sandbox before the block, and again after it.
fn everything() -> Vec<String> {
    vec![
        "resolve allowed.example".into(),
        format!("tcp-exchange {OPEN} new"),
        format!("udp-exchange {ALLOWED_V4}:4433 new"),
        format!("tcp-exchange {ALLOWED_V4}:80 new"),
        "self-tcp 127.0.0.1:9090 own".into(),
    ]
}

/// A sandbox with a connection `t` and a peer `u` that goes through
/// [`everything`] as often as it is told.
fn witness(agent: &Agent<'_>, name: &str, policy: &str, times: usize) -> Running {
    let mut steps = everything();
    steps.extend([
        "open t tcp4".into(),
        format!("connect t {OPEN}"),
        "send t first".into(),
        "receive t".into(),
        "open u udp4".into(),
        format!("connect u {ALLOWED_V4}:4433"),
        "send u first".into(),
        "receive u".into(),
        "pause".into(),
    ]);
    for _ in 0..times {
        steps.extend([
            "send t LIVE".into(),
            "receive t".into(),
            "send u LIVE".into(),
        ]);
        steps.extend(everything());
        steps.push("pause".into());
    }
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut run = agent.probe(name, policy, &steps);
    for attempt in until_pause(&mut run) {
        attempt.succeeded();
    }
    run
}

/// Whoever reads from a connection that was ended gets an error once, and the
/// end of the stream from then on.
#[track_caller]
fn silent(receive: &Attempt) {
    assert!(!receive.ok || receive.detail.is_empty(), "{receive:?}");
}

/// Nothing goes any more: neither what lived nor what begins.
#[track_caller]
fn stopped(attempts: &[Attempt]) {
    // What is written to the connection may still be taken by the kernel for a
    // moment; that it does not leave is for the sniffer to say.
    silent(&attempts[1]);
    attempts[2].failed();
    attempts[3].failed();
    for attempt in &attempts[4..] {
        attempt.refused();
    }
}

/// Everything goes again but what lived before.
#[track_caller]
fn restored(attempts: &[Attempt]) {
    attempts[0].failed();
    silent(&attempts[1]);
    attempts[2].failed();
    for attempt in &attempts[3..] {
        attempt.succeeded();
    }
}

/// Presses the button; the incident's id.
fn press(agent: &Agent<'_>, reason: &str) -> String {
    let root = agent.root();
    let said = agent.ask(&["emergency-block", "--reason", reason, "--root", &root]);
    let id = said.succeeded().trim().to_owned();
    assert!(id.starts_with("inc-"), "{said:#?}");
    id
}

fn restore(agent: &Agent<'_>, id: &str) -> Said {
    agent.ask(&["restore", "--incident", id, "--root", &agent.root()])
}

/// `egressctl` with what it needs where no agent answers.
fn alone(agent: &Agent<'_>, arguments: &[&str]) -> Said {
    let (root, state) = (agent.root(), agent.state());
    let state = state.to_str().expect("a path that is text");
    let place = ["--root", &root, "--state", state];
    agent.ask(&[arguments, &place].concat())
}

/// Asserts that nothing came to the far side since `before`, not even a farewell.
/// What the server still sends to a connection that was ended is reset by the
/// kernel itself, with a packet that belongs to no socket.
#[track_caller]
fn silent_since(world: &World, before: usize) {
    world.settle();
    let packets = world.sniffer.packets();
    let later: Vec<_> = packets[before..]
        .iter()
        .filter(|packet| packet.goes_to(ALLOWED_V4) && !packet.is_reset)
        .collect();
    assert!(later.is_empty(), "it was not silent: {later:#?}");
}

fn seen(world: &World) -> usize {
    world.settle();
    world.sniffer.packets().len()
}

fn incident_of(status: &Value) -> &Value {
    &status["emergency"]
}

#[test]
fn an_emergency_block_stops_what_lives_and_what_begins_until_it_is_restored() {
    let Some(world) = world("emergency: block and restore") else {
        return;
    };
    let mut agent = agent(&world);
    let mut witnesses = [
        witness(&agent, "one", "wide", 3),
        witness(&agent, "shadow", "watched", 3),
    ];
    let id = press(&agent, "credentials leaked");
    let before = seen(&world);
    for run in &mut witnesses {
        stopped(&go_on(run));
    }
    silent_since(&world, before);
    let status = agent.status();
    assert_eq!(status["state"], "stopped by an emergency block");
    assert_eq!(incident_of(&status)["incident"], id);
    assert_eq!(incident_of(&status)["reason"], "credentials leaked");
    assert_eq!(incident_of(&status)["user"], 0);
    let text = agent.ask(&["status"]);
    for word in [
        "EMERGENCY",
        "credentials leaked",
        "by uid 0",
        &format!("--incident {id}"),
    ] {
        assert!(text.succeeded().contains(word), "{word}: {text:#?}");
    }
    let configuration = agent.directory().join("agent.toml");
    let configuration = configuration.to_str().expect("a path that is text");
    let doctor = agent.ask(&["doctor", "--config", configuration]);
    assert!(doctor.out.contains("credentials leaked"), "{doctor:#?}");
    assert!(agent.recorded(&[
        &id,
        "credentials leaked",
        "\"kind\":\"emergency\"",
        "\"user\":0"
    ]));
    for (sandbox, hook) in [
        ("one", "connect"),
        ("shadow", "egress"),
        ("shadow", "sendmsg"),
    ] {
        let recorded = agent.awaits_record(|record| {
            record["sandbox"] == sandbox
                && record["hook"] == hook
                && record["reason"] == "emergency"
                && record["verdict"] == "deny"
        });
        assert!(recorded, "{sandbox} {hook}: {:#?}", agent.audit());
    }

    // Pressed again it is the same incident; a policy that is loaded changes nothing.
    assert_eq!(press(&agent, "again"), id);
    agent.reload();
    // Neither does an agent that dies, or its successor.
    agent.kill();
    for run in &mut witnesses {
        stopped(&go_on(run));
    }
    agent.launch();
    assert_eq!(incident_of(&agent.status())["incident"], id);
    silent_since(&world, before);

    restore(&agent, "inc-00000000").failed_with(1, &["no incident `inc-00000000`", &id]);
    assert_eq!(incident_of(&agent.status())["incident"], id);
    restore(&agent, &id).succeeded();
    for run in &mut witnesses {
        restored(&go_on(run));
    }
    assert_eq!(agent.status()["emergency"], Value::Null);
    assert_eq!(agent.status()["state"], "enforcing");
    assert!(agent.recorded(&[&id, "ended", "\"allow\""]));
    restore(&agent, &id).failed_with(1, &["nothing is stopped"]);
    for run in witnesses {
        rest(run);
    }
    assert!(
        !world.sniffer.saw(|packet| packet.carries(b"LIVE")),
        "a connection came back"
    );
}

#[test]
fn the_button_works_while_the_agent_is_dead_and_the_next_agent_obeys() {
    let Some(world) = world("emergency: no agent") else {
        return;
    };
    let mut agent = agent(&world);
    let mut run = witness(&agent, "one", "wide", 3);
    agent.kill();
    let said = alone(
        &agent,
        &["emergency-block", "--reason", "the agent crashed"],
    );
    let id = said.succeeded().trim().to_owned();
    assert!(said.errors.contains("no agent answered"), "{said:#?}");
    assert!(
        said.errors.contains("connection"),
        "none was ended: {said:#?}"
    );
    let before = seen(&world);
    stopped(&go_on(&mut run));
    agent.launch();
    assert_eq!(incident_of(&agent.status())["incident"], id);
    assert_eq!(incident_of(&agent.status())["reason"], "the agent crashed");
    assert!(agent.recorded(&[&id, "without an agent"]));
    assert!(agent.recorded(&[&id, "is in force since"]));
    stopped(&go_on(&mut run));
    silent_since(&world, before);
    agent.kill();
    alone(&agent, &["restore", "--incident", &id]).succeeded();
    agent.launch();
    assert_eq!(agent.status()["emergency"], Value::Null);
    restored(&go_on(&mut run));
    rest(run);
}

#[test]
fn the_button_works_while_the_agent_hangs() {
    let Some(world) = world("emergency: hanging agent") else {
        return;
    };
    let agent = agent(&world);
    let mut run = witness(&agent, "one", "wide", 1);
    let pid = rustix::process::Pid::from_raw(agent.pid().expect("it runs").cast_signed());
    let pid = pid.expect("a process");
    rustix::process::kill_process(pid, Signal::STOP).expect("it runs");
    let begun = Instant::now();
    let said = alone(&agent, &["emergency-block", "--reason", "it hangs"]);
    let id = said.succeeded().trim().to_owned();
    assert!(
        begun.elapsed() < paced(Duration::from_secs(15)),
        "{:?}",
        begun.elapsed()
    );
    let before = seen(&world);
    stopped(&go_on(&mut run));
    silent_since(&world, before);
    rustix::process::kill_process(pid, Signal::CONT).expect("it runs");
    // It finds out by itself, and records what it could not be asked to do.
    assert!(agent.recorded(&[&id, "it hangs", "\"kind\":\"emergency\""]));
    assert_eq!(incident_of(&agent.status())["incident"], id);
    rest(run);
}

#[test]
fn the_block_survives_a_restart_of_the_machine() {
    let Some(world) = world("emergency: reboot") else {
        return;
    };
    let mut agent = agent(&world);
    let id = press(&agent, "before the reboot");
    agent.kill();
    // A machine that starts has no programs and no maps; the state directory is
    // what it has.
    let disarmed = alone(&agent, &["disarm", "--yes"]);
    disarmed.succeeded();
    std::fs::remove_dir_all(agent.directory().join("runtime")).expect("a directory in memory");
    agent.launch();
    assert_eq!(incident_of(&agent.status())["incident"], id);
    let steps = everything();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let before = seen(&world);
    let mut run = agent.probe("new", "wide", &[&steps[..], &["pause"]].concat());
    for attempt in until_pause(&mut run) {
        attempt.failed();
    }
    rest(run);
    silent_since(&world, before);
    restore(&agent, &id).succeeded();
    let mut run = agent.probe("next", "wide", &[&steps[..], &["pause"]].concat());
    for attempt in until_pause(&mut run) {
        attempt.succeeded();
    }
    rest(run);
}

#[test]
fn a_state_file_that_cannot_be_read_means_stopped() {
    let Some(world) = world("emergency: damaged file") else {
        return;
    };
    let mut agent = agent(&world);
    let mut run = witness(&agent, "one", "wide", 2);
    agent.kill();
    let file = agent.state().join("emergency.json");
    std::fs::write(&file, b"{\"incident\": \"inc-1").expect("written");
    agent.launch();
    let before = seen(&world);
    let status = agent.status();
    assert_eq!(incident_of(&status)["incident"], "unreadable", "{status:#}");
    let reason = incident_of(&status)["reason"].as_str().expect("a reason");
    assert!(reason.contains("emergency.json cannot be read"), "{reason}");
    stopped(&go_on(&mut run));
    silent_since(&world, before);
    restore(&agent, "unreadable").succeeded();
    restored(&go_on(&mut run));
    let kept = std::fs::read_dir(agent.state()).expect("a directory");
    let kept = kept.flatten().any(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("emergency.json.damaged-")
    });
    assert!(kept, "the damaged file was not kept");
    rest(run);
}

#[test]
fn a_block_without_its_file_is_found_in_the_kernel_and_can_be_ended() {
    let Some(world) = world("emergency: file removed") else {
        return;
    };
    let mut agent = agent(&world);
    press(&agent, "to be lost");
    agent.kill();
    std::fs::remove_file(agent.state().join("emergency.json")).expect("it was written");
    agent.launch();
    let deadline = Instant::now() + Duration::from_secs(10);
    let id = loop {
        let status = agent.status();
        let id = incident_of(&status)["incident"]
            .as_str()
            .expect("still stopped");
        if id.starts_with("inc-") {
            break id.to_owned();
        }
        assert!(Instant::now() < deadline, "it gets no name: {status:#}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(agent.state().join("emergency.json").exists());
    restore(&agent, &id).succeeded();
    assert_eq!(agent.status()["state"], "enforcing");
}

#[test]
fn a_button_without_a_reason_or_a_right_is_refused() {
    let Some(world) = world("emergency: usage") else {
        return;
    };
    let agent = Agent::start(&world, &[("one", policy::ONE_NAME)]);
    agent
        .ask(&["emergency-block", "--reason", " ", "--root", &agent.root()])
        .failed_with(2, &["--reason is empty"]);
    assert_eq!(agent.status()["emergency"], Value::Null);
    let program = binary("egressctl");
    let said = Said::of(
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(program)
            .args(["emergency-block", "--reason", "mischief"])
            .arg("--socket")
            .arg(agent.socket()),
    );
    assert!(matches!(said.status.code(), Some(6 | 126)), "{said:#?}");
    assert_eq!(agent.status()["emergency"], Value::Null);
}

#[test]
fn a_thousand_sandboxes_are_stopped_by_one_write() {
    let Some(world) = world("emergency: a thousand sandboxes") else {
        return;
    };
    let agent = agent(&world);
    for number in 0..1000 {
        let (code, body) = agent.create_idle(&format!("idle-{number}"), "wide");
        assert_eq!(code, 200, "{body}");
    }
    let flood = format!("udp-flood {ALLOWED_V4}:4433 4000");
    let mut runs: Vec<Running> = (0..4)
        .map(|number| {
            let steps = ["resolve allowed.example", "pause", &flood, "pause"];
            let mut run = agent.probe(&format!("loud-{number}"), "wide", &steps);
            until_pause(&mut run)[0].succeeded();
            run
        })
        .collect();
    for run in &mut runs {
        run.say("go on").expect("it waits");
    }
    assert!(world.sniffer.awaits(|packet| packet.carries(b"flood")));
    let begun = Instant::now();
    let (code, body) = agent.request(
        "POST",
        "/v1/emergency-block",
        &serde_json::json!({ "reason": "a measurement" }),
    );
    let answered = begun.elapsed();
    assert_eq!(code, 200, "{body}");
    let before = seen(&world);
    std::thread::sleep(Duration::from_millis(500));
    silent_since(&world, before);
    println!("1,000 sandboxes and 4 floods: stopped and answered after {answered:?}");
    for mut run in runs {
        // It tried all the time, and was told.
        assert!(until_pause(&mut run)[0].detail.contains("refused"));
        rest(run);
    }
}
