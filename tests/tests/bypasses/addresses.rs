//! Ways to name a destination, or to change it after it was judged.

use crate::policy::{ONE_NAME, ONE_NAME_UDP};
use crate::scene::{attempt, hexadecimal, world};
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6, NEAR_V4};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

/// `MSG_MORE` (include/linux/socket.h).
const MORE: i32 = 0x8000;
/// `MSG_FASTOPEN`.
const FAST_OPEN: i32 = 0x2000_0000;

fn udp() -> [SocketAddr; 2] {
    [
        SocketAddr::from((ALLOWED_V4, 4433)),
        SocketAddr::from((ALLOWED_V6, 4433)),
    ]
}

#[test]
fn a_socket_does_not_move_from_an_allowed_peer_to_another() {
    let Some(world) = world("bypass: reconnect") else {
        return;
    };
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            "resolve allowed.example",
            "open t tcp4",
            &format!("connect t {ALLOWED_V4}:443"),
            "disconnect t",
            &format!("connect t {FORBIDDEN_V4}:443"),
        ],
    );
    outcome[2].succeeded();
    outcome[3].succeeded();
    outcome[4].refused();
    let outcome = attempt(
        &world,
        ONE_NAME_UDP,
        &[
            "resolve allowed.example",
            "open u udp4",
            &format!("connect u {ALLOWED_V4}:4433"),
            "send u hello",
            &format!("send-to u {FORBIDDEN_V4}:4433 secret"),
            "disconnect u",
            &format!("connect u {FORBIDDEN_V4}:4433"),
            "send u secret",
        ],
    );
    outcome[3].succeeded();
    outcome[4].refused();
    outcome[7].refused();
    let allowed = [SocketAddr::from((ALLOWED_V4, 443)), udp()[0]];
    world.nothing_escaped(&allowed);
}

#[test]
fn an_address_of_another_family_than_the_socket_is_judged_all_the_same() {
    let Some(world) = world("bypass: address families") else {
        return;
    };
    // `struct sockaddr_in` with family 0, which UDP takes for AF_INET.
    let mut unspecified = vec![0, 0];
    unspecified.extend(4433_u16.to_be_bytes());
    unspecified.extend(FORBIDDEN_V4.octets());
    unspecified.extend([0; 8]);
    let outcome = attempt(
        &world,
        ONE_NAME_UDP,
        &[
            "resolve allowed.example",
            "open u udp4",
            &format!("send-raw u {} secret", hexadecimal(&unspecified)),
            "open s udp6",
            &format!("send-to s {FORBIDDEN_V4}:4433 secret"),
            &format!("connect s {FORBIDDEN_V4}:4433"),
            "send s secret",
        ],
    );
    for step in [2, 4, 6] {
        outcome[step].refused();
    }
    world.nothing_escaped(&udp());
}

#[test]
fn what_is_appended_to_a_corked_datagram_goes_where_that_goes() {
    let Some(world) = world("bypass: corked datagram") else {
        return;
    };
    let outcome = attempt(
        &world,
        ONE_NAME_UDP,
        &[
            "resolve allowed.example",
            "open u udp4",
            &format!("send-flags u {MORE} {ALLOWED_V4}:4433 one"),
            &format!("send-flags u 0 {FORBIDDEN_V4}:4433 two"),
        ],
    );
    outcome[2].succeeded();
    world.nothing_escaped(&udp());
}

#[test]
fn fast_open_connects_nowhere_else() {
    let Some(world) = world("bypass: TCP Fast Open") else {
        return;
    };
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            "open a tcp4",
            &format!("send-flags a {FAST_OPEN} {FORBIDDEN_V4}:443 secret"),
            "open b tcp6",
            &format!("send-flags b {FAST_OPEN} [{FORBIDDEN_V6}]:443 secret"),
            "open c tcp6",
            &format!("send-flags c {FAST_OPEN} [::ffff:{FORBIDDEN_V4}]:443 secret"),
            "open d tcp4",
            // TCP_FASTOPEN_CONNECT: the connect waits for the first data.
            "option d 6 30 01000000",
            &format!("connect d {FORBIDDEN_V4}:443"),
        ],
    );
    for step in [1, 3, 5, 8] {
        outcome[step].refused();
    }
    outcome[7].succeeded();
    world.nothing_escaped(&[]);
}

#[test]
fn a_large_datagram_is_judged_whole() {
    let Some(world) = world("bypass: fragments") else {
        return;
    };
    let large = "x".repeat(6000);
    let outcome = attempt(
        &world,
        ONE_NAME_UDP,
        &[
            "resolve allowed.example",
            &format!("udp-send {FORBIDDEN_V4}:4433 {large}"),
            &format!("udp-send [{FORBIDDEN_V6}]:4433 {large}"),
            &format!("udp-connect-send {FORBIDDEN_V4}:4433 {large}"),
        ],
    );
    for step in 1..=3 {
        outcome[step].refused();
    }
    world.nothing_escaped(&[]);
}

#[test]
fn addresses_that_are_no_host_of_the_policy_are_refused() {
    let Some(world) = world("bypass: special addresses") else {
        return;
    };
    const NOBODYS: [&str; 13] = [
        "224.0.0.251",
        "239.1.2.3",
        "255.255.255.255",
        "198.19.0.3",
        "169.254.169.254",
        "10.0.0.1",
        "100.100.100.200",
        "[fd00:ec2::254]",
        "[2002:cb00:7142::1]",
        "[2001:0:cb00:7142::1]",
        "[64:ff9b::cb00:7142]",
        "[64:ff9b:1::cb00:7142]",
        "[::203.0.113.66]",
    ];
    let mut steps = vec!["resolve allowed.example".to_owned()];
    for address in NOBODYS {
        let kind = if address.starts_with('[') {
            "udp6"
        } else {
            "udp4"
        };
        steps.push(format!("open u {kind}"));
        // SO_BROADCAST, without which the kernel itself refuses some of them.
        steps.push("option u 1 6 01000000".to_owned());
        steps.push(format!("send-to u {address}:4433 secret"));
    }
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, ONE_NAME_UDP, &steps);
    for index in 0..NOBODYS.len() {
        outcome[3 + 3 * index].refused();
    }
    world.nothing_escaped(&[]);
}

#[test]
fn the_unspecified_address_and_the_hosts_own_are_no_way_to_its_services() {
    let Some(world) = world("bypass: own addresses") else {
        return;
    };
    let listener = world.near.run(|| TcpListener::bind("[::]:7714"));
    let listener = listener.expect("the port is free in a fresh namespace");
    listener.set_nonblocking(true).expect("a listener");
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            "tcp-exchange 0.0.0.0:7714 secret",
            "tcp-exchange [::]:7714 secret",
            "tcp-exchange [::ffff:0.0.0.0]:7714 secret",
            "tcp-exchange 127.1.2.3:7714 secret",
            &format!("tcp-exchange {NEAR_V4}:7714 secret"),
        ],
    );
    for step in 0..5 {
        outcome[step].refused();
    }
    assert!(listener.accept().is_err(), "somebody came through");
}

#[test]
fn what_is_refused_causes_no_question_on_the_link() {
    let Some(world) = world("bypass: neighbour discovery") else {
        return;
    };
    // A neighbour on the link, so that the kernel would have to ask for it.
    let neighbour = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0x5345, 0x4352, 0x4554);
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            &format!("udp-send [{neighbour}]:443 secret"),
            &format!("udp-connect-send [{neighbour}]:443 secret"),
            &format!("tcp-exchange [{neighbour}]:443 secret"),
        ],
    );
    for step in 0..3 {
        outcome[step].refused();
    }
    world.settle();
    let asked = world
        .sniffer
        .saw(|packet| packet.carries(&neighbour.octets()));
    assert!(!asked, "the link was asked for {neighbour}");
}
