//! A grant that lapses closes what begins, and spares what goes on.

mod policy;

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6};
use std::net::SocketAddr;

/// Opens `allowed.example` for HTTPS and for UDP on port 4433.
fn both_protocols() -> String {
    policy::changing(&["allowed.example"], policy::SHORT_GRANTS).replace(
        "dns:\n",
        "  quic:\n    - domain: \"allowed.example\"\n      ports: [4433]\n      protocols: [udp]\ndns:\n",
    )
}

#[test]
fn live_connections_outlive_their_grant_and_new_ones_do_not_begin() {
    let Some(world) = World::or_skip("expiry: live connections") else {
        return;
    };
    world
        .dns
        .resolve("allowed.example", &[ALLOWED_V4.into(), ALLOWED_V6.into()]);
    let sandbox = world.sandbox(&both_protocols());
    let outcome = sandbox.attempt(&[
        "resolve allowed.example",
        "open t tcp4",
        &format!("connect t {ALLOWED_V4}:443"),
        "send t one",
        "receive t",
        "resolve allowed.example",
        "open u udp6",
        &format!("connect u [{ALLOWED_V6}]:4433"),
        "send u one",
        "receive u",
        "resolve allowed.example",
        "open d udp4",
        &format!("send-to d {ALLOWED_V4}:4433 one"),
        "receive d",
        // Two seconds to live, and no grace.
        "sleep 3000",
        "send t two",
        "receive t",
        "send u two",
        "receive u",
        &format!("send-to d {ALLOWED_V4}:4433 secret"),
        &format!("tcp-exchange {ALLOWED_V4}:443 secret"),
        &format!("tcp-exchange [{ALLOWED_V6}]:443 secret"),
        &format!("udp-connect-send {ALLOWED_V4}:4433 secret"),
        &format!("udp-send [{ALLOWED_V6}]:4433 secret"),
        // Resolving again opens all of it again.
        "resolve allowed.example",
        &format!("tcp-exchange {ALLOWED_V4}:443 three"),
        &format!("send-to d {ALLOWED_V4}:4433 three"),
    ]);
    for step in (0..19).chain(24..27) {
        outcome[step].succeeded();
    }
    for step in 19..24 {
        outcome[step].refused();
    }
    let lapsed = sandbox
        .audit()
        .iter()
        .filter(|record| record["reason"] == "lapsed_grant")
        .count();
    // By protocol and address: TCP and UDP over both families.
    assert!(lapsed >= 4, "{lapsed} records: {:#?}", sandbox.audit());
    world.nothing_escaped(&[
        SocketAddr::from((ALLOWED_V4, 443)),
        SocketAddr::from((ALLOWED_V4, 4433)),
        SocketAddr::from((ALLOWED_V6, 4433)),
    ]);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}
