//! Sandboxes that nobody waits for: started, seen to, held, stopped, and kept
//! across a restart of the agent.

mod policy;

use egress_tests::World;
use egress_tests::operation::Said;
use egress_tests::product::Agent;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Starts a detached command of `sandbox`, with its log beside the agent.
fn detach(agent: &Agent<'_>, sandbox: &str, options: &[&str], script: &str) -> Said {
    let logs = agent.directory().join("logs").display().to_string();
    let mut arguments = vec!["run", "--detach", "--name", sandbox, "--policy", "one-name"];
    arguments.extend(["--logs", &logs]);
    arguments.extend(options);
    arguments.extend(["--", "/bin/sh", "-c", script]);
    agent.ask(&arguments)
}

fn logs(agent: &Agent<'_>, sandbox: &str) -> String {
    let directory = agent.directory().join("logs").display().to_string();
    let said = agent.ask(&["sandbox", "logs", sandbox, "--logs", &directory]);
    said.succeeded().to_owned()
}

fn show(agent: &Agent<'_>, sandbox: &str) -> Value {
    agent
        .ask(&["sandbox", "show", sandbox, "-o", "json"])
        .json()
}

/// Waits until something is so.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_detached_command_runs_on_says_what_it_says_and_is_stopped() {
    let Some(world) = World::or_skip("detached: life") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let options = ["--task", "T-17", "--label", "team=blue", "--user", "ada"];
    let script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let started = detach(&agent, "d", &options, script);
    assert_eq!(started.succeeded(), "d", "{started:#?}");
    eventually("it speaks", || logs(&agent, "d").contains("up"));
    let shown = show(&agent, "d");
    assert_eq!(shown["state"], "running", "{shown:#}");
    assert_eq!(shown["attribution"]["task"], "T-17", "{shown:#}");
    assert_eq!(shown["progress"]["starts"], 1, "{shown:#}");

    agent.ask(&["sandbox", "stop", "d"]).succeeded();
    eventually("it is gone", || agent.status()["sandboxes"] == 0);
    assert!(logs(&agent, "d").contains("asked"));
    // Its closing record is the last.
    assert!(agent.recorded(&["stopped; it ended by itself"]));
    let records = agent.audit();
    let of_sandbox: Vec<_> = records.iter().filter(|r| r["sandbox"] == "d").collect();
    assert!(of_sandbox.len() >= 3, "{records:#?}");
    for record in of_sandbox {
        assert_eq!(record["task"], "T-17", "{record:#}");
        assert_eq!(record["labels"]["team"], "blue", "{record:#}");
        assert_eq!(record["on_behalf_of"], "ada", "{record:#}");
    }
}

#[test]
fn what_does_not_end_by_itself_is_killed_after_its_grace() {
    let Some(world) = World::or_skip("detached: grace") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    detach(
        &agent,
        "d",
        &["--restart", "always"],
        "trap '' TERM; while :; do sleep 0.1; done",
    )
    .succeeded();
    agent
        .ask(&["sandbox", "stop", "d", "--grace", "500ms"])
        .succeeded();
    assert_eq!(agent.status()["sandboxes"], 0);
    assert!(agent.recorded(&["it was killed after its grace"]));
}

#[test]
fn a_paused_sandbox_does_nothing_until_it_is_resumed() {
    let Some(world) = World::or_skip("detached: pause") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    detach(
        &agent,
        "d",
        &[],
        "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.02; done",
    )
    .succeeded();
    eventually("it counts", || logs(&agent, "d").lines().count() > 5);
    agent.ask(&["sandbox", "pause", "d"]).succeeded();
    assert_eq!(show(&agent, "d")["state"], "paused");
    // What was written before is on its way through the pipe.
    std::thread::sleep(Duration::from_millis(300));
    let held = logs(&agent, "d").lines().count();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(logs(&agent, "d").lines().count(), held);
    agent.ask(&["sandbox", "resume", "d"]).succeeded();
    eventually("it goes on", || logs(&agent, "d").lines().count() > held);
    assert!(agent.recorded(&["paused in"]) && agent.recorded(&["resumed in"]));
    // A paused one is stopped all the same.
    agent.ask(&["sandbox", "pause", "d"]).succeeded();
    agent.ask(&["sandbox", "stop", "d"]).succeeded();
    assert_eq!(agent.status()["sandboxes"], 0);
}

#[test]
fn a_command_that_fails_is_started_again_and_not_forever() {
    let Some(world) = World::or_skip("detached: restart") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let options = ["--restart", "on-failure", "--max-restarts", "2"];
    detach(&agent, "d", &options, "echo began; exit 7").succeeded();
    eventually("it gives up", || agent.status()["sandboxes"] == 0);
    let said = logs(&agent, "d");
    assert_eq!(said.matches("began").count(), 3, "{said}");
    assert!(
        said.contains("ended with status 7; starting again in"),
        "{said}"
    );
    assert!(agent.recorded(&["ended with status 7; starting again in"]));
}

#[test]
fn a_command_that_is_not_well_is_killed_and_started_again() {
    let Some(world) = World::or_skip("detached: health") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let options = [
        "--restart",
        "on-failure",
        "--max-restarts",
        "1",
        "--health-command",
        "exit 3",
        "--health-interval",
        "1",
        "--health-retries",
        "2",
    ];
    detach(&agent, "d", &options, "sleep 64.1").succeeded();
    eventually("it gives up", || agent.status()["sandboxes"] == 0);
    assert!(
        agent.recorded(&["unhealthy 2 times in a row", "status 3"]),
        "{:#?}",
        agent.audit()
    );
    assert!(agent.recorded(&["was killed by signal 9; starting again"]));
}

#[test]
fn a_detached_command_outlives_the_agent_and_the_next_one_knows_it() {
    let Some(world) = World::or_skip("detached: restart of the agent") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let options = ["--session", "s-9", "--restart", "on-failure"];
    let script = "echo began; while [ ! -e /tmp/egress-test-go ]; do sleep 0.1; done";
    detach(&agent, "d", &options, script).succeeded();
    let before = show(&agent, "d");
    agent.kill();
    agent.launch();
    let after = show(&agent, "d");
    assert_eq!(after["state"], "running", "{after:#}");
    for kept in ["id", "owner", "began", "attribution", "progress"] {
        assert_eq!(before[kept], after[kept], "{kept}: {after:#}");
    }
    assert_eq!(logs(&agent, "d").matches("began").count(), 1);
    agent
        .ask(&["sandbox", "stop", "d", "--grace", "1s"])
        .succeeded();
    assert_eq!(agent.status()["sandboxes"], 0);
}

#[test]
fn a_detached_command_that_cannot_start_says_why_and_leaves_nothing() {
    let Some(world) = World::or_skip("detached: cannot start") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let logs = agent.directory().join("logs").display().to_string();
    let run = ["run", "--detach", "--name", "d", "--logs", &logs];
    let with = |rest: &[&str]| agent.ask(&[&run[..], rest].concat());
    with(&["--policy", "one-name", "--", "/no/such/command"]).failed_with(127, &["not found"]);
    with(&["--policy", "nobody", "--", "/bin/true"]).failed_with(1, &["nobody"]);
    assert_eq!(agent.status()["sandboxes"], 0);
}
