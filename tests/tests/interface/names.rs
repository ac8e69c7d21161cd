//! Names, and where they lead.

use crate::policy::{ONE_NAME, ONE_NETWORK};
use crate::scene::{Container, nothing_escaped, world};
use egress_tests::address::{
    ALLOWED_V4, ALLOWED_V6, OTHER_RESOLVER_V4, OTHER_RESOLVER_V6, UPSTREAM_V4,
};
use egress_tests::product::Agent;
use std::net::SocketAddr;

fn allowed() -> [SocketAddr; 2] {
    [(ALLOWED_V4, 443).into(), (ALLOWED_V6, 443).into()]
}

#[test]
fn an_allowed_name_is_reachable_through_an_interface_over_both_families() {
    let Some(world) =
        world("interface: an allowed name is reachable through an interface over both families")
    else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let container = Container::new(&world, 1);
    container.attach(&agent, "one-name");
    let v6 = format!("tcp-exchange [{ALLOWED_V6}]:443 six");
    let outcome = container.attempt(&[
        "named-exchange allowed.example 443 four",
        &v6,
        "resolve forbidden.example",
        "tcp-exchange 203.0.113.10:80 other-port",
        "tcp-exchange 203.0.113.66:443 forbidden",
        "udp-send 203.0.113.10:443 datagram",
    ]);
    outcome[0].succeeded();
    outcome[1].succeeded();
    outcome[2].failed();
    outcome[3].failed();
    outcome[4].failed();
    nothing_escaped(&world, &allowed());
}

#[test]
fn dns_to_any_server_comes_to_the_resolver_and_is_answered_by_who_was_asked() {
    let Some(world) = world(
        "interface: dns to any server comes to the resolver and is answered by who was asked",
    ) else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let container = Container::new(&world, 1);
    container.attach(&agent, "one-name");
    let servers = [
        format!("{OTHER_RESOLVER_V4}:53"),
        format!("[{OTHER_RESOLVER_V6}]:53"),
        format!("{}:53", container.v4(1)),
    ];
    let mut steps = Vec::new();
    for server in &servers {
        // The probe takes an answer from whom it asked only.
        steps.push(format!("dns-udp {server} 1 allowed.example"));
        steps.push(format!(
            "dns-tcp {server} 1 allowed.example allowed.example"
        ));
    }
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = container.attempt(&steps);
    for attempt in &outcome.attempts {
        let got = attempt.succeeded();
        assert!(got.contains(&ALLOWED_V4.to_string()), "{attempt:?}");
    }
    assert!(
        world.other_dns.asked().is_empty(),
        "another resolver was asked"
    );
    nothing_escaped(&world, &[(UPSTREAM_V4, 53).into()]);
}

#[test]
fn a_network_rule_holds_behind_an_interface_and_nothing_is_open_before_it_is_attached() {
    let Some(world) = world(
        "interface: a network rule holds behind an interface and nothing is open before it is attached",
    ) else {
        return;
    };
    let agent = Agent::start(&world, &[("one-network", ONE_NETWORK)]);
    let container = Container::new(&world, 2);
    // The harness itself works: without a policy everything is open.
    container.attempt(&["tcp-exchange 203.0.113.10:443 before"])[0].succeeded();
    container.attach(&agent, "one-network");
    let outcome = container.attempt(&[
        "tcp-exchange 203.0.113.10:80 inside",
        "tcp-exchange 203.0.113.10:443 other-port",
        "tcp-exchange 203.0.113.66:80 outside",
    ]);
    outcome[0].succeeded();
    outcome[1].failed();
    outcome[2].failed();
}

#[test]
fn sandboxes_behind_interfaces_do_not_share_grants_and_nobody_connects_to_them() {
    let Some(world) = world(
        "interface: sandboxes behind interfaces do not share grants and nobody connects to them",
    ) else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let (first, second) = (Container::new(&world, 3), Container::new(&world, 4));
    first.attach(&agent, "one-name");
    second.attach(&agent, "one-name");
    first.attempt(&["named-exchange allowed.example 443 mine"])[0].succeeded();
    second.attempt(&["tcp-exchange 203.0.113.10:443 not-mine"])[0].failed();
    // From outside, and from one to the other.
    let listener = first.start(&["listen l 0.0.0.0:7000", "pause"]);
    let address = SocketAddr::from((first.v4(2), 7000));
    let patience = std::time::Duration::from_secs(2);
    let outside = world
        .far
        .run(|| std::net::TcpStream::connect_timeout(&address, patience));
    assert!(outside.is_err(), "somebody outside connected");
    second.attempt(&[&format!("tcp-exchange {address} hello")])[0].failed();
    drop(listener);
}
