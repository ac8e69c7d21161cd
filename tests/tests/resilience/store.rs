//! The place where evidence is kept fails.

use crate::policy;
use crate::scene::{Siege, world};
use egress_tests::operation::Said;
use egress_tests::probe::{go_on, rest, until_pause};
use egress_tests::product::Agent;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A file system in memory, gone with its value.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, size: &str) -> Self {
        std::fs::create_dir_all(path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(path);
        Said::of(&mut mount).succeeded();
        Self(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_changes_no_verdict_and_the_loss_is_recorded_when_there_is_room() {
    let Some(world) = world("store: disk full") else {
        return;
    };
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let mut agent = Agent::prepare(&world, &[("changing", &names)]);
    let disk = Small::mount(&agent.state(), "size=8m");
    agent.launch();
    let siege = Siege::begin(&agent, "besieged", "changing");
    // Somebody else takes all the room there is.
    let ballast = agent.state().join("ballast");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .status();
    assert!(
        filled.is_ok_and(|status| !status.success()),
        "it is not full"
    );
    let attempts: Vec<String> = (1..200)
        .map(|port| format!("udp-send 203.0.113.66:{port} secret"))
        .collect();
    let mut steps = vec!["pause"];
    steps.extend(attempts.iter().map(String::as_str));
    steps.extend(["named-exchange second.example 443 hi", "pause"]);
    let mut run = agent.probe("s", "changing", &steps);
    until_pause(&mut run);
    let attempts = go_on(&mut run);
    let (last, refused) = attempts.split_last().expect("attempts");
    for attempt in refused {
        // Port 53 is answered by the resolver.
        if !attempt.step.contains(":53 ") {
            attempt.refused();
        }
    }
    last.succeeded();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = agent.status();
        if status["audit_error"] != serde_json::Value::Null {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "nobody says that the disk is full: {status:#}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    std::fs::remove_file(&ballast).expect("it is there");
    let begun = Instant::now();
    loop {
        let status = agent.status();
        if status["audit_error"] == serde_json::Value::Null {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
    siege.ends_unharmed(&world);
    rest(run);
    let lost = agent.status()["audit_lost"].as_u64().expect("a number");
    if lost > 0 {
        assert!(
            agent.recorded(&["\"loss\""]),
            "{lost} lost, and no record says so"
        );
    }
    // What is recorded from now on is kept again.
    agent.reload();
    assert!(agent.recorded(&["\"policy\"", "in force: changing"]));
    drop(agent);
    drop(disk);
}
