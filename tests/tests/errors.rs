//! What cannot be enforced does not start: each failure has a message with what
//! to do, an exit code, and leaves nothing half open.

mod policy;

use egress_tests::address::ALLOWED_V4;
use egress_tests::operation::Said;
use egress_tests::probe::{rest, until_pause};
use egress_tests::process::Running;
use egress_tests::product::{Agent, binary};
use egress_tests::{World, cgroup};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    Some(world)
}

fn prepared(world: &World) -> Agent<'_> {
    Agent::prepare(world, &[("one-name", policy::ONE_NAME)])
}

/// Runs a command in the near namespace to its end.
fn said(world: &World, program: impl AsRef<OsStr>, arguments: &[&str]) -> Said {
    let mut command = Command::new(program);
    command.args(arguments);
    let run = world.near.run(|| Running::start(&mut command));
    Said::by(run.expect("it starts"))
}

/// Arguments of an ephemeral run of `true` that keeps everything in `directory`.
fn run_of_true(directory: &Path) -> String {
    let policy = directory.join("policy.yaml");
    fs::write(&policy, policy::ONE_NAME).expect("the world's directory is writable");
    format!(
        "run --ephemeral --policy {} --state {}/state --upstream 203.0.113.53 -- /bin/true",
        policy.display(),
        directory.display()
    )
}

/// Runs a line of shell in a mount namespace of its own.
fn in_own_mounts(world: &World, line: &str) -> Said {
    said(world, "unshare", &["--mount", "/bin/sh", "-ec", line])
}

/// Asserts that an agent that was not started left no governed root.
#[track_caller]
fn no_root(agent: &Agent<'_>) {
    let root = agent.root_directory();
    assert!(!root.exists(), "{} was left behind", root.display());
}

/// The binaries where every user can run them.
fn public_binaries(world: &World) -> PathBuf {
    let directory = world.fresh_directory();
    for name in ["egressctl", "egress-agent"] {
        fs::copy(binary(name), directory.join(name)).expect("copied");
    }
    directory
}

#[test]
fn a_bad_policy_starts_nothing() {
    let Some(world) = world("errors: bad policy") else {
        return;
    };
    let agent = prepared(&world);
    let bad = policy::ONE_NAME.replace("protocols: [https]", "protocols: [gopher]");
    agent.write_policy("one-name", &bad);
    let line = bad
        .lines()
        .position(|line| line.contains("gopher"))
        .expect("the mistake")
        + 1;
    let place = format!("one-name.yaml:{line}:");
    Said::by(agent.begin()).failed_with(78, &["egress-agent: ", &place, "gopher"]);
    no_root(&agent);

    let config = agent.directory().join("agent.toml");
    let config = config.to_str().expect("text");
    said(
        &world,
        binary("egress-agent"),
        &["--config", config, "--check-config"],
    )
    .failed_with(78, &[&place]);

    let sandbox = world.sandbox(&bad);
    let run = sandbox.run(["/bin/true"]);
    let root = format!("egress-run-{}", run.pid());
    Said::by(run).failed_with(78, &["egressctl: ", "policy.yaml:", "gopher"]);
    assert!(!cgroup::mount().expect("cgroup2").join(root).exists());
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let Some(world) = world("errors: bad configuration") else {
        return;
    };
    let agent = prepared(&world);
    for (key, text, words) in [
        ("polices", "polices = []\n", ["agent.toml", "polices"]),
        (
            "upstreams",
            "upstreams = [\"dns.example\"]\n",
            ["`upstreams`", "write ADDRESS"],
        ),
        ("root", "root = \"../up\"\n", ["../up", "governed root"]),
    ] {
        agent.configure(&format!("{text}{}", without(&agent, key)));
        Said::by(agent.begin()).failed_with(78, &words);
        no_root(&agent);
    }
}

/// The configuration of an agent without one key, which the test sets.
fn without(agent: &Agent<'_>, key: &str) -> String {
    let text = agent.configuration();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with(&format!("{key} =")));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn who_is_not_root_is_told_what_needs_root() {
    let Some(world) = world("errors: not root") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let binaries = public_binaries(&world);
    let directory = world.fresh_directory();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("its own directory");
    let run = run_of_true(&directory);
    let socket = agent.socket();
    let socket = socket.to_str().expect("text");
    let audit = agent.state().join("audit.db");
    let audit = audit.to_str().expect("text");
    let as_nobody = |program: &str, arguments: &str| {
        let program = binaries.join(program);
        let mut all = vec!["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        all.push(program.to_str().expect("text"));
        all.extend(arguments.split_whitespace());
        said(&world, "setpriv", &all)
    };
    as_nobody("egressctl", &run).failed_with(6, &["needs root", "sudo"]);
    as_nobody("egress-agent", "").failed_with(6, &["must be run as root"]);
    as_nobody(
        "egressctl",
        "disarm --yes --root egress-tests-none --state /nonexistent --socket /nonexistent",
    )
    .failed_with(6, &["only root may disarm"]);
    for command in ["status", "reload --wait", "sandbox list"] {
        as_nobody("egressctl", &format!("{command} --socket {socket}"))
            .failed_with(6, &["only root may speak to the agent"]);
    }
    as_nobody("egressctl", &format!("audit query --file {audit}"))
        .failed_with(6, &["only root may read", "audit.db"]);
    let policy = directory.join("policy.yaml");
    let check = as_nobody("egressctl", &format!("policy check {}", policy.display()));
    assert!(check.succeeded().contains("one-name"), "{check:#?}");
}

#[test]
fn root_without_the_capabilities_is_told_which() {
    let Some(world) = world("errors: capabilities") else {
        return;
    };
    let ctl = binary("egressctl");
    let ctl = ctl.to_str().expect("text");
    for missing in [
        "-sys_admin,-bpf,-net_admin",
        "-sys_admin,-bpf",
        "-net_admin",
    ] {
        let directory = world.fresh_directory();
        let run = run_of_true(&directory);
        let mut arguments = vec!["--bounding-set", missing, ctl];
        arguments.extend(run.split(' '));
        let said = said(&world, "setpriv", &arguments);
        said.failed_with(6, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert!(!said.errors.contains("WARN"), "{said:#?}");
    }
    let agent = prepared(&world);
    let config = agent.directory().join("agent.toml");
    let daemon = binary("egress-agent");
    said(
        &world,
        "setpriv",
        &[
            "--bounding-set",
            "-sys_admin,-bpf,-net_admin",
            daemon.to_str().expect("text"),
            "--config",
            config.to_str().expect("text"),
        ],
    )
    .failed_with(6, &["egress-agent: ", "CAP_BPF"]);
    no_root(&agent);
}

#[test]
fn without_cgroup2_nothing_starts() {
    let Some(world) = world("errors: no cgroup2") else {
        return;
    };
    let run = run_of_true(&world.fresh_directory());
    let mount = cgroup::mount().expect("cgroup2");
    let line = format!(
        "umount --lazy {}; exec {} {run}",
        mount.display(),
        binary("egressctl").display()
    );
    let said = in_own_mounts(&world, &line);
    // Which of the two it is depends on what else the host mounts.
    said.failed_with(1, &["cgroup", "mount -t cgroup2"]);
    assert!(
        mount.join("cgroup.procs").exists(),
        "the host keeps its mount"
    );
}

#[test]
fn without_an_upstream_nothing_starts() {
    let Some(world) = world("errors: no upstream") else {
        return;
    };
    let run = run_of_true(&world.fresh_directory()).replace("--upstream 203.0.113.53 ", "");
    let line = format!(
        "mount --bind /dev/null /etc/resolv.conf; exec {} {run}",
        binary("egressctl").display()
    );
    in_own_mounts(&world, &line).failed_with(78, &["no upstream", "--upstream ADDRESS"]);
}

#[test]
fn a_sandbox_that_used_its_grants_up_gets_no_answer_and_others_do() {
    let Some(world) = world("errors: grants used up") else {
        return;
    };
    // Thirty addresses on 64 ports: eight such names fill what one sandbox may
    // hold, and the ninth is one too many.
    for name in 0..9 {
        let addresses: Vec<std::net::IpAddr> = (1..=30)
            .map(|host| std::net::Ipv4Addr::new(198, 51, 100 + name, host).into())
            .collect();
        world
            .dns
            .resolve(&format!("n{name}.wide.example"), &addresses);
    }
    let text = format!(
        "{}  wide:\n    - domain: \"*.wide.example\"\n      ports: [\"1000-1063\"]\n      protocols: [tcp]\n",
        policy::changing(&["allowed.example"], "")
    );
    let agent = Agent::start(
        &world,
        &[("changing", &text), ("one-name", policy::ONE_NAME)],
    );
    let queries: Vec<String> = (0..9)
        .map(|name| format!("dns-udp 198.51.100.1:53 A n{name}.wide.example"))
        .collect();
    let mut steps: Vec<&str> = queries.iter().map(String::as_str).collect();
    steps.extend([
        "tcp-exchange 198.51.108.1:1000 secret",
        "resolve allowed.example",
        "pause",
    ]);
    let mut run = agent.probe("greedy", "changing", &steps);
    let mut attempts = until_pause(&mut run);
    for attempt in attempts.drain(..8) {
        assert!(attempt.succeeded().starts_with("code=0"), "{attempt:?}");
    }
    // SERVFAIL: asking again later may help.
    assert!(
        attempts[0].succeeded().starts_with("code=2"),
        "{attempts:#?}"
    );
    attempts[1].refused();
    attempts[2].succeeded();
    let mut other = agent.probe(
        "modest",
        "one-name",
        &["named-exchange allowed.example 443 hi", "pause"],
    );
    until_pause(&mut other)[0].succeeded();
    assert!(agent.recorded(&[
        "greedy",
        "n8.wide.example",
        "too_many_addresses",
        "15360 open grants"
    ]));
    rest(run);
    rest(other);
}

#[test]
fn what_a_run_asks_for_in_vain_is_named() {
    let Some(world) = world("errors: names") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let run = |options: &[&str]| {
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.extend(["--", "/bin/true"]);
        agent.ask(&arguments)
    };
    run(&["--policy", "nobodys"]).failed_with(1, &["nobodys", "one-name"]);
    run(&[]).failed_with(1, &["applies_to"]);
    run(&["--policy", "one-name", "--name", "../up"]).failed_with(2, &["../up"]);
    run(&["--policy", "./one-name.yaml"]).failed_with(2, &["is a path", "--ephemeral"]);
    run(&["--ephemeral"]).failed_with(2, &["--policy"]);
    let mut first = agent.probe("taken", "one-name", &["pause"]);
    until_pause(&mut first);
    run(&["--policy", "one-name", "--name", "taken"]).failed_with(1, &["taken", "exists already"]);
    rest(first);
    // A cgroup that somebody else made under the name is never adopted.
    fs::create_dir(agent.root_directory().join("squatted")).expect("root may make cgroups");
    run(&["--policy", "one-name", "--name", "squatted"])
        .failed_with(1, &["squatted", "exists already"]);
    assert_eq!(agent.status()["sandboxes"], 0);
}

#[test]
fn where_no_agent_answers_every_command_says_so() {
    let Some(world) = world("errors: no agent") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    agent.kill();
    let commands: [&[&str]; 4] = [
        &["status"],
        &["reload", "--wait"],
        &["sandbox", "list"],
        &["run", "--policy", "one-name", "--", "/bin/true"],
    ];
    for command in commands {
        agent
            .ask(command)
            .failed_with(5, &["no agent answers", "egress-agent", "--ephemeral"]);
    }
}
