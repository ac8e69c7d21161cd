//! One sandbox never acts with the permissions of another, whatever happens to
//! its sockets: the cases in which the socket's sandbox and the process's are
//! not the same.

mod policy;

use egress_tests::address::{ALLOWED_V4, SECOND_V4};
use egress_tests::probe::{PROGRAM, rest, until_pause};
use egress_tests::process::{Running, descendants};
use egress_tests::product::Agent;
use egress_tests::{World, cgroup};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The far end that sandbox A may reach.
const OF_A: &str = "203.0.113.10:443";
/// The far end that sandbox B may reach.
const OF_B: &str = "203.0.113.20:443";

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    world.dns.resolve("second.example", &[SECOND_V4.into()]);
    assert_eq!(OF_A, SocketAddr::from((ALLOWED_V4, 443)).to_string());
    assert_eq!(OF_B, SocketAddr::from((SECOND_V4, 443)).to_string());
    Some(world)
}

fn agent(world: &World) -> Agent<'_> {
    Agent::start(
        world,
        &[
            ("one-name", policy::ONE_NAME),
            ("second-name", policy::SECOND_NAME),
        ],
    )
}

/// The probe's process and its cgroup.
fn place(run: &Running) -> (u32, PathBuf) {
    let probes = descendants(run.pid(), PROGRAM);
    let &[pid] = probes.as_slice() else {
        panic!("not one probe: {probes:?}")
    };
    (pid, cgroup::of(pid).expect("every process has a cgroup"))
}

#[test]
fn a_socket_keeps_its_sandbox_when_its_owner_moves() {
    let Some(world) = world("cross-sandbox: owner moves") else {
        return;
    };
    let agent = agent(&world);
    // B has resolved its name, so that its grant is there to be misused.
    let mut b = agent.probe("b", "second-name", &["resolve second.example", "pause"]);
    until_pause(&mut b)[0].succeeded();
    let steps = [
        "open t tcp4",
        "open u udp4",
        "pause",
        &format!("connect t {OF_B}"),
        &format!("send-to u {OF_B} secret"),
        &format!("connect u {OF_B}"),
        "send u secret",
    ];
    let mut a = agent.probe("a", "one-name", &steps);
    until_pause(&mut a);
    let (mover, _) = place(&a);
    let (_, home_of_b) = place(&b);
    std::fs::write(home_of_b.join("cgroup.procs"), mover.to_string()).expect("root may move it");
    let attempts = rest(a);
    attempts[0].failed();
    attempts[1].failed();
    attempts[3].failed();
    rest(b);
    world.nothing_escaped(&[]);
}

#[test]
fn a_socket_that_is_passed_on_keeps_its_sandbox() {
    let Some(world) = world("cross-sandbox: passed socket") else {
        return;
    };
    let agent = agent(&world);
    let meeting = world.fresh_directory();
    std::fs::set_permissions(
        &meeting,
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("the directory is the test's own");
    let path = meeting.join("hand-over.sock");
    let give = format!("give s {}", path.display());
    let a = agent.probe("a", "one-name", &["open s tcp4", &give]);
    for _ in 0..500 {
        if path.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let take = format!("take s {}", path.display());
    let connect = format!("connect s {OF_B}");
    let mut b = agent.probe(
        "b",
        "second-name",
        &["resolve second.example", &take, &connect, "pause"],
    );
    let attempts = until_pause(&mut b);
    attempts[0].succeeded();
    // Whether the launcher already prevents the meeting is its affair.
    attempts[2].failed();
    rest(b);
    drop(a);
    world.nothing_escaped(&[]);
}

#[test]
fn sandboxes_do_not_reach_each_others_listeners() {
    let Some(world) = world("cross-sandbox: listeners") else {
        return;
    };
    let agent = agent(&world);
    let mut a = agent.probe("a", "one-name", &["listen l 127.0.0.1:7701", "pause"]);
    until_pause(&mut a)[0].succeeded();
    let connect = [
        "tcp-exchange 127.0.0.1:7701 secret",
        "self-tcp 127.0.0.1:0 own",
        "pause",
    ];
    let mut b = agent.probe("b", "second-name", &connect);
    let attempts = until_pause(&mut b);
    attempts[0].refused();
    attempts[1].succeeded();
    rest(a);
    rest(b);
}

#[test]
fn an_accepted_socket_belongs_to_the_sandbox_that_listened() {
    let Some(world) = world("cross-sandbox: accepted socket") else {
        return;
    };
    let agent = agent(&world);
    let steps = [
        "listen l 0.0.0.0:7702",
        "pause",
        "accept l c",
        "send c secret",
    ];
    let mut a = agent.probe("a", "one-name", &steps);
    until_pause(&mut a)[0].succeeded();
    let from_far = world.far.run(|| {
        let address = SocketAddr::from((egress_tests::address::NEAR_V4, 7702));
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1))
    });
    assert!(from_far.is_err(), "{from_far:?}");
    let attempts = rest(a);
    attempts[0].failed();
    world.nothing_escaped(&[]);
}

#[test]
fn a_grant_of_one_sandbox_is_no_grant_of_another() {
    let Some(world) = world("cross-sandbox: grants") else {
        return;
    };
    let agent = agent(&world);
    let connect = format!("tcp-exchange {OF_B} hello");
    let mut b = agent.probe(
        "b",
        "second-name",
        &["resolve second.example", connect.as_str(), "pause"],
    );
    until_pause(&mut b)[1].succeeded();
    let mut a = agent.probe(
        "a",
        "one-name",
        &["resolve second.example", connect.as_str(), "pause"],
    );
    let attempts = until_pause(&mut a);
    attempts[0].failed();
    attempts[1].refused();
    rest(a);
    rest(b);
}

#[test]
fn enforcement_goes_on_when_the_agent_is_killed() {
    let Some(world) = world("cross-sandbox: dead agent") else {
        return;
    };
    let mut agent = agent(&world);
    let steps = [
        "named-exchange allowed.example 443 before",
        "pause",
        &format!("tcp-exchange {OF_A} after"),
        &format!("tcp-exchange {OF_B} secret"),
        "resolve allowed.example",
    ];
    let mut a = agent.probe("a", "one-name", &steps);
    until_pause(&mut a)[0].succeeded();
    agent.kill();
    let attempts = rest(a);
    attempts[0].succeeded();
    attempts[1].refused();
    attempts[2].failed();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}
