//! What root behind an interface can put onto the wire, whatever its stack
//! would say: none of it reaches anybody.

use crate::frames::{Mac, arp, ethernet, udp, v4, v6};
use crate::scene::{Container, world};
use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6};
use egress_tests::product::Agent;
use egress_tests::raw::{RawSocket, Way};
use std::net::{Ipv4Addr, Ipv6Addr};

/// UDP to the allowed server, so that what is refused is refused for what it is.
const DATAGRAMS: &str = r#"
apiVersion: egress/v1
name: datagrams
allowlist:
  servers:
    - { cidr: 203.0.113.10/32, ports: [4433], protocols: [udp] }
    - { cidr: "2001:db8:ff::10/128", ports: [4433], protocols: [udp] }
"#;

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const UDP: u8 = 17;
const EVERYBODY: Mac = [0xff; 6];

pub struct Scene<'w> {
    pub container: Container<'w>,
    _agent: Agent<'w>,
}

fn scene(world: &World) -> Scene<'_> {
    scene_under(world, DATAGRAMS)
}

/// A container under a policy that is called `datagrams` and opens at least what
/// that does.
pub fn scene_under<'w>(world: &'w World, policy: &str) -> Scene<'w> {
    let agent = Agent::start(world, &[("datagrams", policy)]);
    let container = Container::new(world, 5);
    container.attach(&agent, "datagrams");
    Scene {
        container,
        _agent: agent,
    }
}

impl Scene<'_> {
    pub fn gateway(&self) -> Mac {
        self.container.mac(1)
    }

    pub fn own(&self) -> Mac {
        self.container.mac(2)
    }

    /// A plain datagram in a frame from the container to its gateway.
    fn datagram4(&self, from: Ipv4Addr, to: Ipv4Addr, text: &str) -> Vec<u8> {
        let body = udp((from.into(), to.into()), (4000, 4433), text.as_bytes());
        ethernet(
            self.gateway(),
            self.own(),
            IPV4,
            &v4((from, to), UDP, &[], 0, &body),
        )
    }

    fn datagram6(&self, from: Ipv6Addr, to: Ipv6Addr, text: &str) -> Vec<u8> {
        let body = udp((from.into(), to.into()), (4000, 4433), text.as_bytes());
        ethernet(
            self.gateway(),
            self.own(),
            IPV6,
            &v6((from, to), UDP, 64, &body),
        )
    }

    /// Sends each frame both ways, and asserts that nothing of it came out,
    /// while a good frame does.
    #[track_caller]
    pub fn nothing_comes_out(&self, world: &World, frames: &[(&str, Vec<u8>)]) {
        // Teaches both sides who is who, so that no frame waits for that.
        let v4 = format!("udp-exchange {ALLOWED_V4}:4433 first");
        let v6 = format!("udp-exchange [{ALLOWED_V6}]:4433 first");
        let outcome = self.container.attempt(&[&v4, &v6]);
        outcome[0].succeeded();
        outcome[1].succeeded();
        for way in [Way::Usual, Way::Bypass] {
            let raw = RawSocket::open(&self.container.inside, "eth0", way).expect("a raw socket");
            for (what, frame) in frames {
                if let Err(error) = raw.send(frame) {
                    // The device may refuse it itself, which is as good.
                    eprintln!("{what}: {error}");
                }
            }
            let good = format!("good {way:?}");
            let (here, there) = (self.container.v4(2), ALLOWED_V4);
            raw.send(&self.datagram4(here, there, &good)).expect("sent");
            let seen = world
                .sniffer
                .awaits(|packet| packet.carries(good.as_bytes()));
            assert!(
                seen,
                "the good frame does not come out; the test proves nothing"
            );
            for packet in world.sniffer.packets() {
                assert!(
                    !packet.carries(b"secret"),
                    "{way:?}: it came out: {packet:?}"
                );
            }
        }
    }
}

#[test]
fn spoofed_addresses_and_stations_do_not_get_through() {
    let Some(world) = world("interface: spoofed addresses and stations do not get through") else {
        return;
    };
    let scene = scene(&world);
    let (own4, own6) = (scene.container.v4(2), scene.container.v6(2));
    let mut stranger = scene.datagram4(own4, ALLOWED_V4, "secret station");
    stranger[6..12].copy_from_slice(&scene.container.mac(9));
    let mut elsewhere = scene.datagram4(own4, ALLOWED_V4, "secret elsewhere");
    elsewhere[..6].copy_from_slice(&scene.container.mac(9));
    let mut broadcast = scene.datagram4(own4, ALLOWED_V4, "secret broadcast");
    broadcast[..6].copy_from_slice(&EVERYBODY);
    let other4 = Ipv4Addr::new(198, 18, 77, 2);
    let other6 = Ipv6Addr::new(0x2001, 0xdb8, 0x177, 0, 0, 0, 0, 2);
    scene.nothing_comes_out(
        &world,
        &[
            (
                "another source",
                scene.datagram4(other4, ALLOWED_V4, "secret 1"),
            ),
            (
                "the gateway's source",
                scene.datagram4(scene.container.v4(1), ALLOWED_V4, "secret 2"),
            ),
            (
                "another source of IPv6",
                scene.datagram6(other6, ALLOWED_V6, "secret 3"),
            ),
            (
                "no source",
                scene.datagram4(Ipv4Addr::UNSPECIFIED, ALLOWED_V4, "secret 4"),
            ),
            (
                "a forbidden server",
                scene.datagram4(own4, FORBIDDEN_V4, "secret 5"),
            ),
            (
                "a forbidden server by IPv6",
                scene.datagram6(own6, FORBIDDEN_V6, "secret 6"),
            ),
            ("another station's address", stranger),
            ("to another station", elsewhere),
            ("to everybody", broadcast),
        ],
    );
}

#[test]
fn fragments_options_and_extension_headers_do_not_get_through() {
    let Some(world) =
        world("interface: fragments options and extension headers do not get through")
    else {
        return;
    };
    let scene = scene(&world);
    let (from, to) = (scene.container.v4(2), ALLOWED_V4);
    let (from6, to6) = (scene.container.v6(2), ALLOWED_V6);
    let body = |text: &str| udp((from.into(), to.into()), (4000, 4433), text.as_bytes());
    let body6 = |text: &str| udp((from6.into(), to6.into()), (4000, 4433), text.as_bytes());
    let frame = |packet: Vec<u8>| ethernet(scene.gateway(), scene.own(), IPV4, &packet);
    let frame6 = |packet: Vec<u8>| ethernet(scene.gateway(), scene.own(), IPV6, &packet);
    let first = 0x2000;
    // Loose source route by way of the forbidden server, and router alert.
    let route = [&[0x83, 7, 4][..], &FORBIDDEN_V4.octets(), &[1]].concat();
    let alert = [0x94, 4, 0, 0];
    let behind = |kind: u8, text: &str| {
        // Eight bytes of an extension header that does nothing, then UDP.
        let mut packet = vec![UDP, 0, 1, 4, 0, 0, 0, 0];
        packet.extend(body6(text));
        (kind, packet)
    };
    let mut frames = vec![
        (
            "a first fragment",
            frame(v4((from, to), UDP, &[], first, &body("secret 1"))),
        ),
        (
            "a later fragment",
            frame(v4((from, to), UDP, &[], 1, &body("secret 2"))),
        ),
        (
            "a source route",
            frame(v4((from, to), UDP, &route, 0, &body("secret 3"))),
        ),
        (
            "an option",
            frame(v4((from, to), UDP, &alert, 0, &body("secret 4"))),
        ),
    ];
    for (name, kind) in [
        ("hop by hop", 0),
        ("a routing header", 43),
        ("an IPv6 fragment", 44),
        ("destination options", 60),
        ("an authentication header", 51),
    ] {
        let (kind, packet) = behind(kind, "secret extension");
        frames.push((name, frame6(v6((from6, to6), kind, 64, &packet))));
    }
    scene.nothing_comes_out(&world, &frames);
}

#[test]
fn tags_tunnels_and_other_protocols_do_not_get_through() {
    let Some(world) = world("interface: tags tunnels and other protocols do not get through")
    else {
        return;
    };
    let scene = scene(&world);
    let (from, to) = (scene.container.v4(2), ALLOWED_V4);
    let (from6, to6) = (scene.container.v6(2), ALLOWED_V6);
    let inner = scene.datagram4(from, to, "secret tagged")[14..].to_vec();
    let tagged = |kinds: &[u16]| {
        let mut frame = [scene.gateway(), scene.own()].concat();
        for kind in kinds {
            frame.extend(kind.to_be_bytes());
            frame.extend([0, 7]);
        }
        frame.extend(IPV4.to_be_bytes());
        frame.extend(&inner);
        frame
    };
    let frame = |kind: u16, packet: Vec<u8>| ethernet(scene.gateway(), scene.own(), kind, &packet);
    let inner6 = scene.datagram6(from6, to6, "secret tunnel")[14..].to_vec();
    let text = b"secret protocol".as_slice();
    let mut frames = vec![
        ("a tag", tagged(&[0x8100])),
        ("a service tag", tagged(&[0x88a8])),
        ("two tags", tagged(&[0x88a8, 0x8100])),
        ("IP in IP", frame(IPV4, v4((from, to), 4, &[], 0, &inner))),
        ("6in4", frame(IPV4, v4((from, to), 41, &[], 0, &inner6))),
        (
            "GRE",
            frame(
                IPV4,
                v4(
                    (from, to),
                    47,
                    &[],
                    0,
                    &[&[0, 0, 8, 0], &inner[..]].concat(),
                ),
            ),
        ),
        (
            "echo",
            frame(
                IPV4,
                v4(
                    (from, to),
                    1,
                    &[],
                    0,
                    &[&[8, 0, 0, 0, 0, 1, 0, 1], text].concat(),
                ),
            ),
        ),
        ("SCTP", frame(IPV4, v4((from, to), 132, &[], 0, text))),
        ("ESP", frame(IPV4, v4((from, to), 50, &[], 0, text))),
        ("IGMP", frame(IPV4, v4((from, to), 2, &[], 0, text))),
        (
            "IPv6 in IPv6",
            frame(IPV6, v6((from6, to6), 41, 64, &inner6)),
        ),
        (
            "ICMPv6 echo",
            frame(
                IPV6,
                v6(
                    (from6, to6),
                    58,
                    64,
                    &[&[128, 0, 0, 0, 0, 1, 0, 1], text].concat(),
                ),
            ),
        ),
        (
            "no next header",
            frame(IPV6, v6((from6, to6), 59, 64, text)),
        ),
        ("MPLS", frame(0x8847, text.to_vec())),
        ("LLDP", frame(0x88cc, text.to_vec())),
        ("an experiment", frame(0x88b5, text.to_vec())),
        ("IPv4 called IPv6", frame(IPV6, inner.clone())),
    ];
    // VXLAN is UDP to a port that no rule opens.
    let vxlan = udp(
        (from.into(), to.into()),
        (4000, 4789),
        &[&[8, 0, 0, 0, 0, 0, 7, 0], &inner[..]].concat(),
    );
    frames.push(("VXLAN", frame(IPV4, v4((from, to), UDP, &[], 0, &vxlan))));
    scene.nothing_comes_out(&world, &frames);
}

#[test]
fn address_resolution_reaches_the_gateway_only_and_dhcp_nobody() {
    let Some(world) =
        world("interface: address resolution reaches the gateway only and dhcp nobody")
    else {
        return;
    };
    let scene = scene(&world);
    let (own, gateway) = (scene.own(), scene.gateway());
    // A second container, whose address the first tries to take at the host.
    let victim = Container::new(&world, 6);
    let before = world.near.run(neighbours);
    let none = [0; 6];
    let here = scene.container.v4(2);
    let request = |from: (Mac, Ipv4Addr), to: Ipv4Addr| {
        ethernet(EVERYBODY, own, ARP, &arp(1, from, (none, to)))
    };
    let reply = |from: (Mac, Ipv4Addr)| {
        ethernet(
            gateway,
            own,
            ARP,
            &arp(2, from, (gateway, scene.container.v4(1))),
        )
    };
    let discover = |client: u8| {
        let mut message = vec![1, 1, 6, 0, 0, 0, 0, client, 0, 0, 0x80, 0];
        message.extend([0; 16]);
        message.extend([2, 0, 0, 0x99, 0, client]);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
        message.extend(b"secret");
        let ends = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let body = udp((ends.0.into(), ends.1.into()), (68, 67), &message);
        ethernet(EVERYBODY, own, IPV4, &v4(ends, UDP, &[], 0, &body))
    };
    let mut frames = vec![
        (
            "who has another's address",
            request((own, here), victim.v4(2)),
        ),
        ("I have another's address", reply((own, victim.v4(2)))),
        (
            "I have the gateway's address",
            reply((own, scene.container.v4(1))),
        ),
        (
            "somebody else has mine",
            reply((scene.container.mac(9), here)),
        ),
        (
            "another's address announced",
            request((own, victim.v4(2)), victim.v4(2)),
        ),
    ];
    frames.extend((0..20).map(|client| ("a DHCP request", discover(client))));
    scene.nothing_comes_out(&world, &frames);
    let after = world.near.run(neighbours);
    for (address, station) in &after {
        let changed = before.iter().any(|(a, s)| a == address && s != station);
        assert!(!changed, "the host believed it: {address} is at {station}");
    }
    let taken = after.iter().any(|(address, station)| {
        *address == victim.v4(2).to_string() && station.starts_with("02:00:00:18:05")
    });
    assert!(!taken, "{after:?}");
}

/// The host's table of who is where.
fn neighbours() -> Vec<(String, String)> {
    let table = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.nth(2)?.to_owned()))
        })
        .collect()
}

#[test]
fn a_namespace_behind_the_sandbox_is_not_let_through() {
    let Some(world) = world("interface: a namespace behind the sandbox is not let through") else {
        return;
    };
    let scene = scene(&world);
    let nested = egress_tests::Namespace::new().expect("root can make namespaces");
    let inside = &scene.container.inside;
    inside.set("ipv4/ip_forward", "1").expect("it can route");
    inside
        .configure(&format!(
            "link add inner type veth peer name eth0 netns {}\n\
             addr add 198.18.99.1/30 dev inner\n\
             link set inner up\n",
            nested.path()
        ))
        .expect("a veth");
    nested
        .configure(
            "addr add 198.18.99.2/30 dev eth0\nlink set eth0 up\nroute add default via 198.18.99.1\n",
        )
        .expect("the inside of it");
    let send = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"secret of the nested one", (ALLOWED_V4, 4433))
    };
    nested.run(send).expect("it can send");
    scene.nothing_comes_out(&world, &[]);
}
