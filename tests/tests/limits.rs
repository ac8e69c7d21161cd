//! Limits of a sandbox, as the person whose command meets them sees it.
//!
//! What needs a resource controller runs where cgroup2 has it, and is skipped by
//! the feature's name elsewhere: on hosts whose controllers are with cgroup v1.

mod policy;

use egress_tests::operation::{Said, details};
use egress_tests::product::Agent;
use egress_tests::{World, cgroup};
use policy::limited;
use serde_json::Value;
use std::time::{Duration, Instant};

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
