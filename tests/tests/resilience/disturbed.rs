//! Somebody else takes away, unmounts or adds what enforcement could hang on.

use crate::policy;
use crate::scene::{CLOSED, OPEN, Siege, closed_stayed_closed, world};
use egress_tests::World;
use egress_tests::bpf::{Direction, Program, Sharing};
use egress_tests::operation::{Said, attached};
use egress_tests::probe::{go_on, rest, until_pause};
use egress_tests::process::paced;
use egress_tests::product::{Agent, binary};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Within seconds.
const NOTICE: Duration = Duration::from_secs(10);

fn agent(world: &World) -> Agent<'_> {
    let names = policy::changing(&["allowed.example", "second.example"], "");
    Agent::start(world, &[("changing", &names)])
}

#[test]
fn a_foreign_program_that_comes_after_ours_is_noticed_and_overrules_nothing() {
    let Some(world) = world("disturbed: foreign program") else {
        return;
    };
    let agent = agent(&world);
    let siege = Siege::begin(&agent, "besieged", "changing");
    let root = agent.root_directory();
    for direction in [Direction::Egress, Direction::Ingress] {
        let program = Program::load("lets_all_pass", direction, None).expect("loaded");
        program
            .attach(&root, direction, Sharing::Multi)
            .expect("attached");
    }
    let begun = Instant::now();
    let noticed = agent.awaits_record(|record| {
        let text = record.to_string();
        record["reason"] == "enforcement_disturbed" && text.contains("lets_all_pass")
    });
    assert!(noticed, "{:#?}", agent.audit());
    assert!(begun.elapsed() < paced(NOTICE), "{:?}", begun.elapsed());
    let status = agent.status();
    assert!(status["warnings"].to_string().contains("lets_all_pass"));
    assert_eq!(status["state"], "enforcing, with warnings");
    siege.ends_unharmed(&world);
}

#[test]
fn all_programs_that_somebody_takes_away_come_back_within_seconds() {
    let Some(world) = world("disturbed: detached programs") else {
        return;
    };
    let agent = agent(&world);
    let (old, new, closed) = (
        format!("connect t {OPEN}"),
        format!("tcp-exchange {OPEN} new"),
        format!("tcp-exchange {CLOSED} secret"),
    );
    let mut run = agent.probe(
        "s",
        "changing",
        &[
            "resolve allowed.example",
            "open t tcp4",
            &old,
            "pause",
            "send t still",
            "receive t",
            &new,
            &closed,
            "resolve second.example",
            "pause",
        ],
    );
    until_pause(&mut run)[0].succeeded();
    let root = agent.root_directory();
    let all = attached(&root);
    let shown = Said::of(
        Command::new("bpftool")
            .args(["--json", "cgroup", "show"])
            .arg(&root),
    )
    .json();
    let Value::Array(programs) = shown else {
        panic!("no programs: {shown:#}");
    };
    for program in &programs {
        let kind = program["attach_type"].as_str().expect("a type");
        let id = program["id"].to_string();
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["cgroup", "detach"]).arg(&root);
        Said::of(bpftool.args([kind, "id", &id])).succeeded();
    }
    let begun = Instant::now();
    let mut now = attached(&root);
    while now.len() < all.len() && begun.elapsed() < paced(NOTICE) {
        std::thread::sleep(Duration::from_millis(20));
        now = attached(&root);
    }
    println!("all programs were back after {:?}", begun.elapsed());
    now.sort_unstable();
    let mut wanted = all;
    wanted.sort_unstable();
    assert_eq!(now, wanted);
    let attempts = go_on(&mut run);
    for open in [0, 1, 2, 4] {
        attempts[open].succeeded();
    }
    attempts[3].refused();
    assert!(agent.recorded(&["enforcement_disturbed", "put back", "egress"]));
    assert_eq!(agent.status()["state"], "enforcing");
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
    rest(run);
}

/// A program that is the agent on a machine without a BPF file system.
fn without_bpffs(world: &World) -> PathBuf {
    let path = world.fresh_directory().join("agent-without-bpffs");
    let agent = binary("egress-agent");
    let script = format!(
        "#!/bin/sh\nif [ -z \"$ALONE\" ]; then ALONE=1 exec unshare --mount \"$0\" \"$@\"; fi\n\
         while umount --lazy /sys/fs/bpf 2>/dev/null; do :; done\n\
         exec '{}' \"$@\"\n",
        agent.display()
    );
    std::fs::write(&path, script).expect("written");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, executable).expect("executable");
    path
}

#[test]
fn enforcement_needs_no_bpf_file_system_and_leaves_no_pin() {
    let Some(world) = world("disturbed: no bpffs") else {
        return;
    };
    let mut agent = agent(&world);
    let siege = Siege::begin(&agent, "besieged", "changing");
    agent.kill();
    agent.replace_program(&without_bpffs(&world));
    agent.launch();
    let mounts = format!("/proc/{}/mounts", agent.pid().expect("it runs"));
    let mounts = std::fs::read_to_string(mounts).expect("it runs");
    let is_bpffs = |line: &str| line.split(' ').nth(2) == Some("bpf");
    assert!(!mounts.lines().any(is_bpffs), "{mounts}");
    let started = agent.status()["started"].to_string();
    assert!(started.contains("unchanged"), "{started}");
    agent.reload();
    // A query that was lost while no agent ran is asked again when its time is over.
    std::thread::sleep(Duration::from_secs(4));
    siege.ends_unharmed(&world);
    // Nothing of ours hangs on a file that somebody could remove.
    let pins = std::fs::read_dir("/sys/fs/bpf").into_iter().flatten();
    for pin in pins.flatten() {
        let name = pin.file_name().to_string_lossy().into_owned();
        assert!(!name.contains("egress"), "a pin: {name}");
    }
}

#[test]
fn an_agent_without_memory_dies_or_goes_on_and_enforcement_stays() {
    let Some(world) = world("disturbed: memory") else {
        return;
    };
    let mut agent = agent(&world);
    let siege = Siege::begin(&agent, "besieged", "changing");
    let pid = agent.pid().expect("it runs").to_string();
    // From now on the kernel gives it no more memory at all.
    Said::of(Command::new("prlimit").args(["--pid", &pid, "--as=1"])).succeeded();
    let loud: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("loud-{number}");
            agent.create_attempt(&name, "changing")
        })
        .collect();
    eprintln!("sandboxes that were asked for meanwhile: {loud:?}");
    std::thread::sleep(Duration::from_secs(3));
    agent.kill();
    agent.launch();
    let status = agent.status();
    assert_eq!(status["state"], "enforcing", "{status:#}");
    let counted = siege.end();
    assert_eq!(counted["broken"], Value::Null, "{counted:#}");
    assert_eq!(counted["refused"], 0, "{counted:#}");
    closed_stayed_closed(&world, &counted);
}
