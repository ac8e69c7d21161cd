//! The resolver, asked from inside and from outside of sandboxes.

mod policy;

use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, SECOND_V4};
use egress_tests::dns::wire::{self, kind};
use egress_tests::dns::{Data, Manner, Message, Query, Record};
use egress_tests::{World, packet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// An address at which nobody listens; every query is brought to the agent,
/// whoever it is sent to.
const ANY_V4: &str = "198.51.100.1:53";
const ANY_V6: &str = "[2001:db8:99::1]:53";

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world
        .dns
        .resolve("allowed.example", &[ALLOWED_V4.into(), ALLOWED_V6.into()]);
    Some(world)
}

#[test]
fn one_connection_carries_several_queries() {
    let Some(world) = world("resolver: several queries") else {
        return;
    };
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        &format!("dns-tcp {ANY_V4} A allowed.example forbidden.example allowed.example"),
        &format!("dns-tcp {ANY_V6} AAAA allowed.example forbidden.example"),
        &format!("dns-udp {ANY_V6} AAAA allowed.example"),
        &format!("tcp-exchange {ALLOWED_V4}:443 hello"),
    ]);
    let answers: Vec<&str> = outcome[0].succeeded().split(" / ").collect();
    assert_eq!(answers[0], format!("code=0 {ALLOWED_V4}"));
    assert!(answers[1].starts_with("code=3"), "{answers:?}");
    assert_eq!(answers[2], answers[0]);
    assert!(
        outcome[1]
            .succeeded()
            .starts_with(&format!("code=0 {ALLOWED_V6} / code=3"))
    );
    assert_eq!(outcome[2].succeeded(), format!("code=0 {ALLOWED_V6}"));
    outcome[3].succeeded();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}

/// Asks so much at once that replies wait for each other, over both families, and says
/// what each question was told, and by whom.
const BURST: &str = r#"
import collections, socket, struct, sys
told = collections.Counter()
for family, server in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(10)
    names = ["allowed.example" if n % 3 else "no%d.forbidden.example" % n for n in range(150)]
    for number, name in enumerate(names):
        labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
        s.sendto(struct.pack(">6H", number, 256, 1, 0, 0, 0) + labels + b"\0\0\1\0\1", (server, 53))
    for _ in names:
        reply, peer = s.recvfrom(4096)
        number = struct.unpack(">H", reply[:2])[0]
        label = reply[13:13 + reply[12]].decode()
        assert names[number].split(".")[0] == label, (names[number], label)
        assert peer[:2] == (server, 53), peer
        told[number % 3 > 0, reply[3] & 15] += 1
        names[number] = "-"
    s.settimeout(0.2)
    try:
        sys.exit("one reply too many: %r" % s.recv(4096))
    except TimeoutError:
        pass
print(sorted(told.items()))
"#;

#[test]
fn a_burst_of_questions_gets_one_reply_each_from_the_server_that_was_asked() {
    let Some(world) = world("resolver: a burst") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    let (v4, v6) = ("198.51.100.1", "2001:db8:99::1");
    let run = sandbox.run(["/usr/bin/python3", "-c", BURST, v4, v6]);
    let (status, lines, errors) = run.finish();
    assert!(status.success(), "{lines:?} {errors}");
    // 3 is NXDOMAIN.
    assert_eq!(lines, ["[((False, 3), 100), ((True, 0), 200)]"]);
}

#[test]
fn a_refusal_says_why() {
    let Some(world) = world("resolver: extended error") else {
        return;
    };
    let outcome = world
        .sandbox(policy::ONE_NAME)
        .attempt(&[&format!("dns-udp {ANY_V4} A forbidden.example")]);
    let answer = outcome[0].succeeded();
    assert!(
        answer.starts_with("code=3") && answer.contains("error="),
        "{answer}"
    );
    assert!(answer.contains("no rule allows the name"), "{answer}");
}

#[test]
fn the_record_of_a_query_says_which_process_asked() {
    let Some(world) = world("resolver: process in the log") else {
        return;
    };
    let sandbox = world.sandbox(policy::ONE_NAME);
    let mut run = sandbox.start(&[
        &format!("dns-udp {ANY_V4} A allowed.example"),
        &format!("dns-udp {ANY_V6} A forbidden.example"),
        &format!("dns-tcp {ANY_V4} AAAA allowed.example"),
        "pause",
    ]);
    while run.line().is_some_and(|line| !line.contains("\"pause\"")) {}
    // As the first pid namespace numbers them, which the sandbox does not see.
    let probes = egress_tests::process::descendants(run.pid(), "egress-probe");
    run.say("go on").expect("the probe waits");
    run.finish();
    let mut queries = 0;
    for record in sandbox.audit() {
        if record["hook"] != "resolver" || record["name"].is_null() {
            continue;
        }
        queries += 1;
        let process = record["process"]
            .as_u64()
            .and_then(|p| u32::try_from(p).ok());
        assert!(
            process.is_some_and(|process| probes.contains(&process)),
            "{probes:?}: {record:#}"
        );
    }
    assert!(queries >= 3, "{queries}");
}

#[test]
fn no_type_of_query_is_a_way_out() {
    let Some(world) = world("resolver: query types") else {
        return;
    };
    let steps: Vec<String> = [
        "A", "AAAA", "TXT", "MX", "PTR", "HTTPS", "CNAME", "255", "16384",
    ]
    .iter()
    .map(|kind| format!("dns-udp {ANY_V4} {kind} data.forbidden.example"))
    .collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&steps);
    for step in 0..steps.len() {
        assert!(
            !outcome[step].succeeded().starts_with("code=0"),
            "{outcome:#?}"
        );
    }
    assert!(!world.dns.heard_of("data.forbidden.example"));
}

#[test]
fn the_spelling_of_a_name_does_not_matter_and_the_apex_is_not_below_itself() {
    let Some(world) = world("resolver: spelling") else {
        return;
    };
    world
        .dns
        .resolve("deep.www.allowed.example", &[ALLOWED_V4.into()]);
    let outcome = world.sandbox(policy::EVERYTHING_BELOW).attempt(&[
        &format!("dns-udp {ANY_V4} A Deep.WWW.Allowed.EXAMPLE"),
        &format!("dns-udp {ANY_V4} A allowed.example"),
        &format!("dns-udp {ANY_V4} A notallowed.example"),
    ]);
    assert_eq!(outcome[0].succeeded(), format!("code=0 {ALLOWED_V4}"));
    assert!(outcome[1].succeeded().starts_with("code=3"));
    assert!(outcome[2].succeeded().starts_with("code=3"));
    assert!(!world.dns.heard_of("allowed.example"));
}

#[test]
fn only_what_the_chain_connects_is_granted() {
    let Some(world) = world("resolver: chain") else {
        return;
    };
    let record = |owner: &str, data| Record {
        owner: owner.into(),
        ttl: 60,
        data,
    };
    let stray = record("stray.example", Data::Address(FORBIDDEN_V4.into()));
    world.dns.answer(
        "allowed.example",
        kind::A,
        vec![
            record(
                "allowed.example",
                Data::Alias("host.provider.example".into()),
            ),
            record("host.provider.example", Data::Address(SECOND_V4.into())),
            stray,
        ],
    );
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        &format!("dns-udp {ANY_V4} A allowed.example"),
        &format!("tcp-exchange {SECOND_V4}:443 hello"),
        &format!("tcp-exchange {FORBIDDEN_V4}:443 secret"),
    ]);
    let answer = outcome[0].succeeded();
    assert!(answer.contains(&SECOND_V4.to_string()), "{answer}");
    assert!(!answer.contains(&FORBIDDEN_V4.to_string()), "{answer}");
    outcome[1].succeeded();
    outcome[2].refused();
    world.nothing_escaped(&[SocketAddr::from((SECOND_V4, 443))]);
}

#[test]
fn an_answer_into_a_private_range_is_not_handed_out() {
    let Some(world) = world("resolver: rebinding") else {
        return;
    };
    let private: [IpAddr; 6] = [
        Ipv4Addr::new(10, 0, 0, 5).into(),
        Ipv4Addr::new(127, 0, 0, 1).into(),
        Ipv4Addr::new(169, 254, 169, 254).into(),
        Ipv4Addr::new(100, 64, 0, 1).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::new(224, 0, 0, 1).into(),
    ];
    for address in private {
        world.dns.resolve("allowed.example", &[address]);
        let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
            &format!("dns-udp {ANY_V4} A allowed.example"),
            &format!("tcp-exchange {address}:443 secret"),
        ]);
        let answer = outcome[0].succeeded();
        assert!(!answer.contains(&address.to_string()), "{answer}");
        outcome[1].refused();
    }
    world.nothing_escaped(&[]);
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    let Some(world) = world("resolver: truncation") else {
        return;
    };
    world.dns.behave("allowed.example", Manner::Truncated);
    let outcome = world.sandbox(policy::ONE_NAME).attempt(&[
        &format!("dns-udp {ANY_V4} A allowed.example"),
        &format!("tcp-exchange {ALLOWED_V4}:443 hello"),
    ]);
    assert_eq!(outcome[0].succeeded(), format!("code=0 {ALLOWED_V4}"));
    outcome[1].succeeded();
}

#[test]
fn a_query_from_outside_of_every_sandbox_is_refused() {
    let Some(world) = world("resolver: asked from outside") else {
        return;
    };
    let mut run = world
        .sandbox(policy::ONE_NAME)
        .start(&["resolve allowed.example", "pause"]);
    while run.line().is_some_and(|line| !line.contains("\"pause\"")) {}
    let listeners = world.near.run(datagram_listeners);
    assert!(
        !listeners.is_empty(),
        "the agent's resolver listens in its namespace"
    );
    for listener in listeners {
        let answer = world.near.run(|| ask(listener, "allowed.example"));
        // Silence is a refusal too.
        if let Some(answer) = answer {
            assert_eq!(answer.code, wire::REFUSED, "{answer:?}");
            assert_eq!(answer.answers, []);
        }
    }
    let asked = world
        .far
        .run(|| ask((egress_tests::address::NEAR_V4, 53).into(), "x.example"));
    assert_eq!(asked, None, "the resolver listens on loopback only");
    run.say("go on").expect("the probe waits");
    let (status, _, errors) = run.finish();
    assert!(status.success(), "{errors}");
    let answered = world.sniffer.saw(|packet| {
        packet.protocol == Some(packet::UDP)
            && packet.goes_to(egress_tests::address::FAR_V4)
            && packet.carries(b"example")
    });
    assert!(!answered, "nothing about names goes anywhere but upstream");
}

fn ask(resolver: SocketAddr, name: &str) -> Option<Message> {
    let local = if resolver.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(local).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .ok()?;
    let query = Query {
        id: 99,
        name: name.into(),
        kind: kind::A,
    };
    socket.send_to(&query.encode(), resolver).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Message::decode(&buffer[..length])
}

/// The bound UDP sockets of the calling thread's network namespace.
fn datagram_listeners() -> Vec<SocketAddr> {
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
            let address = u32::from_str_radix(address, 16).ok()?;
            let address = Ipv4Addr::from(address.to_ne_bytes());
            Some(SocketAddr::from((
                address,
                u16::from_str_radix(port, 16).ok()?,
            )))
        })
        .collect()
}
