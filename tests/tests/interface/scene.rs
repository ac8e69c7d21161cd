//! What the tests share: containers beside a world's near side, which is their
//! router, and an agent there.

#![allow(dead_code, reason = "each test program uses some of it")]

use egress_tests::address::{
    ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6, NEAR_V4, NEAR_V6, SECOND_V4,
};
use egress_tests::process::Running;
use egress_tests::product::{Agent, Outcome};
use egress_tests::{Namespace, World};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

/// A world whose near side is a router, or why the test is skipped.
pub fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    let dns = &world.dns;
    dns.resolve("allowed.example", &[ALLOWED_V4.into(), ALLOWED_V6.into()]);
    dns.resolve("second.example", &[SECOND_V4.into()]);
    dns.resolve(
        "forbidden.example",
        &[FORBIDDEN_V4.into(), FORBIDDEN_V6.into()],
    );
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        world.near.set(key, "1").expect("the near side can route");
    }
    // Who sends for others asks for neighbours from an address of the link.
    world
        .near
        .configure("addr add fe80::2/64 dev near nodad\n")
        .expect("the near side is the test's own");
    let back = format!(
        "addr add fe80::3/64 dev far nodad\n\
         route add 198.18.0.0/16 via {NEAR_V4}\n\
         route add 2001:db8:100::/40 via {NEAR_V6}\n"
    );
    world.far.configure(&back).expect("the far side has routes");
    Some(world)
}

/// Asserts that nothing left for anywhere but `allowed`. That the near side is a
/// router it tells its own link.
#[track_caller]
pub fn nothing_escaped(world: &World, allowed: &[SocketAddr]) {
    const ROUTERS_TOLD: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
    let mut escaped = world.escaped(allowed);
    escaped.retain(|packet| packet.destination != Some(ROUTERS_TOLD.into()));
    assert!(escaped.is_empty(), "these packets escaped: {escaped:#?}");
}

/// Something with a network stack of its own behind a veth of the near side.
pub struct Container<'w> {
    world: &'w World,
    /// Its network namespace.
    pub inside: Namespace,
    number: u8,
}

impl<'w> Container<'w> {
    /// Makes one; its number tells it from others.
    pub fn new(world: &'w World, number: u8) -> Self {
        let inside = Namespace::new().expect("root can make namespaces");
        for key in ["accept_dad", "accept_ra", "router_solicitations"] {
            let key = format!("ipv6/conf/default/{key}");
            inside.set(&key, "0").expect("a fresh namespace");
        }
        let container = Self {
            world,
            inside,
            number,
        };
        let mac = |end: u8| {
            let bytes = container.mac(end).map(|byte| format!("{byte:02x}"));
            bytes.join(":")
        };
        let (device, path) = (container.device(), container.inside.path());
        world
            .near
            .configure(&format!(
                "link add {device} address {} type veth peer name eth0 address {} netns {path}\n\
                 addr add {}/30 dev {device}\n\
                 addr add {}/64 dev {device} nodad\n\
                 addr add fe80::1/64 dev {device} nodad\n\
                 link set {device} up\n",
                mac(1),
                mac(2),
                container.v4(1),
                container.v6(1),
            ))
            .expect("a veth");
        container
            .inside
            .configure(&format!(
                "link set lo up\n\
                 addr add {}/30 dev eth0\n\
                 addr add {}/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add default via {}\n\
                 route add ::/0 via {}\n",
                container.v4(2),
                container.v6(2),
                container.v4(1),
                container.v6(1),
            ))
            .expect("the inside of a veth");
        container
    }

    /// The host's side.
    pub fn device(&self) -> String {
        format!("box{}", self.number)
    }

    /// The Ethernet address of the host (1), the container (2), or another.
    pub fn mac(&self, end: u8) -> [u8; 6] {
        [2, 0, 0, 0x18, self.number, end]
    }

    /// The IPv4 address of the host (1), the container (2), or another.
    pub fn v4(&self, end: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, end)
    }

    /// The same for IPv6.
    pub fn v6(&self, end: u16) -> Ipv6Addr {
        Ipv6Addr::new(
            0x2001,
            0xdb8,
            0x100 + u16::from(self.number),
            0,
            0,
            0,
            0,
            end,
        )
    }

    /// Attaches it under a policy.
    #[track_caller]
    pub fn attach(&self, agent: &Agent<'_>, policy: &str) {
        let device = self.device();
        let arguments = [
            "sandbox",
            "attach",
            "--interface",
            &device,
            "--policy",
            policy,
        ];
        let run = agent.egressctl(&arguments).expect("egressctl starts");
        let (status, lines, errors) = run.finish();
        assert!(status.success(), "{lines:?} {errors}");
    }

    /// Lets the probe begin these steps inside.
    pub fn start(&self, steps: &[&str]) -> Running {
        let mut probe = Command::new(self.world.probe());
        probe.args(steps);
        self.inside
            .run(|| Running::start(&mut probe))
            .expect("the probe starts")
    }

    /// Lets the probe do these steps inside, and waits for the end.
    #[track_caller]
    pub fn attempt(&self, steps: &[&str]) -> Outcome {
        let outcome = Outcome::of(self.start(steps));
        assert_eq!(outcome.attempts.len(), steps.len(), "{outcome:#?}");
        outcome
    }
}
