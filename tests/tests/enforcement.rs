//! What policy allows is reachable, and nothing else is: each judged by a
//! sniffer on the far side of the link.

mod policy;

use egress_tests::World;
use egress_tests::address::{
    ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6, NEAR_V4, OTHER_RESOLVER_V4,
    OTHER_RESOLVER_V6,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// The far ends that [`policy::ONE_NAME`] opens.
fn allowed() -> [SocketAddr; 2] {
    [
        SocketAddr::from((ALLOWED_V4, 443)),
        SocketAddr::from((ALLOWED_V6, 443)),
    ]
}

/// A world in which the allowed and a forbidden name exist.
fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world
        .dns
        .resolve("allowed.example", &[ALLOWED_V4.into(), ALLOWED_V6.into()]);
    world.dns.resolve(
        "forbidden.example",
        &[FORBIDDEN_V4.into(), FORBIDDEN_V6.into()],
    );
    Some(world)
}

#[test]
fn an_allowed_name_is_reachable_over_both_families() {
    let Some(world) = world("enforcement: allowed name") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        "resolve allowed.example",
        &format!("tcp-exchange {ALLOWED_V4}:443 hello-four"),
        &format!("tcp-exchange [{ALLOWED_V6}]:443 hello-six"),
        "named-exchange allowed.example 443 hello-name",
    ]);
    let addresses = outcome[0].addresses();
    assert!(addresses.contains(&ALLOWED_V4.into()) && addresses.contains(&ALLOWED_V6.into()));
    for step in 1..=3 {
        outcome[step].succeeded();
    }
    assert!(outcome.status.success(), "{outcome:#?}");
    world.nothing_escaped(&allowed());
    assert!(world.sniffer.saw(|packet| packet.carries(b"hello-four")));
    assert!(world.sniffer.saw(|packet| packet.carries(b"hello-six")));
}

#[test]
fn an_allowed_address_that_was_never_resolved_is_refused() {
    let Some(world) = world("enforcement: unresolved address") else {
        return;
    };
    let steps = [format!("tcp-exchange {ALLOWED_V4}:443 hello")];
    let outcome = world
        .sandbox(policy::ONE_NAME)
        .attempt(&steps.each_ref().map(String::as_str));
    outcome[0].refused();
    world.nothing_escaped(&[]);
}

#[test]
fn an_allowed_address_is_open_on_the_allowed_port_and_protocol_only() {
    let Some(world) = world("enforcement: other ports") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        "resolve allowed.example",
        &format!("tcp-exchange {ALLOWED_V4}:80 hello"),
        &format!("tcp-exchange [{ALLOWED_V6}]:4433 hello"),
        &format!("udp-send {ALLOWED_V4}:443 hello"),
        &format!("udp-connect-send [{ALLOWED_V6}]:443 hello"),
    ]);
    for step in 1..=4 {
        outcome[step].refused();
    }
    world.nothing_escaped(&[]);
}

#[test]
fn another_name_does_not_resolve_and_is_never_forwarded() {
    let Some(world) = world("enforcement: other name") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        "resolve forbidden.example",
        "resolve secret.allowed.example",
        "named-exchange forbidden.example 443 hello",
    ]);
    for attempt in &outcome.attempts {
        attempt.failed();
    }
    assert_eq!(outcome.attempts.len(), 3, "{outcome:#?}");
    assert!(!world.dns.heard_of("forbidden.example"));
    assert!(!world.dns.heard_of("secret.allowed.example"));
    world.nothing_escaped(&[]);
}

#[test]
fn a_literal_address_is_refused_at_once_in_every_spelling() {
    let Some(world) = world("enforcement: literal addresses") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        &format!("tcp-exchange {FORBIDDEN_V4}:443 secret"),
        &format!("tcp-exchange [{FORBIDDEN_V6}]:443 secret"),
        &format!("tcp-exchange [::ffff:{FORBIDDEN_V4}]:443 secret"),
        &format!("udp-send {FORBIDDEN_V4}:443 secret"),
        &format!("udp-send [{FORBIDDEN_V6}]:443 secret"),
        &format!("udp-send [::ffff:{FORBIDDEN_V4}]:443 secret"),
        &format!("udp-connect-send {FORBIDDEN_V4}:443 secret"),
        &format!("udp-connect-send [{FORBIDDEN_V6}]:443 secret"),
        &format!("udp-connect-send [::ffff:{FORBIDDEN_V4}]:443 secret"),
    ]);
    assert_eq!(outcome.attempts.len(), 9, "{outcome:#?}");
    for attempt in &outcome.attempts {
        attempt.refused();
    }
    world.nothing_escaped(&[]);
}

#[test]
fn a_mapped_spelling_of_an_allowed_address_is_the_same_destination() {
    let Some(world) = world("enforcement: mapped address") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        "resolve allowed.example",
        &format!("tcp-exchange [::ffff:{ALLOWED_V4}]:443 hello"),
    ]);
    outcome[1].succeeded();
    world.nothing_escaped(&allowed());
}

#[test]
fn a_datagram_leaves_only_where_policy_opens_udp() {
    let Some(world) = world("enforcement: UDP") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME_UDP).attempt(&[
        "resolve allowed.example",
        &format!("udp-exchange {ALLOWED_V4}:4433 hello"),
        &format!("udp-exchange [{ALLOWED_V6}]:4433 hello"),
        "open u udp4",
        &format!("connect u {ALLOWED_V4}:4433"),
        "send u hello",
        &format!("send-to u {FORBIDDEN_V4}:4433 secret"),
        &format!("connect u {FORBIDDEN_V4}:4433"),
        "send u secret",
    ]);
    for step in [1, 2, 4, 5] {
        outcome[step].succeeded();
    }
    outcome[6].refused();
    // The connect itself sends nothing and is let pass, what it sends is not.
    outcome[7].succeeded();
    outcome[8].refused();
    world.nothing_escaped(&[
        SocketAddr::from((ALLOWED_V4, 4433)),
        SocketAddr::from((ALLOWED_V6, 4433)),
    ]);
}

#[test]
fn a_static_network_needs_no_name() {
    let Some(world) = world("enforcement: static network") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NETWORK).attempt(&[
        &format!("tcp-exchange {ALLOWED_V4}:80 hello"),
        &format!("tcp-exchange {ALLOWED_V4}:443 hello"),
        &format!("tcp-exchange {FORBIDDEN_V4}:80 secret"),
    ]);
    outcome[0].succeeded();
    outcome[1].refused();
    outcome[2].refused();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 80))]);
}

#[test]
fn no_other_resolver_hears_anything() {
    let Some(world) = world("enforcement: other resolvers") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        &format!("dns-udp {OTHER_RESOLVER_V4}:53 A allowed.example"),
        &format!("dns-udp [{OTHER_RESOLVER_V6}]:53 AAAA allowed.example"),
        &format!("dns-tcp {OTHER_RESOLVER_V4}:53 A allowed.example"),
        &format!("dns-udp {OTHER_RESOLVER_V4}:53 A forbidden.example"),
        &format!("tcp-exchange {OTHER_RESOLVER_V4}:853 hello"),
        &format!("udp-send {OTHER_RESOLVER_V4}:853 hello"),
    ]);
    // The agent answers in the place of whoever was asked.
    for step in 0..3 {
        assert!(
            outcome[step].succeeded().starts_with("code=0"),
            "{outcome:#?}"
        );
    }
    assert!(outcome[3].succeeded().starts_with("code=3"), "{outcome:#?}");
    outcome[4].refused();
    outcome[5].refused();
    assert_eq!(world.other_dns.asked(), []);
    world.nothing_escaped(&[]);
}

#[test]
fn loopback_listeners_of_others_are_closed_and_own_ones_are_open() {
    let Some(world) = world("enforcement: loopback") else {
        return;
    };
    let (tcp, tcp6, udp) = world.near.run(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let tcp6 = TcpListener::bind("[::1]:0").expect("loopback is up");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback is up");
        udp.set_nonblocking(true)
            .expect("a socket can be non-blocking");
        (tcp, tcp6, udp)
    });
    let (tcp_port, udp_port) = (port(tcp.local_addr()), port(udp.local_addr()));
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        &format!("tcp-exchange 127.0.0.1:{tcp_port} secret"),
        &format!("tcp-exchange 0.0.0.0:{tcp_port} secret"),
        &format!("tcp-exchange [::1]:{} secret", port(tcp6.local_addr())),
        &format!("tcp-exchange {NEAR_V4}:{tcp_port} secret"),
        &format!("udp-send 127.0.0.1:{udp_port} secret"),
        "self-tcp 127.0.0.1:0 own",
        "self-tcp [::1]:0 own",
        "self-udp 127.0.0.1:0 own",
        "self-udp [::1]:0 own",
    ]);
    for step in 0..5 {
        outcome[step].refused();
    }
    for step in 5..9 {
        outcome[step].succeeded();
    }
    let mut buffer = [0; 16];
    assert!(
        udp.recv(&mut buffer).is_err(),
        "the listener outside got {buffer:?}"
    );
}

/// Linux 6.18 has UDP-Lite, 7.2 has not: there, there is nothing to refuse.
fn kernel_has_udp_lite() -> bool {
    let protocol = Some(Protocol::from(libc::IPPROTO_UDPLITE));
    let made = Socket::new(Domain::IPV4, Type::DGRAM, protocol);
    !made.is_err_and(|error| error.raw_os_error() == Some(libc::EPROTONOSUPPORT))
}

#[test]
fn only_tcp_and_udp_sockets_can_be_made() {
    let Some(world) = world("enforcement: socket kinds") else {
        return;
    };
    let kinds = [
        // Family, type, protocol.
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
    ];
    let steps = kinds.map(|(family, kind, protocol)| format!("socket {family} {kind} {protocol}"));
    let sctp = format!(
        "socket {} {} {}",
        libc::AF_INET,
        libc::SOCK_STREAM,
        libc::IPPROTO_SCTP
    );
    let mut steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    steps.push(&sctp);
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&steps);
    for step in 0..kinds.len() {
        let attempt = &outcome[step];
        if kinds[step].2 == libc::IPPROTO_UDPLITE && !kernel_has_udp_lite() {
            attempt.failed();
            continue;
        }
        // Which of the two walls is met first depends on the socket's kind.
        let walls = [libc::EPERM, libc::EACCES];
        assert!(
            attempt.errno.is_some_and(|errno| walls.contains(&errno)),
            "{attempt:?}"
        );
    }
    // A kernel without SCTP has no socket to refuse.
    outcome[kinds.len()].failed();
    world.nothing_escaped(&[]);
}

#[test]
fn options_that_speak_or_steer_by_themselves_are_refused() {
    let Some(world) = world("enforcement: socket options") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        "join 239.66.66.66",
        "join ff05::4b58:5345:4352:4554",
        "bind-device near",
    ]);
    assert_eq!(outcome.attempts.len(), 3, "{outcome:#?}");
    for attempt in &outcome.attempts {
        attempt.refused();
    }
    world.nothing_escaped(&[]);
}

#[test]
fn nobody_outside_can_connect_to_a_sandbox() {
    let Some(world) = world("enforcement: inbound") else {
        return;
    };
    let mut run = world
        .sandbox(policy::ONE_NAME)
        .start(&["listen l 0.0.0.0:7777", "pause"]);
    while run.line().is_some_and(|line| !line.contains("\"pause\"")) {}
    let from_far = world.far.run(|| connect((NEAR_V4, 7777).into()));
    let from_near = world
        .near
        .run(|| connect("127.0.0.1:7777".parse().expect("an address")));
    assert!(
        from_far.is_err() && from_near.is_err(),
        "{from_far:?} {from_near:?}"
    );
    run.say("go on").expect("the probe waits");
    let (status, _, errors) = run.finish();
    assert!(status.success(), "{errors}");
    // Nothing at all came back, not even the first packet of a handshake.
    world.nothing_escaped(&[]);
}

#[test]
fn the_status_of_the_command_is_the_status_of_the_run() {
    let Some(world) = world("enforcement: exit status") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    for (script, code) in [("exit 0", 0), ("exit 41", 41)] {
        let (status, _, errors) = sandbox.run(["/bin/sh", "-c", script]).finish();
        assert_eq!(status.code(), Some(code), "{errors}");
    }
}

#[test]
fn every_decision_stands_in_the_audit_store() {
    let Some(world) = world("enforcement: audit") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    let outcome = sandbox.attempt(&[
        "named-exchange allowed.example 443 hello",
        "resolve forbidden.example",
        &format!("tcp-exchange {FORBIDDEN_V4}:443 secret"),
    ]);
    outcome[0].succeeded();
    let records: Vec<String> = sandbox.audit().iter().map(ToString::to_string).collect();
    let stands = |words: &[&str]| {
        let found = records
            .iter()
            .any(|record| words.iter().all(|word| record.contains(word)));
        assert!(found, "no record of {words:?} in {records:#?}");
    };
    stands(&["allowed.example", "443"]);
    stands(&["forbidden.example", "name_not_allowed"]);
    stands(&[&FORBIDDEN_V4.to_string(), "no_rule"]);
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, Duration::from_secs(1))
}

fn port(address: std::io::Result<SocketAddr>) -> u16 {
    address.expect("a bound socket has an address").port()
}
