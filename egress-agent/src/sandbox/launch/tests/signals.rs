//! Signals to the process that launches, and its death.

use super::{UID, World, shell, wait_for};
use crate::sandbox::cgroup::SandboxCgroup;
use crate::sandbox::launch::{Ending, launch};
use rustix::process::{Pid, Signal};
use std::path::PathBuf;

/// Runs this test program again as a process that launches, so that signals can
/// be sent to it and it can be killed.
fn launcher(world: &World, script: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("sandbox::launch::tests::signals::launches_in_a_process_of_its_own")
        .env("EGRESS_TEST_CGROUP", world.cgroup().path())
        .env("EGRESS_TEST_DIRECTORY", world.directory.path())
        .env("EGRESS_TEST_SCRIPT", script)
        .spawn()
        .expect("this program again")
}

#[test]
#[ignore = "other tests run it as the process that launches"]
fn launches_in_a_process_of_its_own() {
    let variable = |name| std::env::var(name).expect("set by the test that runs this");
    let path = PathBuf::from(variable("EGRESS_TEST_CGROUP"));
    let hierarchy = crate::sandbox::Hierarchy::find().expect("cgroup2");
    let below = path
        .strip_prefix(hierarchy.path())
        .expect("below the mount");
    let (root, name) = (
        below.parent().expect("a root"),
        below.file_name().expect("a name"),
    );
    let root = crate::sandbox::GovernedRoot::open(&hierarchy, root.to_str().expect("text"));
    let name = crate::model::SandboxName::parse(name.to_str().expect("text")).expect("a name");
    let cgroup = SandboxCgroup::open(&root.expect("the root"), &name).expect("the sandbox");
    let directory = PathBuf::from(variable("EGRESS_TEST_DIRECTORY"));
    let mut spec = shell(&variable("EGRESS_TEST_SCRIPT"), UID, &directory);
    spec.forward_signals = true;
    let child = launch(&spec, &cgroup).expect("it starts");
    let ending = child.wait().expect("it ends");
    assert_eq!(ending, Ending::Exited(9), "the script ends with 9");
}

#[test]
fn a_signal_to_the_launcher_reaches_the_command() {
    let Some(world) = World::make("forward") else {
        return;
    };
    let script = "trap 'echo term >> out; exit 9' TERM; trap 'echo int >> out' INT
                  : > ready; while :; do sleep 0.05; done";
    let mut launcher = launcher(&world, script);
    wait_for("the traps are set", || world.file("ready").exists());
    let pid = Pid::from_child(&launcher);
    rustix::process::kill_process(pid, Signal::INT).expect("sent");
    wait_for("the first signal", || world.file("out").exists());
    rustix::process::kill_process(pid, Signal::TERM).expect("sent");
    assert!(launcher.wait().expect("it ends").success());
    assert_eq!(world.output(), "int\nterm\n");
}

#[test]
fn everything_dies_with_a_launcher_that_is_killed() {
    let Some(world) = World::make("killed") else {
        return;
    };
    let script = "setsid sh -c 'sleep 60' & : > ready; sleep 60";
    let mut launcher = launcher(&world, script);
    wait_for("the script runs", || world.file("ready").exists());
    assert!(world.cgroup().populated().expect("events"));
    launcher.kill().expect("killed");
    launcher.wait().expect("gone");
    wait_for("the sandbox is empty", || {
        !world.cgroup().populated().expect("events")
    });
}
