//! Commands with a network namespace of their own: `egressctl run --netns`.

use crate::frames::{ethernet, udp, v4};
use crate::life::eventually;
use crate::policy::ONE_NAME;
use crate::scene::{nothing_escaped, world};
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4, OTHER_RESOLVER_V4};
use egress_tests::probe::{rest, until_pause};
use egress_tests::process::Running;
use egress_tests::product::{Agent, Outcome};
use egress_tests::raw::{RawSocket, Way};
use egress_tests::{Namespace, World};
use std::fs;
use std::net::Ipv4Addr;

const IPV4: u16 = 0x0800;
const UDP: u8 = 17;

/// Lets the probe begin these steps in a sandbox with a network of its own.
fn start(agent: &Agent<'_>, world: &World, name: &str, steps: &[&str]) -> Running {
    let probe = world.probe();
    let probe = probe.to_str().expect("the probe's path is text");
    let mut arguments = vec![
        "run", "--netns", "--name", name, "--policy", "one-name", "--", probe,
    ];
    arguments.extend(steps);
    agent.egressctl(&arguments).expect("egressctl starts")
}

/// The namespace of a sandbox that runs.
fn namespace(agent: &Agent<'_>, name: &str) -> Namespace {
    let processes = agent.root_directory().join(name).join("cgroup.procs");
    let processes = fs::read_to_string(processes).expect("the sandbox runs");
    let first = processes.lines().next().expect("it has a process");
    Namespace::open(&format!("/proc/{first}/ns/net")).expect("the process runs")
}

/// The interfaces of the near side, apart from those that it had before.
fn pairs(world: &World) -> Vec<String> {
    let read = || fs::read_to_string("/proc/thread-self/net/dev").expect("a namespace has devices");
    let names = world.near.run(read);
    let names = names.lines().filter_map(|line| line.split_once(':'));
    let names = names.map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name.starts_with("egress")).collect()
}

#[test]
fn a_command_with_a_network_of_its_own_reaches_what_its_policy_opens_and_leaves_nothing() {
    let Some(world) = world(
        "interface: a command with a network of its own reaches what its policy opens and leaves nothing",
    ) else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let other = format!("dns-udp {OTHER_RESOLVER_V4}:53 1 allowed.example");
    let tcp = format!("dns-tcp {OTHER_RESOLVER_V4}:53 1 allowed.example allowed.example");
    let steps = [
        "named-exchange allowed.example 443 mine",
        &other,
        &tcp,
        "tcp-exchange 203.0.113.10:80 other-port",
        "tcp-exchange 203.0.113.66:443 forbidden",
        "resolve forbidden.example",
        "udp-send 203.0.113.10:443 datagram",
    ];
    let outcome = Outcome::of(start(&agent, &world, "own", &steps));
    assert_eq!(outcome.attempts.len(), steps.len(), "{outcome:#?}");
    outcome[0].succeeded();
    for asked in [1, 2] {
        let got = outcome[asked].succeeded();
        assert!(got.contains(&ALLOWED_V4.to_string()), "{got}");
    }
    for refused in 3..6 {
        outcome[refused].failed();
    }
    nothing_escaped(&world, &[(ALLOWED_V4, 443).into()]);
    assert!(
        world.other_dns.asked().is_empty(),
        "another resolver was asked"
    );
    assert_eq!(pairs(&world), [""; 0], "an interface stays behind");
}

#[test]
fn root_in_a_network_of_its_own_gets_no_frame_past_its_interface() {
    let Some(world) =
        world("interface: root in a network of its own gets no frame past its interface")
    else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let steps = ["named-exchange allowed.example 443 before", "pause"];
    let mut running = start(&agent, &world, "own", &steps);
    until_pause(&mut running)[0].succeeded();
    let inside = namespace(&agent, "own");
    let pair = pairs(&world);
    assert_eq!(pair, ["egress0"]);
    let (own, gateway) = (Ipv4Addr::new(100, 96, 0, 2), Ipv4Addr::new(100, 96, 0, 1));
    let (here, host) = ([2, 0x65, 0x67, 0, 0, 2], [2, 0x65, 0x67, 0, 0, 1]);
    let frame = |from: Ipv4Addr, to: Ipv4Addr, port: u16| {
        let body = udp((from.into(), to.into()), (4000, port), b"secret");
        ethernet(host, here, IPV4, &v4((from, to), UDP, &[], 0, &body))
    };
    for way in [Way::Usual, Way::Bypass] {
        let raw = RawSocket::open(&inside, "eth0", way).expect("a raw socket");
        for frame in [
            frame(own, FORBIDDEN_V4, 443),
            frame(own, ALLOWED_V4, 443),
            frame(own, OTHER_RESOLVER_V4, 53),
            frame(gateway, ALLOWED_V4, 443),
            frame(own, gateway, 443),
        ] {
            // The device may refuse it itself, which is as good.
            let _ = raw.send(&frame);
        }
    }
    world.settle();
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
    assert!(
        world.other_dns.asked().is_empty(),
        "another resolver was asked"
    );
    // Denials are folded for a while before they are recorded.
    let told = || {
        let mut records = agent.audit().into_iter();
        records.any(|record| record.to_string().contains("interface_leaves"))
    };
    eventually("what was refused at the interface is recorded", told);
    drop(rest(running));
}

#[test]
fn two_networks_do_not_share_grants_and_the_next_agent_answers_in_both() {
    let Some(world) =
        world("interface: two networks do not share grants and the next agent answers in both")
    else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let first = [
        "named-exchange allowed.example 443 mine",
        "pause",
        "named-exchange allowed.example 443 again",
    ];
    let second = [
        "tcp-exchange 203.0.113.10:443 not-mine",
        "pause",
        "named-exchange allowed.example 443 now-mine",
    ];
    let mut first = start(&agent, &world, "first", &first);
    until_pause(&mut first)[0].succeeded();
    let mut second = start(&agent, &world, "second", &second);
    until_pause(&mut second)[0].failed();
    agent.kill();
    agent.launch();
    for run in [first, second] {
        rest(run)[0].succeeded();
    }
}

#[test]
fn a_host_that_does_not_forward_is_told_what_is_missing() {
    let Some(world) = world("interface: a host that does not forward is told what is missing")
    else {
        return;
    };
    world
        .near
        .set("ipv4/ip_forward", "0")
        .expect("the near side is the test's");
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let (status, lines, errors) =
        start(&agent, &world, "own", &["resolve allowed.example"]).finish();
    assert!(!status.success());
    assert!(errors.contains("net.ipv4.ip_forward"), "{lines:?} {errors}");
    assert_eq!(pairs(&world), [""; 0], "an interface stays behind");
}
