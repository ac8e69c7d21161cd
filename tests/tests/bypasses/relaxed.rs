//! Points of the fence that a policy opens by name: what stays closed, and where
//! it shows.

use crate::policy::ONE_NAME;
use crate::scene::{answer, attempt, until_pause, world};
use egress_tests::World;
use egress_tests::address::{FORBIDDEN_V4, FORBIDDEN_V6};
use egress_tests::feature::Feature;
use egress_tests::product::Agent;
use serde_json::json;

/// [`ONE_NAME`] with these points open.
fn relaxed(points: &str) -> String {
    format!("{ONE_NAME}\nsandbox:\n  relax: [{points}]\n")
}

/// Where devices of such a namespace could be put into the host's.
fn refuses_to_start(world: &World) {
    let sandbox = world.sandbox(&relaxed("user-namespaces"));
    let (status, lines, errors) = sandbox.run(["/bin/true"]).finish();
    assert!(!status.success(), "{lines:?} {errors}");
    assert!(errors.contains("update the kernel"), "{errors}");
}

#[test]
fn sockets_stay_under_the_policy_in_namespaces_of_the_commands_own() {
    let Some(world) = world("bypass: relaxed user namespaces") else {
        return;
    };
    if !Feature::NamespacesApart.is_there() {
        return refuses_to_start(&world);
    }
    let spaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS;
    let unshare = format!("call {} {spaces}", libc::SYS_unshare);
    let send = format!("send-to u {FORBIDDEN_V4}:443 secret");
    let again = format!("udp-send {FORBIDDEN_V4}:443 secret");
    let other = format!("udp-send [{FORBIDDEN_V6}]:443 secret");
    let steps = [
        "open u udp4",
        &unshare,
        &send,
        &again,
        &other,
        // AF_PACKET, NETLINK_NETFILTER.
        "make p 17 3 0",
        "make n 16 3 12",
        "read /sys/fs/cgroup/cgroup.procs",
    ];
    let outcome = attempt(&world, &relaxed("user-namespaces"), &steps);
    outcome[1].succeeded();
    outcome[2].refused();
    for step in 3..steps.len() {
        outcome[step].failed();
    }
    outcome[5].refused();
    outcome[6].refused();
    attempt(&world, ONE_NAME, &[&unshare])[0].refused();
    world.nothing_escaped(&[]);
}

#[test]
fn a_device_of_a_namespace_of_the_commands_own_cannot_be_put_into_the_hosts() {
    let Some(world) = world("bypass: wired namespace") else {
        return;
    };
    if !Feature::NamespacesApart.is_there() {
        return refuses_to_start(&world);
    }
    let policy = relaxed("user-namespaces");
    let sandbox = world.sandbox(&policy);
    // The first shows that devices can be made there at all.
    let script = "ip link add inside type veth peer name beside || exit 3
        ip link add inside2 type veth peer name outside netns 1 && exit 4
        ip link set inside netns 1 && exit 5
        exit 0";
    let run = sandbox.run(["unshare", "-Urn", "sh", "-c", script]);
    let (status, lines, errors) = run.finish();
    assert_eq!(status.code(), Some(0), "{lines:?} {errors}");
    let devices = world
        .near
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let devices = devices.expect("the table of devices");
    assert!(!devices.contains("outside"), "{devices}");
    world.nothing_escaped(&[]);
}

#[test]
fn what_is_relaxed_stands_in_every_record_of_the_sandbox() {
    let Some(world) = world("bypass: relaxations in records") else {
        return;
    };
    let policy = if Feature::NamespacesApart.is_there() {
        relaxed("user-namespaces, ptrace")
    } else {
        refuses_to_start(&world);
        relaxed("ptrace")
    };
    let sandbox = world.sandbox(&policy);
    let refused = format!("tcp-exchange {FORBIDDEN_V4}:443 secret");
    let steps = [
        "resolve allowed.example",
        "resolve forbidden.example",
        refused.as_str(),
        "make s 2 3 255",
    ];
    sandbox.attempt(&steps);
    let mut kinds = std::collections::BTreeSet::new();
    for record in sandbox.audit() {
        let named = !record["sandbox"].is_null();
        let expected = match (named, Feature::NamespacesApart.is_there()) {
            (true, true) => json!(["ptrace", "user-namespaces"]),
            (true, false) => json!(["ptrace"]),
            (false, _) => json!([]),
        };
        assert_eq!(record["relaxations"], expected, "{record}");
        if named {
            kinds.insert(record["kind"].as_str().unwrap_or_default().to_owned());
        }
    }
    let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
    assert_eq!(kinds, ["dns", "flow", "sandbox"]);
    let usual = world.sandbox(ONE_NAME);
    usual.attempt(&["resolve allowed.example"]);
    let records = usual.audit();
    assert!(
        records
            .iter()
            .all(|record| record["relaxations"] == json!([]))
    );
}

#[test]
fn what_is_relaxed_shows_in_the_status_and_in_the_list() {
    let Some(world) = world("bypass: relaxations in the status") else {
        return;
    };
    let policy = relaxed("ptrace");
    let agent = Agent::start(&world, &[("one-name", policy.as_str())]);
    let mut run = agent.probe("debugged", "one-name", &["pause"]);
    until_pause(&mut run);
    let status = answer(&agent, &["status", "-o", "json"]);
    assert_eq!(status["relaxed"], json!({"debugged": ["ptrace"]}));
    let told = status["policies"][0]["relaxations"][0].as_str();
    assert!(
        told.is_some_and(|told| told.starts_with("ptrace: ")),
        "{status}"
    );
    let list = answer(&agent, &["sandbox", "list", "-o", "json"]);
    assert_eq!(list[0]["relaxed"], json!(["ptrace"]));
    // A change of the policy does not change what was started under it.
    agent.write_policy("one-name", ONE_NAME);
    let reload = agent.egressctl(&["reload"]).expect("egressctl starts");
    assert!(reload.finish().0.success());
    let list = answer(&agent, &["sandbox", "list", "-o", "json"]);
    assert_eq!(list[0]["relaxed"], json!(["ptrace"]));
}

#[test]
fn the_agents_own_socket_cannot_be_opened() {
    let Some(world) = world("bypass: own socket relaxed") else {
        return;
    };
    let mut agent = Agent::prepare(&world, &[]);
    let socket = agent.socket();
    let policy = relaxed(&format!("\"host-socket:{}\"", socket.display()));
    agent.write_policy("one-name", &policy);
    agent.launch();
    let (status, _, errors) = agent.probe("s", "one-name", &["pause"]).finish();
    assert!(!status.success());
    assert!(errors.contains("the agent's own socket"), "{errors}");
}
