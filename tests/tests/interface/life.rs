//! The agent and the interface come and go.

use crate::policy::{ONE_NAME, ONE_NETWORK};
use crate::scene::{Container, world};
use egress_tests::product::{Agent, audit};
use std::time::{Duration, Instant};

/// The first network policy with nothing open.
const NOTHING: &str = "apiVersion: egress/v1\nname: one-network\n";

/// Waits until something holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_interface_stays_enforced_when_the_agent_is_killed_and_the_next_takes_it_over() {
    let Some(world) = world(
        "interface: an interface stays enforced when the agent is killed and the next takes it over",
    ) else {
        return;
    };
    let mut agent = Agent::start(
        &world,
        &[("one-network", ONE_NETWORK), ("one-name", ONE_NAME)],
    );
    let (container, named) = (Container::new(&world, 7), Container::new(&world, 8));
    container.attach(&agent, "one-network");
    named.attach(&agent, "one-name");
    named.attempt(&["named-exchange allowed.example 443 before"])[0].succeeded();
    let mut live = container.start(&[
        "open t tcp4",
        "connect t 203.0.113.10:80",
        "send t first",
        "receive t",
        "pause",
        "send t second",
        "receive t",
        "pause",
        "send t third",
        "receive t",
    ]);
    for attempt in egress_tests::probe::until_pause(&mut live) {
        attempt.succeeded();
    }
    agent.kill();
    let steps = [
        "tcp-exchange 203.0.113.10:80 open",
        "tcp-exchange 203.0.113.66:80 secret",
    ];
    let outcome = container.attempt(&steps);
    outcome[0].succeeded();
    outcome[1].failed();
    for attempt in egress_tests::probe::go_on(&mut live) {
        attempt.succeeded();
    }
    agent.launch();
    let outcome = container.attempt(&steps);
    outcome[0].succeeded();
    outcome[1].failed();
    // What was resolved is still open, and names resolve again.
    let outcome = named.attempt(&[
        "tcp-exchange 203.0.113.10:443 kept",
        "named-exchange allowed.example 443 again",
    ]);
    outcome[0].succeeded();
    outcome[1].succeeded();
    for attempt in egress_tests::probe::rest(live) {
        attempt.succeeded();
    }
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_revoked_connection_is_reset_at_both_ends() {
    let Some(world) = world("interface: a revoked connection is reset at both ends") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-network", ONE_NETWORK)]);
    let container = Container::new(&world, 9);
    container.attach(&agent, "one-network");
    let mut live = container.start(&[
        "open t tcp4",
        "connect t 203.0.113.10:80",
        "send t first",
        "receive t",
        "pause",
        "receive t",
        "tcp-exchange 203.0.113.10:80 secret",
    ]);
    for attempt in egress_tests::probe::until_pause(&mut live) {
        attempt.succeeded();
    }
    agent.write_policy("one-network", NOTHING);
    let reload = agent.egressctl(&["reload"]).expect("egressctl starts");
    let (status, _, errors) = reload.finish();
    assert!(status.success(), "{errors}");
    let reset = world
        .sniffer
        .awaits(|packet| packet.is_reset && packet.port == Some(80));
    assert!(
        reset,
        "the far end was not told: {:?}",
        world.sniffer.packets()
    );
    let attempts = egress_tests::probe::rest(live);
    let refused = attempts[0].failed();
    assert_eq!(attempts[0].errno, Some(libc::ECONNRESET), "{refused}");
    attempts[1].failed();
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn an_interface_that_appears_is_found_by_its_pattern_and_ended_when_it_goes() {
    let Some(world) = world(
        "interface: an interface that appears is found by its pattern and ended when it goes",
    ) else {
        return;
    };
    let policy = format!("{ONE_NETWORK}applies_to:\n  - interface: \"box*\"\n");
    let agent = Agent::start(&world, &[("one-network", &policy)]);
    let container = Container::new(&world, 10);
    let listed = || {
        let run = agent
            .egressctl(&["sandbox", "list", "-o", "json"])
            .expect("egressctl starts");
        run.finish().1.join("\n")
    };
    eventually("the interface is a sandbox", || listed().contains("box10"));
    let outcome = container.attempt(&[
        "tcp-exchange 203.0.113.10:80 open",
        "tcp-exchange 203.0.113.66:80 secret",
    ]);
    outcome[0].succeeded();
    outcome[1].failed();
    world
        .near
        .configure("link del box10\n")
        .expect("it is removed");
    eventually("the sandbox has ended", || !listed().contains("box10"));
    let state = agent.directory().join("state");
    eventually("the end is recorded", || {
        audit(&state)
            .iter()
            .any(|record| record.to_string().contains("is gone"))
    });
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn an_interface_that_cannot_be_governed_is_taken_down() {
    let Some(world) = world("interface: an interface that cannot be governed is taken down") else {
        return;
    };
    let container = Container::new(&world, 11);
    let steps = ["tcp-exchange 203.0.113.10:80 open"];
    container.attempt(&steps)[0].succeeded();
    let taken = world.near.run(|| {
        use rustix::net::{AddressFamily, SocketType, netdevice, socket};
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        egress_tests::bpf::fill_interface(netdevice::name_to_index(any, "box11")?)
    });
    if let Err(error) = taken {
        // Without `tcx` there is one place, and a qdisc of another kind takes it.
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        let mut foreign = std::process::Command::new("tc");
        foreign.args(["qdisc", "add", "dev", "box11", "ingress"]);
        let status = world.near.run(|| foreign.status()).expect("tc starts");
        assert!(status.success(), "a foreign qdisc");
    }
    let policy = format!("{ONE_NETWORK}applies_to:\n  - interface: \"box*\"\n");
    let agent = Agent::start(&world, &[("one-network", &policy)]);
    let state = agent.directory().join("state");
    eventually("it is recorded as taken down", || {
        audit(&state)
            .iter()
            .any(|record| record.to_string().contains("is taken down, because"))
    });
    container.attempt(&steps)[0].failed();
    // Who raises it does not open it for longer than a look takes.
    world
        .near
        .configure("link set box11 up\n")
        .expect("root can raise it");
    eventually("it is down again", || !container.attempt(&steps)[0].ok);
}

#[test]
fn a_bare_interface_is_denied_until_it_can_have_a_policy() {
    let Some(world) = world("interface: a bare interface is denied until it can have a policy")
    else {
        return;
    };
    let policy = format!("{ONE_NETWORK}applies_to:\n  - interface: \"bare*\"\n");
    let agent = Agent::start(&world, &[("one-network", &policy)]);
    let inside = egress_tests::Namespace::new().expect("root can make namespaces");
    // The host has no address on it yet.
    world
        .near
        .configure(&format!(
            "link add bare0 type veth peer name eth0 netns {}\nlink set bare0 up\n",
            inside.path()
        ))
        .expect("a veth");
    let state = agent.directory().join("state");
    eventually("it is recorded as denied", || {
        audit(&state)
            .iter()
            .any(|record| record.to_string().contains("is denied until"))
    });
    inside
        .configure(
            "addr add 198.18.40.2/30 dev eth0\nlink set eth0 up\nroute add default via 198.18.40.1\n",
        )
        .expect("the inside of it");
    world
        .near
        .configure("addr add 198.18.40.1/30 dev bare0\n")
        .expect("an address");
    let probe = |step: &str| {
        let mut probe = std::process::Command::new(world.probe());
        probe.arg(step);
        let run = inside.run(|| egress_tests::process::Running::start(&mut probe));
        egress_tests::product::Outcome::of(run.expect("the probe starts"))
    };
    eventually("it has a policy", || {
        probe("tcp-exchange 203.0.113.10:80 open")[0].ok
    });
    probe("tcp-exchange 203.0.113.66:80 secret")[0].failed();
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}
