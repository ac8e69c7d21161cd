//! Limits of a sandbox, as the person whose command meets them sees it.
//!
//! What needs a resource controller runs where cgroup2 has it, and is skipped by
//! the feature's name elsewhere: on hosts whose controllers are with cgroup v1.

mod policy;

use egress_tests::address::{PORTS, SERVERS};
use egress_tests::operation::Said;
use egress_tests::product::Agent;
use egress_tests::{World, cgroup};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A policy that opens nothing, with this `sandbox:` block.
fn limited(block: &str) -> String {
    format!("apiVersion: egress/v1\nname: limited\nsandbox:\n{block}")
}

/// Whether cgroup2 has this controller here; says so where it has not.
fn has(controller: &str, test: &str) -> bool {
    let mount = cgroup::mount().expect("tests of sandboxes need cgroup2");
    let controllers = std::fs::read_to_string(mount.join("cgroup.controllers"))
        .expect("cgroup2 lists its controllers");
    let has = controllers
        .split_whitespace()
        .any(|name| name == controller);
    if !has {
        eprintln!("skipped: {test}: cgroup2 has no `{controller}` controller here");
    }
    has
}

/// The details of the records about a sandbox.
fn details(records: &[Value]) -> Vec<String> {
    records
        .iter()
        .filter(|record| record["kind"] == "sandbox")
        .filter_map(|record| record["detail"].as_str().map(str::to_owned))
        .collect()
}

/// Asserts that some record of a sandbox says all of this.
#[track_caller]
fn recorded(records: &[Value], words: &[&str]) {
    let details = details(records);
    let found = details
        .iter()
        .any(|detail| words.iter().all(|word| detail.contains(word)));
    assert!(found, "no record says {words:?}: {details:#?}");
}

#[test]
fn a_sandbox_whose_time_is_up_is_killed_with_all_that_it_started() {
    let Some(world) = World::or_skip("limits: timeout") else {
        return;
    };
    let sandbox = world.sandbox(&limited("  timeout: 1s\n"));
    let begun = Instant::now();
    let script = "trap '' TERM INT HUP; (sleep 61.7 & sleep 61.7) & sleep 61.7";
    let said = Said::by(sandbox.run(["/bin/sh", "-c", script]));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{said:#?}");
    said.failed_with(137, &["the sandbox was stopped: over `timeout` of 1s"]);
    let records = sandbox.audit();
    recorded(
        &records,
        &["over `timeout` of 1s after 1.", "processes were killed"],
    );
    let denied = records
        .iter()
        .any(|record| record["verdict"] == "deny" && record["kind"] == "sandbox");
    assert!(denied, "{records:#?}");
    recorded(&records, &["ended: cpu "]);
}

#[test]
fn time_is_up_also_while_no_agent_runs() {
    let Some(world) = World::or_skip("limits: timeout without an agent") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("limited", &limited("  timeout: 3s\n"))]);
    let run = agent
        .egressctl(&[
            "run", "--name", "s", "--policy", "limited", "--", "sleep", "62.3",
        ])
        .expect("egressctl starts");
    let procs = agent.root_directory().join("s/cgroup.procs");
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(&procs).map_or(true, |text| text.lines().count() < 2) {
        assert!(Instant::now() < deadline, "the command never ran");
        std::thread::sleep(Duration::from_millis(20));
    }
    agent.kill();
    Said::by(run).failed_with(137, &["no agent answers"]);
}

#[test]
fn the_next_agent_goes_on_counting_the_time() {
    let Some(world) = World::or_skip("limits: timeout across a restart") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("limited", &limited("  timeout: 4s\n"))]);
    let run = agent
        .egressctl(&[
            "run", "--name", "s", "--policy", "limited", "--", "sleep", "62.4",
        ])
        .expect("egressctl starts");
    std::thread::sleep(Duration::from_millis(500));
    agent.kill();
    agent.launch();
    Said::by(run).failed_with(137, &[]);
    assert!(
        agent.recorded(&["over `timeout` of 4s"]),
        "{:#?}",
        agent.audit()
    );
}

#[test]
fn what_a_host_cannot_limit_is_refused_or_told() {
    let Some(world) = World::or_skip("limits: refused") else {
        return;
    };
    let block = "  io_limit:\n    - { device: /proc, write: 1Mi }\n";
    let refused = world.sandbox(&limited(block));
    Said::by(refused.run(["/bin/true"])).failed_with(
        78,
        &["this host does not enforce `io_limit`", "best_effort"],
    );
    let told = world.sandbox(&limited(&format!("{block}  best_effort: true\n")));
    Said::by(told.run(["/bin/true"])).succeeded();

    let agent = Agent::start(
        &world,
        &[(
            "limited",
            &limited(&format!("{block}  best_effort: true\n")),
        )],
    );
    let mut run = agent
        .egressctl(&[
            "run",
            "--name",
            "s",
            "--policy",
            "limited",
            "--",
            "/bin/sh",
            "-c",
            "echo up; sleep 60.9",
        ])
        .expect("egressctl starts");
    assert_eq!(run.line().as_deref(), Some("up"));
    let shown = agent.ask(&["sandbox", "show", "s", "-o", "json"]).json();
    let relaxations = shown["relaxations"].to_string();
    assert!(
        relaxations.contains("`io_limit` is not enforced here"),
        "{shown:#}"
    );
    agent
        .ask(&["sandbox", "stop", "s", "--grace", "0s"])
        .succeeded();
}

#[test]
fn only_a_bounded_tmp_can_be_written() {
    let Some(world) = World::or_skip("limits: disk") else {
        return;
    };
    let sandbox = world.sandbox(&limited("  disk: { tmp: 1Mi }\n"));
    let script = "echo a > /tmp/a && cat /tmp/a; \
        for place in /var/tmp . /etc /run; do \
        (echo b > $place/egress-test-b) 2>/dev/null && echo written $place; done; \
        for place in /tmp /dev/shm; do \
        dd if=/dev/zero of=$place/big bs=64k count=64 2>/dev/null || echo full; done; \
        stat -f -c %T /tmp";
    let said = Said::by(sandbox.run(["/bin/sh", "-c", script]));
    assert_eq!(said.succeeded(), "a\nfull\nfull\ntmpfs", "{said:#?}");
}

#[test]
fn a_strict_filter_refuses_more_and_none_is_told() {
    let Some(world) = World::or_skip("limits: seccomp") else {
        return;
    };
    let chroot = [
        "/bin/sh",
        "-c",
        "unshare --ipc true 2>&1; grep Seccomp: /proc/self/status",
    ];
    let run = |block: &str| Said::by(world.sandbox(&limited(block)).run(chroot)).out;
    assert!(run("  seccomp: strict\n").contains("Seccomp:\t2"));
    let none = run("  seccomp: none\n  seccomp_reason: \"a test\"\n");
    assert!(none.contains("Seccomp:\t0"), "{none}");
    let refused = world.sandbox(&limited("  seccomp: none\n"));
    Said::by(refused.run(["/bin/true"])).failed_with(78, &["seccomp_reason"]);
}

#[test]
fn a_sandbox_over_its_memory_is_killed_as_a_whole() {
    let test = "limits: memory";
    if !has("memory", test) {
        return;
    }
    let Some(world) = World::or_skip(test) else {
        return;
    };
    let sandbox = world.sandbox(&limited("  memory_limit: 64Mi\n"));
    // `tail` keeps what has no line break in memory.
    let script = "sleep 63.1 & head -c 300M /dev/zero | tail -n 1 > /dev/null; sleep 63.1";
    let said = Said::by(sandbox.run(["/bin/sh", "-c", script]));
    said.failed_with(137, &["over `memory_limit` of 64Mi"]);
    let records = sandbox.audit();
    recorded(
        &records,
        &[
            "over `memory_limit` of 64Mi",
            "its peak was",
            "the kernel killed",
        ],
    );
    recorded(&records, &["ended: cpu ", "memory at most"]);
}

#[test]
fn a_sandbox_has_no_more_processes_than_its_limit() {
    let test = "limits: processes";
    if !has("pids", test) {
        return;
    }
    let Some(world) = World::or_skip(test) else {
        return;
    };
    let sandbox = world.sandbox(&limited("  pids_limit: 8\n"));
    let script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 3 & done; \
        ls -d /proc/[0-9]* | wc -l; wait";
    let said = Said::by(sandbox.run(["/bin/sh", "-c", script]));
    assert!(
        said.errors.contains("ork") || said.errors.contains("esource"),
        "{said:#?}"
    );
    let records = sandbox.audit();
    recorded(
        &records,
        &["at `pids_limit` of 8", "further processes are refused"],
    );
    recorded(&records, &["processes refused"]);
}

#[test]
fn a_sandbox_gets_no_more_cpu_than_its_limit() {
    let test = "limits: cpu";
    if !has("cpu", test) {
        return;
    }
    let Some(world) = World::or_skip(test) else {
        return;
    };
    let sandbox = world.sandbox(&limited("  cpu_limit: \"100m\"\n  cpu_weight: 50\n"));
    let begun = Instant::now();
    let script = "end=$(($(date +%s) + 5)); while [ $(date +%s) -lt $end ]; do :; done";
    Said::by(sandbox.run(["/bin/sh", "-c", script])).succeeded();
    let wall = begun.elapsed().as_secs_f64();
    let details = details(&sandbox.audit());
    let ended = details
        .iter()
        .find_map(|detail| detail.strip_prefix("ended: cpu "))
        .unwrap_or_else(|| panic!("{details:#?}"));
    assert!(ended.contains("held back for"), "{ended}");
    let used: f64 = ended
        .split('s')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_else(|| panic!("{ended}"));
    assert!(used < wall * 0.3, "{used} s of CPU in {wall} s");
}

#[test]
fn a_block_device_is_written_no_faster_than_its_limit() {
    let test = "limits: io";
    if !has("io", test) {
        return;
    }
    let Some(world) = World::or_skip(test) else {
        return;
    };
    let directory = world.fresh_directory();
    std::fs::set_permissions(
        &directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("it is the test's own");
    let block = format!(
        "  user: root\n  io_limit:\n    - {{ device: \"{}\", write: 1Mi }}\n",
        directory.display()
    );
    let sandbox = world.sandbox(&limited(&block));
    let file = directory.join("written");
    let of = format!("of={}", file.display());
    let dd = [
        "dd",
        "if=/dev/zero",
        &of,
        "bs=256k",
        "count=16",
        "oflag=direct",
    ];
    let begun = Instant::now();
    let said = Said::by(sandbox.run(dd));
    if said.errors.contains("no block device") || said.errors.contains("Invalid argument") {
        eprintln!(
            "skipped: {test}: {} lies on no block device",
            directory.display()
        );
        return;
    }
    said.succeeded();
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(3),
        "4 MiB at 1 MiB/s took {took:?}"
    );
}

#[test]
fn a_reload_changes_the_limits_of_what_runs() {
    let Some(world) = World::or_skip("limits: reload") else {
        return;
    };
    let agent = Agent::start(&world, &[("limited", &limited("  timeout: 1h\n"))]);
    let run = agent
        .egressctl(&[
            "run", "--name", "s", "--policy", "limited", "--", "sleep", "62.5",
        ])
        .expect("egressctl starts");
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.status()["sandboxes"] != 1 {
        assert!(Instant::now() < deadline, "the sandbox never began");
    }
    agent.write_policy("limited", &limited("  timeout: 1s\n"));
    agent.reload();
    Said::by(run).failed_with(137, &["over `timeout` of 1s"]);
}

/// A shell that can connect to the far side, and knows how to say so.
fn connecting(script: &str) -> [String; 3] {
    let place = format!("/dev/tcp/{}/{}", SERVERS[0], PORTS[0]);
    // A refused connection must not end the shell that asked for it.
    let functions = format!(
        "try() {{ eval \"command exec $1<>{place}\" 2>/tmp/refused.$BASHPID && echo open || \
         grep -o -m 1 'Operation not permitted' /tmp/refused.$BASHPID; }}; shut() {{ eval \"exec $1>&-\"; }}; "
    );
    [
        "/bin/bash".into(),
        "-c".into(),
        format!("{functions}{script}"),
    ]
}

fn at_most_two() -> String {
    limited("  max_connections: 2\n")
        + &format!(
            "allowlist:\n  web:\n    - {{ cidr: \"{}\", ports: [{}], protocols: [tcp] }}\n",
            SERVERS[0], PORTS[0]
        )
}

#[test]
fn a_sandbox_has_no_more_open_connections_than_its_limit() {
    let Some(world) = World::or_skip("limits: connections") else {
        return;
    };
    let sandbox = world.sandbox(&at_most_two());
    let script = "try 3; try 4; try 5; shut 3; try 5; shut 4; \
        for n in $(seq 60); do try 6 >/dev/null; shut 6; done; try 4; try 6; shut 4; shut 5; \
        for n in $(seq 12); do (try 7; sleep 8) & done | sort | uniq -c; wait";
    let said = Said::by(sandbox.run(connecting(script)));
    let lines: Vec<String> = said
        .succeeded()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let refused = "Operation not permitted";
    assert_eq!(
        lines,
        [
            "open",
            "open",
            refused,
            "open",
            "open",
            refused,
            "10 Operation not permitted",
            "2 open"
        ],
        "{said:#?}"
    );
    let records = sandbox.audit();
    let told = records
        .iter()
        .any(|record| record["reason"] == "too_many_connections" && record["verdict"] == "deny");
    assert!(told, "{records:#?}");
}

#[test]
fn the_next_agent_knows_how_many_connections_are_open() {
    let Some(world) = World::or_skip("limits: connections across a restart") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("limited", &at_most_two())]);
    let go = world.fresh_directory().join("go");
    let script = format!(
        "try 3; try 4; while [ ! -e {} ]; do sleep 0.05; done; try 5; shut 4; try 5",
        go.display()
    );
    let mut arguments = vec!["run", "--name", "s", "--policy", "limited", "--"];
    let command = connecting(&script);
    arguments.extend(command.iter().map(String::as_str));
    let mut run = agent.egressctl(&arguments).expect("egressctl starts");
    assert_eq!(run.line().as_deref(), Some("open"));
    assert_eq!(run.line().as_deref(), Some("open"));
    agent.kill();
    agent.launch();
    std::fs::write(&go, "").expect("the directory is the world's");
    let said = Said::by(run);
    assert_eq!(
        said.succeeded(),
        "Operation not permitted\nopen",
        "{said:#?}"
    );
}

#[test]
fn the_closing_record_has_the_bytes_where_they_are_counted() {
    const SENT: u64 = 300_000;
    let Some(world) = World::or_skip("limits: bytes") else {
        return;
    };
    let mut agent = Agent::prepare(&world, &[("limited", &at_most_two())]);
    agent.configure(&format!("count_bytes = true\n{}", agent.configuration()));
    agent.launch();
    let script =
        format!("try 3; head -c {SENT} /dev/zero >&3 & head -c {SENT} <&3 | wc -c; sleep 1");
    let mut arguments = vec!["run", "--name", "s", "--policy", "limited", "--"];
    let command = connecting(&script);
    arguments.extend(command.iter().map(String::as_str));
    let said = Said::by(agent.egressctl(&arguments).expect("egressctl starts"));
    assert_eq!(said.succeeded(), format!("open\n{SENT}"), "{said:#?}");
    assert!(
        agent.recorded(&["ended: ", " bytes sent, "]),
        "{:#?}",
        agent.audit()
    );
    let details = details(&agent.audit());
    let ended = details
        .iter()
        .find(|detail| detail.starts_with("ended: "))
        .unwrap_or_else(|| panic!("{details:#?}"));
    let bytes = |what: &str| -> u64 {
        let (before, _) = ended.split_once(what).unwrap_or_else(|| panic!("{ended}"));
        let number = before.rsplit(' ').next().unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("{ended}"))
    };
    // Headers and acknowledgements come on top.
    for number in [bytes(" bytes sent"), bytes(" bytes received")] {
        assert!((SENT..SENT * 11 / 10).contains(&number), "{ended}");
    }
}
