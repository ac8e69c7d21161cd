//! What is addressed to this host: services outside, broadcast on loopback, and
//! loopback addresses that are sent through a real device.

use crate::policy::ONE_NAME;
use crate::scene::{attempt, device, through_v4, through_v6, world};
use std::net::UdpSocket;
use std::time::Duration;

#[test]
fn a_loopback_address_does_not_leave_through_a_real_device() {
    let Some(world) = world("bypass: loopback address through a device") else {
        return;
    };
    let (v4, v6) = (through_v4(device(&world)), through_v6(device(&world)));
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            "open u udp4",
            "open s udp6",
            "open l udp4",
            "bind l 127.0.0.1:7711",
            "open m udp6",
            "bind m [::1]:7711",
            // Redirected to the resolver, which listens on loopback.
            &format!("send-control u 0 127.0.0.1:53 0 8 {v4} secret-redirected-four"),
            &format!("send-control s 0 [::1]:53 41 50 {v6} secret-redirected-six"),
            // To a listener of the sandbox's own.
            &format!("send-control u 0 127.0.0.1:7711 0 8 {v4} secret-own-four"),
            &format!("send-control s 0 [::1]:7711 41 50 {v6} secret-own-six"),
        ],
    );
    // Where the kernel finds no route it says so; where it finds one, the gate.
    for step in [6, 8] {
        outcome[step].refused();
    }
    world.nothing_escaped(&[]);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_broadcast_on_loopback_reaches_no_listener_outside() {
    let Some(world) = world("bypass: loopback broadcast") else {
        return;
    };
    let outside = world.near.run(|| {
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], 7712)).into())?;
        Ok::<UdpSocket, std::io::Error>(socket.into())
    });
    let outside = outside.expect("the port is free in a fresh namespace");
    outside
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            "open l udp4",
            "option l 1 2 01000000",
            "bind l 127.255.255.255:7712",
            "open u udp4",
            "option u 1 6 01000000",
            "send-to u 127.255.255.255:7712 secret",
        ],
    );
    outcome[5].refused();
    let heard = outside.recv(&mut [0; 64]);
    assert!(heard.is_err(), "a listener outside heard {heard:?} bytes");
}

#[test]
fn a_rule_for_localhost_does_not_open_a_way_out_through_a_device() {
    let Some(world) = world("bypass: localhost rule through a device") else {
        return;
    };
    const LOCAL_SERVICE: &str = r#"
apiVersion: egress/v1
name: local-service
egress:
  default_action: deny
  mode: enforce
allowlist:
  service:
    - domain: "localhost"
      ports: [7713]
      protocols: [udp]
"#;
    let through = through_v4(device(&world));
    let outcome = attempt(
        &world,
        LOCAL_SERVICE,
        &[
            "open u udp4",
            // What is allowed is remembered on the socket.
            "send-to u 127.0.0.1:7713 hello",
            "send-to u 127.0.0.1:7713 hello",
            &format!("send-control u 0 127.0.0.1:7713 0 8 {through} secret"),
        ],
    );
    outcome[1].succeeded();
    outcome[3].refused();
    world.nothing_escaped(&[]);
}
