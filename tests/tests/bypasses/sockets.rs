//! Kinds of sockets, and options that send or steer.

use crate::policy::{ONE_NAME, ONE_NAME_UDP};
use crate::scene::{attempt, hexadecimal, world};
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6};
use std::net::SocketAddr;

#[test]
fn internet_sockets_of_other_kinds_cannot_be_made_even_where_the_kernel_would_let() {
    let Some(world) = world("bypass: socket kinds") else {
        return;
    };
    // Without this the kernel itself refuses ping sockets.
    world
        .near
        .set("ipv4/ping_group_range", "0 2147483647")
        .expect("the namespace is the test's own");
    const KINDS: [(&str, &str); 12] = [
        ("ping", "2 2 1"),
        ("ping over IPv6", "10 2 58"),
        ("MPTCP", "2 1 262"),
        ("MPTCP over IPv6", "10 1 262"),
        ("UDP-Lite", "2 2 136"),
        ("SMC as a transport (Linux 6.11)", "2 1 256"),
        ("SMC as a transport over IPv6", "10 1 256"),
        ("QUIC in the kernel", "2 1 261"),
        ("Homa", "2 2 146"),
        ("raw", "2 3 255"),
        ("raw IPv6", "10 3 255"),
        ("raw UDP", "2 3 17"),
    ];
    let steps = KINDS.map(|(_, kind)| format!("make s {kind}"));
    let outcome = attempt(&world, ONE_NAME, &steps.each_ref().map(String::as_str));
    for (index, (name, _)) in KINDS.iter().enumerate() {
        // Some kernels are built without MPTCP or UDP-Lite.
        let expected = [Some(libc::EPROTONOSUPPORT), Some(libc::EPERM)];
        let attempt = &outcome[index];
        assert!(expected.contains(&attempt.errno), "{name}: {attempt:?}");
    }
    outcome[0].refused();
    outcome[1].refused();
    world.nothing_escaped(&[]);
}

#[test]
fn transports_without_address_hooks_cannot_be_used() {
    let Some(world) = world("bypass: SCTP, DCCP, L2TP") else {
        return;
    };
    let steps = [
        "make s 2 1 132",
        "make s 2 5 132",
        "make s 2 6 33",
        "make s 2 2 115",
    ];
    let outcome = attempt(&world, ONE_NAME, &steps);
    for step in 0..steps.len() {
        // A kernel without the protocol has no socket to refuse.
        outcome[step].failed();
    }
    world.nothing_escaped(&[]);
}

#[test]
fn families_that_no_hook_sees_are_refused() {
    let Some(world) = world("bypass: socket families") else {
        return;
    };
    // Every family but UNIX, INET, INET6 and NETLINK: packet, vsock, XDP, TIPC, …
    let families = (0..=45).filter(|family| ![1, 2, 10, 16].contains(family));
    let steps: Vec<String> = families
        .flat_map(|family| [2, 3].map(|kind| format!("make s {family} {kind} 0")))
        .collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, ONE_NAME, &steps);
    for attempt in &outcome.attempts {
        attempt.refused();
    }
}

#[test]
fn netlink_asks_the_kernel_and_nobody_else() {
    let Some(world) = world("bypass: netlink") else {
        return;
    };
    // NETLINK_ROUTE, NETLINK_USERSOCK.
    let outcome = attempt(&world, ONE_NAME, &["make s 16 3 0", "make s 16 3 2"]);
    outcome[0].succeeded();
    outcome[1].refused();
}

#[test]
fn options_that_send_or_steer_are_refused_on_every_kind_of_socket() {
    let Some(world) = world("bypass: socket options") else {
        return;
    };
    #[rustfmt::skip]
    const OPTIONS: [(&str, &str); 27] = [
        ("SO_MARK", "1 36 01000000"),
        ("SO_MAX_PACING_RATE", "1 47 01000000"),
        ("SO_TXTIME", "1 61 0100000000000000"),
        ("TCP_TX_DELAY", "6 37 80969800"),
        ("SO_BINDTODEVICE", "1 25 6e65617200"),
        ("SO_BINDTOIFINDEX", "1 62 02000000"),
        ("SO_ATTACH_REUSEPORT_CBPF", "1 51 00000000000000000000000000000000"),
        ("SO_ATTACH_REUSEPORT_EBPF", "1 52 00000000"),
        ("IP_HDRINCL", "0 3 01000000"),
        ("IP_OPTIONS", "0 4 830704c0000201"),
        ("IP_RETOPTS", "0 7 01000000"),
        ("IP_FREEBIND", "0 15 01000000"),
        ("IP_TRANSPARENT", "0 19 01000000"),
        ("IP_MULTICAST_IF", "0 32 c6130002"),
        ("IP_ADD_MEMBERSHIP", "0 35 ef424242c6130002"),
        ("IP_ADD_SOURCE_MEMBERSHIP", "0 39 ef424242c6130002cb00710a"),
        ("IP_UNICAST_IF", "0 50 00000002"),
        ("TCP_REPAIR", "6 19 01000000"),
        ("IPV6_JOIN_GROUP", "41 20 ff0500000000000000004b585345435202000000"),
        ("IPV6_JOIN_ANYCAST", "41 27 20010db800010000000000000000000202000000"),
        ("IPV6_FLOWLABEL_MGR", "41 32 0000000000000000000000000000000000000000000000000000000000000000"),
        ("IPV6_PKTINFO", "41 50 0000000000000000000000000000000002000000"),
        ("IPV6_HOPOPTS", "41 54 0000000000000000"),
        ("IPV6_RTHDR", "41 57 0002040000000000"),
        ("IPV6_DSTOPTS", "41 59 0000000000000000"),
        ("IPV6_UNICAST_IF", "41 76 00000002"),
        ("IPV6_FREEBIND", "41 78 01000000"),
    ];
    for kind in ["udp4", "udp6", "tcp6"] {
        let mut steps = vec![format!("open s {kind}")];
        steps.extend(OPTIONS.map(|(_, option)| format!("option s {option}")));
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let outcome = attempt(&world, ONE_NAME, &steps);
        for (index, (name, _)) in OPTIONS.iter().enumerate() {
            let attempt = &outcome[index + 1];
            let refused = attempt.errno == Some(libc::EPERM);
            assert!(refused, "{kind} {name}: {attempt:?}");
        }
    }
    world.nothing_escaped(&[]);
}

#[test]
fn control_messages_do_not_route_a_datagram_elsewhere() {
    let Some(world) = world("bypass: source routes") else {
        return;
    };
    // Loose source route over one host to the other.
    let loose = |hop: [u8; 4]| {
        let mut option = vec![131, 7, 4];
        option.extend(hop);
        option.push(0);
        hexadecimal(&option)
    };
    // Type 2 routing header, the one that a control message may hold.
    let over = |hop: [u8; 16]| {
        let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
        header.extend(hop);
        hexadecimal(&header)
    };
    let (good4, bad4) = (ALLOWED_V4, FORBIDDEN_V4);
    let (good6, bad6) = (ALLOWED_V6, FORBIDDEN_V6);
    let over_bad4 = loose(bad4.octets());
    let over_good4 = loose(good4.octets());
    let over_bad6 = over(bad6.octets());
    let over_good6 = over(good6.octets());
    let outcome = attempt(
        &world,
        ONE_NAME_UDP,
        &[
            "resolve allowed.example",
            "open u udp4",
            &format!("send-control u 0 {good4}:4433 0 7 {over_bad4} secret"),
            &format!("send-control u 0 {bad4}:4433 0 7 {over_good4} secret"),
            "open s udp6",
            &format!("send-control s 0 [{good6}]:4433 41 57 {over_bad6} secret"),
            &format!("send-control s 0 [{bad6}]:4433 41 57 {over_good6} secret"),
            // A hop-by-hop header that says nothing, to the allowed host.
            &format!("send-control s 0 [{good6}]:4433 41 54 0000010400000000 secret"),
        ],
    );
    // Some are accepted by the call and dropped by the gate: the wire decides.
    outcome[3].refused();
    outcome[6].failed();
    world.nothing_escaped(&[]);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn an_allowed_datagram_without_a_route_of_its_own_leaves() {
    let Some(world) = world("bypass: control for the control messages") else {
        return;
    };
    // Traffic class, which steers nothing: the harness can send what it means to.
    let send = format!("send-control s 0 [{ALLOWED_V6}]:4433 41 67 00000000 hello");
    let steps = ["resolve allowed.example", "open s udp6", send.as_str()];
    attempt(&world, ONE_NAME_UDP, &steps)[2].succeeded();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V6, 4433))]);
    assert!(world.sniffer.awaits(|packet| packet.carries(b"hello")));
}
