//! What somebody else starts below the governed root: services, containers. Here
//! a shell puts itself into a cgroup, as their managers do, and becomes the probe.

mod policy;

use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::operation::Said;
use egress_tests::probe::{Attempt, go_on, until_pause};
use egress_tests::process::Running;
use egress_tests::product::{Agent, binary};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Opens HTTPS at the allowed address, for cgroups that this matcher names.
fn adopting(matcher: &str, sandbox: &str) -> String {
    format!(
        "apiVersion: egress/v1\nname: adopting\napplies_to:\n  - {matcher}\n{sandbox}\
         allowlist:\n  web:\n    - {{ cidr: \"{ALLOWED_V4}\", ports: [443], protocols: [tcp] }}\n"
    )
}

const REPORT: &str = "sandbox: { unmet_contract: report }\n";

/// A shell on the near side that runs this.
fn shell(world: &World, script: &str) -> Running {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]);
    let run = world.near.run(|| Running::start(&mut shell));
    run.expect("a shell starts")
}

/// A cgroup below the agent's root, with the probe in it, waiting.
fn start(world: &World, agent: &Agent<'_>, cgroup: &str, as_root: bool) -> Running {
    let directory = agent.root_directory().join(cgroup);
    std::fs::create_dir(&directory).expect("the root is there");
    let exchange = format!("tcp-exchange {ALLOWED_V4}:443 hello");
    let drop = if as_root {
        ""
    } else {
        "setpriv --reuid 2000000099 --regid 2000000099 --clear-groups --no-new-privs --bounding-set -all "
    };
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec {drop}{} pause '{exchange}' pause '{exchange}' pause",
        directory.display(),
        world.probe().display(),
    );
    let mut run = shell(world, &script);
    assert!(until_pause(&mut run).is_empty());
    run
}

fn exchanged(attempts: &[Attempt]) -> bool {
    attempts.first().is_some_and(|attempt| attempt.ok)
}

/// The sandboxes that the agent knows, by name.
fn names(agent: &Agent<'_>) -> Vec<String> {
    let list = agent.ask(&["sandbox", "list", "-o", "json"]).json();
    let list = list.as_array().expect("a list").clone();
    list.iter()
        .filter_map(|sandbox| sandbox["name"].as_str().map(str::to_owned))
        .collect()
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_others_start_is_denied_until_a_policy_names_it() {
    let Some(world) = World::or_skip("others: denied") else {
        return;
    };
    let agent = Agent::start(
        &world,
        &[("adopting", &adopting("unit: \"web*.service\"", REPORT))],
    );
    let mut stranger = start(&world, &agent, "other.service", true);
    assert!(!exchanged(&go_on(&mut stranger)));
    assert!(agent.recorded(&["cgroup other.service", "no policy names it"]));

    let mut web = start(&world, &agent, "web@1.service", true);
    eventually("it is adopted", || names(&agent) == ["web-1"]);
    assert!(exchanged(&go_on(&mut web)));
    let shown = agent
        .ask(&["sandbox", "show", "web-1", "-o", "json"])
        .json();
    assert!(
        shown["relaxations"].to_string().contains("CAP_NET_ADMIN"),
        "{shown:#}"
    );
    assert!(
        !exchanged(&go_on(&mut stranger)),
        "the other one stays denied"
    );
    agent
        .ask(&["sandbox", "stop", "web-1"])
        .failed_with(1, &["somebody else"]);

    drop(web);
    std::fs::remove_dir(agent.root_directory().join("web@1.service")).expect("it is empty");
    eventually("it is left", || names(&agent).is_empty());
    assert!(agent.recorded(&["ended: its cgroup is gone"]));
}

#[test]
fn who_has_more_than_a_sandbox_has_stays_denied_and_is_told() {
    let Some(world) = World::or_skip("others: contract") else {
        return;
    };
    let agent = Agent::start(&world, &[("adopting", &adopting("cgroup: \"box-*\"", ""))]);
    let mut root = start(&world, &agent, "box-root.scope", true);
    assert!(agent.recorded(&[
        "box-root.scope",
        "stays denied",
        "CAP_NET_ADMIN",
        "unmet_contract: report"
    ]));
    assert!(!exchanged(&go_on(&mut root)));
    // Without capabilities a missing filter still is a way round.
    let mut plain = start(&world, &agent, "box-plain.scope", false);
    assert!(agent.recorded(&["box-plain.scope", "stays denied", "no system call filter"]));
    assert!(!exchanged(&go_on(&mut plain)));
    assert_eq!(names(&agent), Vec::<String>::new());
}

#[test]
fn an_adopted_cgroup_is_known_to_the_next_agent() {
    let Some(world) = World::or_skip("others: restart") else {
        return;
    };
    let mut agent = Agent::start(
        &world,
        &[("adopting", &adopting("cgroup: \"box-*\"", REPORT))],
    );
    let mut run = start(&world, &agent, "box-1.scope", true);
    eventually("it is adopted", || names(&agent) == ["box-1"]);
    agent.kill();
    assert!(exchanged(&go_on(&mut run)), "enforcement goes on");
    agent.launch();
    assert_eq!(names(&agent), ["box-1"]);
    assert!(exchanged(&go_on(&mut run)));
}

/// What a runtime tells its hooks, and the bundle that it tells of.
fn hook(agent: &Agent<'_>, process: u32, config: &Value) -> Said {
    let bundle: PathBuf = agent.directory().join("bundle");
    std::fs::create_dir_all(&bundle).expect("the test's own directory");
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("the same");
    let state = json!({
        "ociVersion": "1.1.0", "id": "c1", "status": "creating", "pid": process, "bundle": bundle,
    });
    let mut child = Command::new(binary("egressctl"))
        .arg("--socket")
        .arg(agent.socket())
        .arg("oci-hook")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("egressctl starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(state.to_string().as_bytes())
        .expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    Said {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn tight() -> Value {
    json!({
        "process": { "noNewPrivileges": true, "capabilities": { "bounding": ["CAP_CHOWN"] } },
        "linux": {
            "namespaces": [{ "type": "network" }],
            "seccomp": { "syscalls": [{ "names": ["bpf"], "action": "SCMP_ACT_ERRNO" }] },
        },
        "mounts": [],
    })
}

#[test]
fn no_container_starts_that_is_not_enforced() {
    let Some(world) = World::or_skip("others: hook") else {
        return;
    };
    let mut agent = Agent::start(
        &world,
        &[("adopting", &adopting("cgroup: \"docker-*.scope\"", ""))],
    );
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let mut run = start(&world, &agent, &format!("docker-{id}.scope"), false);
    let mut wide = tight();
    wide["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
    hook(&agent, run.pid(), &wide).failed_with(1, &["stays denied", "CAP_SYS_ADMIN"]);
    assert!(!exchanged(&go_on(&mut run)));
    hook(&agent, run.pid(), &tight()).succeeded();
    assert_eq!(names(&agent), ["docker-0123456789ab"]);
    assert!(exchanged(&go_on(&mut run)));

    let other = start(&world, &agent, "crio-1.scope", false);
    hook(&agent, other.pid(), &tight()).failed_with(1, &["no policy names the cgroup"]);
    let outside = hook(&agent, std::process::id(), &tight());
    outside.failed_with(1, &["is not below", "--cgroup-parent"]);
    agent.kill();
    hook(&agent, run.pid(), &tight()).failed_with(5, &["no agent answers"]);
}

#[test]
fn icmp_of_a_cgroup_stays_refused_where_its_policy_opens_echo() {
    let Some(world) = World::or_skip("others: ICMP of a cgroup stays refused") else {
        return;
    };
    let policy =
        adopting("cgroup: \"box-*\"", REPORT).replace("protocols: [tcp]", "protocols: [tcp, icmp]");
    let mut agent = Agent::prepare(&world, &[("adopting", &policy)]);
    // A socket from before there was anybody who refuses to make one, so that the
    // gate itself has to refuse what it sends.
    let directory = agent.root_directory().join("box-early.scope");
    std::fs::create_dir_all(&directory).expect("a cgroup");
    let send = |text: &str| format!("'send-to raw {ALLOWED_V4}:0 {text}'");
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec {} 'make raw {} {} {}' {} pause {} {} {} \
         'tcp-exchange {ALLOWED_V4}:443 hello' pause",
        directory.display(),
        world.probe().display(),
        libc::AF_INET,
        libc::SOCK_RAW,
        libc::IPPROTO_ICMP,
        send("early-echo"),
        send("secret-echo"),
        format_args!(
            "'make more {} {} {}'",
            libc::AF_INET,
            libc::SOCK_RAW,
            libc::IPPROTO_ICMP
        ),
        format_args!(
            "'make ping {} {} {}'",
            libc::AF_INET,
            libc::SOCK_DGRAM,
            libc::IPPROTO_ICMP
        ),
    );
    let mut run = shell(&world, &script);
    for attempt in until_pause(&mut run) {
        attempt.succeeded();
    }
    let early = |packet: &egress_tests::packet::Packet| packet.carries(b"early-echo");
    assert!(world.sniffer.awaits(early), "nothing refuses it yet");

    agent.launch();
    eventually("it is adopted", || names(&agent) == ["box-early"]);
    let attempts = go_on(&mut run);
    assert_eq!(attempts[0].errno, Some(libc::EPERM), "{attempts:#?}");
    for made in &attempts[1..3] {
        let walls = [libc::EPERM, libc::EACCES];
        assert!(made.errno.is_some_and(|e| walls.contains(&e)), "{made:?}");
    }
    // Its policy does open something.
    attempts[3].succeeded();
    world.settle();
    let escaped = world.sniffer.saw(|packet| packet.carries(b"secret-echo"));
    assert!(!escaped, "the echo left");
    assert!(agent.recorded(&["box-early", "unparsable_packet"]));
}
