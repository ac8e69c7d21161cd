//! The life of a sandbox, as the person who starts it sees it: how it ends, what
//! it leaves behind, and how it is switched off.

mod policy;

use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4, SECOND_V4};
use egress_tests::operation::{Said, attached};
use egress_tests::probe::{Attempt, go_on, rest, until_pause};
use egress_tests::process::{Running, descendants, patience};
use egress_tests::product::{Agent, Ephemeral, binary, programs};
use egress_tests::{World, cgroup};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    world.dns.resolve("second.example", &[SECOND_V4.into()]);
    Some(world)
}

/// The governed root and the runtime directory of an ephemeral agent.
fn places(egressctl: u32) -> [PathBuf; 2] {
    let mount = cgroup::mount().expect("tests of sandboxes need cgroup2");
    [
        mount.join(format!("egress-run-{egressctl}")),
        Path::new("/run/egress/runs").join(egressctl.to_string()),
    ]
}

#[track_caller]
fn nothing_is_left(places: &[PathBuf]) {
    for place in places {
        assert!(!place.exists(), "{} was left behind", place.display());
    }
}

/// Waits until something is so.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `egressctl run --ephemeral` as the leader of a process group, as a shell
/// starts it.
fn foreground(sandbox: &Ephemeral<'_>, world: &World, command: &[&str]) -> Running {
    let mut egressctl = Command::new(binary("egressctl"));
    egressctl
        .args(["run", "--ephemeral", "--upstream", "203.0.113.53"])
        .arg("--policy")
        .arg(sandbox.policy())
        .arg("--state")
        .arg(sandbox.state())
        .arg("--")
        .args(command)
        .process_group(0);
    world
        .near
        .run(|| Running::start(&mut egressctl))
        .expect("egressctl starts")
}

/// What Ctrl-C does.
fn interrupt_group(leader: &Running) {
    let group = Pid::from_raw(leader.pid().cast_signed()).expect("a process id");
    kill_process_group(group, Signal::INT).expect("the group exists");
}

/// Commands and the exit codes that a shell would give for them.
const ENDINGS: [(&[&str], i32); 6] = [
    (&["/bin/true"], 0),
    (&["/bin/sh", "-c", "exit 41"], 41),
    (&["/bin/sh", "-c", "kill -KILL $$"], 137),
    (&["/bin/sh", "-c", "kill -TERM $$"], 143),
    (&["/no/such/command"], 127),
    (&["/etc/hostname"], 126),
];

#[test]
fn a_run_ends_as_its_command_does_and_leaves_nothing() {
    let Some(world) = world("lifecycle: exit codes") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    for (command, code) in ENDINGS {
        let run = sandbox.run(command);
        let places = places(run.pid());
        let said = Said::by(run);
        assert_eq!(said.status.code(), Some(code), "{command:?}: {said:#?}");
        nothing_is_left(&places);
    }
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    for (command, code) in ENDINGS {
        let mut arguments = vec!["run", "--name", "s", "--policy", "one-name", "--"];
        arguments.extend(command);
        let said = agent.ask(&arguments);
        assert_eq!(said.status.code(), Some(code), "{command:?}: {said:#?}");
        nothing_is_left(&[agent.root_directory().join("s")]);
        assert_eq!(agent.status()["sandboxes"], 0);
    }
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let Some(world) = world("lifecycle: background process") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    let script = "trap '' TERM HUP INT; (sleep 61.5 & sleep 61.5) & exit 5";
    let run = sandbox.run(["/bin/sh", "-c", script]);
    let places = places(run.pid());
    let said = Said::by(run);
    assert_eq!(said.status.code(), Some(5), "{said:#?}");
    nothing_is_left(&places);
    let left = Said::of(Command::new("pgrep").args(["-f", "sleep 61.5"]));
    assert_eq!(left.out, "", "these still run");
}

#[test]
fn ctrl_c_and_kill_reach_the_command() {
    let Some(world) = world("lifecycle: signals") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    let sleeper = ["/bin/sh", "-c", "echo ready; exec sleep 62.5"];
    let catcher = [
        "/bin/sh",
        "-c",
        "trap 'exit 7' TERM INT; echo ready; while :; do sleep 0.1; done",
    ];
    type End = fn(&Running);
    let ends: [(&[&str], End, i32); 4] = [
        (&sleeper, interrupt_group, 130),
        (
            &sleeper,
            |run| run.signal(Signal::TERM).expect("it runs"),
            143,
        ),
        (&catcher, interrupt_group, 7),
        (
            &catcher,
            |run| run.signal(Signal::TERM).expect("it runs"),
            7,
        ),
    ];
    for (command, end, code) in ends {
        let mut run = foreground(&sandbox, &world, command);
        let places = places(run.pid());
        assert_eq!(run.line().as_deref(), Some("ready"));
        end(&run);
        let said = Said::by(run);
        assert_eq!(said.status.code(), Some(code), "{command:?}: {said:#?}");
        nothing_is_left(&places);
    }
}

#[test]
fn a_signal_before_the_command_or_after_it_leaves_nothing_either() {
    let Some(world) = world("lifecycle: early signals") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    for delay in [5, 20, 40, 80, 120, 200, 300, 450, 600] {
        let run = foreground(&sandbox, &world, &["/bin/sleep", "0.1"]);
        let places = places(run.pid());
        std::thread::sleep(Duration::from_millis(delay));
        // It may have ended by itself on a fast machine.
        let group = Pid::from_raw(run.pid().cast_signed()).expect("a process id");
        let _ = kill_process_group(group, Signal::INT);
        let said = Said::by(run);
        // In the first instant nothing holds the signal back, and nothing is made.
        let killed = said.status.signal() == Some(libc::SIGINT);
        let ended = [Some(130), Some(0)].contains(&said.status.code());
        assert!(killed || ended, "after {delay} ms: {said:#?}");
        nothing_is_left(&places);
    }
}

#[test]
fn a_killed_run_takes_its_command_along_and_the_next_collects_the_rest() {
    let Some(world) = world("lifecycle: killed run") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    let mut run = sandbox.start(&["named-exchange allowed.example 443 hi", "pause"]);
    until_pause(&mut run)[0].succeeded();
    let places = places(run.pid());
    let probes = descendants(run.pid(), egress_tests::probe::PROGRAM);
    assert_eq!(probes.len(), 1, "{probes:?}");
    run.signal(Signal::KILL).expect("it runs");
    assert!(run.wait(patience()).is_some());
    let probe = PathBuf::from(format!("/proc/{}", probes[0]));
    eventually("the command is gone", || !probe.exists());
    // Whoever starts next collects it, which other tests do too.
    let next = sandbox.run(["/bin/true"]);
    assert!(Said::by(next).status.success());
    nothing_is_left(&places);
}

#[test]
fn an_agent_collects_the_sandbox_of_a_killed_run() {
    let Some(world) = world("lifecycle: killed run under an agent") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let mut run = agent.probe("s", "one-name", &["resolve allowed.example", "pause"]);
    until_pause(&mut run)[0].succeeded();
    run.signal(Signal::KILL).expect("it runs");
    assert!(run.wait(patience()).is_some());
    eventually("the sandbox is collected", || {
        agent.status()["sandboxes"] == 0 && !agent.root_directory().join("s").exists()
    });
    assert!(agent.recorded(&["\"sandbox\":\"s\"", "ended"]));
}

#[test]
fn what_runs_is_listed_and_the_state_is_told() {
    let Some(world) = world("lifecycle: list and status") else {
        return;
    };
    let agent = Agent::start(
        &world,
        &[
            ("one-name", policy::ONE_NAME),
            ("second-name", policy::SECOND_NAME),
        ],
    );
    assert_eq!(
        agent.ask(&["sandbox", "list"]).succeeded(),
        "no sandbox runs"
    );
    let mut a = agent.probe("a", "one-name", &["resolve allowed.example", "pause"]);
    let mut b = agent.probe("b", "second-name", &["pause"]);
    until_pause(&mut a)[0].succeeded();
    until_pause(&mut b);
    let list = agent.ask(&["sandbox", "list", "-o", "json"]).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list:#}");
    assert_eq!(
        (&list[0]["name"], &list[1]["name"]),
        (&"a".into(), &"b".into())
    );
    assert_eq!(list[0]["mode"], "enforce");
    assert_eq!(
        (&list[0]["grants"], &list[1]["grants"]),
        (&1.into(), &0.into())
    );
    let table = agent.ask(&["sandbox", "list"]);
    assert!(
        table.succeeded().trim_start().starts_with("NAME"),
        "{table:#?}"
    );
    assert!(table.out.contains("second-name"), "{table:#?}");

    let status = agent.status();
    assert_eq!(status["state"], "enforcing", "{status:#}");
    assert_eq!(status["sandboxes"], 2);
    assert_eq!(status["started"], "enforcement was not in force before");
    assert_eq!(status["upstreams"][0], "203.0.113.53:53");
    assert_eq!(status["policies"][1]["name"], "second-name");
    assert_eq!(status["audit_lost"], 0);
    assert!(
        status["counters"]["dns_answered"].as_u64() >= Some(1),
        "{status:#}"
    );
    let text = agent.ask(&["status"]);
    for word in ["enforcing (version", "policies in force:", "second-name"] {
        assert!(text.succeeded().contains(word), "{text:#?}");
    }
    rest(a);
    rest(b);
}

/// A sandbox that tries a server which no policy names, twice.
fn prisoner(agent: &Agent<'_>) -> Running {
    let escape = format!("tcp-exchange {FORBIDDEN_V4}:443 hello");
    let steps = ["pause", &escape, "pause", &escape, "pause"];
    let mut run = agent.probe("prisoner", "one-name", &steps);
    until_pause(&mut run);
    run
}

fn disarm(agent: &Agent<'_>, options: &[&str]) -> Said {
    let (root, state) = (agent.root(), agent.state());
    let state = state.to_str().expect("the path is text");
    let mut arguments = vec!["disarm", "--root", &root, "--state", state];
    arguments.extend(options);
    agent.ask(&arguments)
}

/// Refused without `--force` while the sandbox runs, then carried out.
fn disarm_by_force(agent: &Agent<'_>, run: &mut Running) -> Vec<Attempt> {
    disarm(agent, &[]).failed_with(2, &["--yes"]);
    disarm(agent, &["--yes"]).failed_with(1, &["prisoner", "--force"]);
    assert_eq!(attached(&agent.root_directory()).len(), programs());
    go_on(run)[0].refused();
    let said = disarm(agent, &["--yes", "--force"]);
    assert_eq!(
        said.succeeded(),
        format!("{} programs taken out of force", programs())
    );
    assert_eq!(attached(&agent.root_directory()), [""; 0]);
    assert!(agent.recorded(&[
        "disarmed",
        &format!("{} programs taken out of force", programs())
    ]));
    go_on(run)
}

#[test]
fn disarm_switches_a_running_agent_off() {
    let Some(world) = world("lifecycle: disarm") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let mut run = prisoner(&agent);
    disarm_by_force(&agent, &mut run)[0].succeeded();
    let said = Said::by(agent.take_running());
    assert!(said.status.success(), "{said:#?}");
    let records = agent.audit();
    let about_the_agent: Vec<&str> = records
        .iter()
        .filter(|record| record["kind"] == "agent")
        .filter_map(|record| record["detail"].as_str())
        .collect();
    // It tells neither that enforcement stays, nor that somebody disturbed it.
    assert_eq!(about_the_agent.len(), 2, "{about_the_agent:#?}");
    assert!(
        about_the_agent[1].contains("disarmed by uid 0"),
        "{about_the_agent:#?}"
    );
    rest(run);

    agent.launch();
    let status = agent.status();
    assert_eq!(status["started"], "enforcement was not in force before");
    let said = disarm(&agent, &["--yes"]);
    assert_eq!(
        said.succeeded(),
        format!("{} programs taken out of force", programs())
    );
}

#[test]
fn disarm_works_when_the_agent_is_dead() {
    let Some(world) = world("lifecycle: disarm without an agent") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let mut run = prisoner(&agent);
    agent.kill();
    disarm_by_force(&agent, &mut run)[0].succeeded();
    rest(run);
    assert!(agent.recorded(&["without an agent", "running: prisoner"]));
    agent
        .ask(&[
            "disarm",
            "--yes",
            "--root",
            "egress-tests-none",
            "--state",
            "/nonexistent",
        ])
        .failed_with(1, &["there is no governed root `egress-tests-none`"]);
}

#[test]
fn disarm_that_does_not_ask_the_running_agent_is_undone_and_says_so() {
    let Some(world) = world("lifecycle: disarm past an agent") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let root = agent.root();
    let mut past = Command::new(binary("egressctl"));
    past.args([
        "--socket",
        "/nonexistent",
        "disarm",
        "--yes",
        "--root",
        &root,
    ]);
    Said::of(&mut past).failed_with(1, &["puts the programs back", "--socket"]);
    assert!(agent.recorded(&["somebody detached egress", "put back"]));
    // The last look of the command took them away once more.
    let deadline = Instant::now() + patience();
    while attached(&agent.root_directory()).len() < programs() {
        assert!(Instant::now() < deadline, "enforcement stays disarmed");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn ephemeral_runs_live_beside_each_other_and_beside_an_agent() {
    let Some(world) = world("lifecycle: side by side") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let (first, second) = (
        world.sandbox(policy::ONE_NAME),
        world.sandbox(policy::SECOND_NAME),
    );
    let steps = [
        "pause",
        "named-exchange allowed.example 443 hi",
        "named-exchange second.example 443 hi",
        &format!("tcp-exchange {FORBIDDEN_V4}:443 secret"),
        "pause",
    ];
    let mut runs = [
        first.start(&steps),
        second.start(&steps),
        agent.probe("s", "one-name", &steps),
    ];
    for run in &mut runs {
        until_pause(run);
    }
    let places: Vec<PathBuf> = runs[..2].iter().flat_map(|run| places(run.pid())).collect();
    assert!(places.iter().all(|place| place.exists()));
    for (run, reaches) in runs.iter_mut().zip([0, 1, 0]) {
        let attempts = go_on(run);
        attempts[reaches].succeeded();
        attempts[1 - reaches].failed();
        attempts[2].refused();
    }
    for run in runs {
        rest(run);
    }
    nothing_is_left(&places);
    assert_eq!(agent.status()["state"], "enforcing");
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn many_ephemeral_runs_can_start_at_once() {
    let Some(world) = world("lifecycle: simultaneous starts") else {
        return;
    };
    let sandboxes: Vec<Ephemeral<'_>> = (0..6).map(|_| world.sandbox(policy::ONE_NAME)).collect();
    let runs: Vec<Running> = sandboxes
        .iter()
        .map(|sandbox| sandbox.start(&["named-exchange allowed.example 443 hi"]))
        .collect();
    for run in runs {
        let places = places(run.pid());
        let said = Said::by(run);
        let attempt = said.out.lines().find_map(Attempt::parse);
        attempt.unwrap_or_else(|| panic!("{said:#?}")).succeeded();
        nothing_is_left(&places);
    }
}
