//! Others who act on the sandbox's behalf, and what is brought in from outside.

use crate::policy::ONE_NAME;
use crate::scene::{attempt, world};
use egress_tests::address::FORBIDDEN_V4;
use egress_tests::feature::{Feature, granted};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Stdio;

#[test]
fn an_abstract_unix_socket_outside_is_out_of_reach() {
    if !granted("bypass: abstract Unix socket", Feature::LandlockScopes) {
        return;
    }
    let Some(world) = world("bypass: abstract Unix socket") else {
        return;
    };
    let name = SocketAddr::from_abstract_name("egress-tests-bus").expect("a name");
    let listener = world.near.run(|| UnixListener::bind_addr(&name));
    let listener = listener.expect("the name is free in a fresh namespace");
    listener.set_nonblocking(true).expect("a listener");
    let steps = ["connect-unix @egress-tests-bus", "self-unix own-name"];
    let outcome = attempt(&world, ONE_NAME, &steps);
    outcome[0].refused();
    outcome[1].succeeded();
    assert!(listener.accept().is_err(), "somebody came through");
}

#[test]
fn an_internet_socket_as_a_standard_stream_starts_nothing() {
    let Some(world) = world("bypass: inherited socket") else {
        return;
    };
    let probe = world.probe();
    let sandbox = world.sandbox(ONE_NAME);
    let send = format!("send-to s {FORBIDDEN_V4}:443 secret");
    let steps = ["inherited s 0", send.as_str()];
    let mut command = sandbox.command(std::iter::once(probe.to_str().expect("text")).chain(steps));
    let outside: OwnedFd = world
        .near
        .run(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("a socket")
        .into();
    let output = world
        .near
        .run(|| command.stdin(Stdio::from(outside)).output())
        .expect("egressctl starts");
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("socket"), "{said}");
    world.nothing_escaped(&[]);
}

#[test]
fn devices_that_make_packets_are_hidden() {
    let Some(world) = world("bypass: devices") else {
        return;
    };
    // By absence and not by the mode of the file, which differs between hosts.
    let outcome = attempt(&world, ONE_NAME, &["write /dev/net/tun", "write /dev/null"]);
    outcome[0].refused_with(libc::ENOENT);
    outcome[1].succeeded();
}
