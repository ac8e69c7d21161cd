//! The harness itself, without the product: if no judge can see a packet that
//! does leave, then no test that sees none proves anything.

use egress_tests::address::{
    ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6, NEAR_V4, UPSTREAM_V4, UPSTREAM_V6,
};
use egress_tests::dns::{Manner, Transport, wire};
use egress_tests::probe::Attempt;
use egress_tests::process::Running;
use egress_tests::servers::{Threads, hearing};
use egress_tests::{Cgroup, Outcome, World, cgroup};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Lets the probe do these steps in the near namespace, in no sandbox.
fn unguarded(world: &World, steps: &[String]) -> Vec<Attempt> {
    let mut command = Command::new(world.probe());
    let running = world
        .near
        .run(|| Running::start(command.args(steps)))
        .expect("the probe starts");
    let outcome = Outcome::of(running);
    assert_eq!(outcome.attempts.len(), steps.len(), "{outcome:#?}");
    outcome.attempts
}

#[test]
fn without_a_sandbox_every_way_is_open_and_the_sniffer_sees_it() {
    let Some(world) = World::or_skip("harness: open ways") else {
        return;
    };
    let attempts = unguarded(
        &world,
        &[
            format!("tcp-exchange {FORBIDDEN_V4}:443 secret-one"),
            format!("tcp-exchange [{FORBIDDEN_V6}]:443 secret-two"),
            format!("udp-exchange {FORBIDDEN_V4}:853 secret-three"),
            format!("udp-exchange [{FORBIDDEN_V6}]:853 secret-four"),
            format!("udp-exchange [::ffff:{FORBIDDEN_V4}]:853 secret-five"),
            "udp-send 192.0.2.99:4000 secret-six".into(),
        ],
    );
    for attempt in &attempts {
        attempt.succeeded();
    }
    world.settle();
    for secret in ["one", "two", "three", "four", "five", "six"] {
        let secret = format!("secret-{secret}");
        assert!(
            world
                .sniffer
                .saw(|packet| packet.carries(secret.as_bytes())),
            "{secret}"
        );
    }
    assert!(
        !world.escaped(&[]).is_empty(),
        "an escape is reported as one"
    );
}

#[test]
fn the_sniffer_sees_what_is_neither_tcp_nor_udp() {
    let Some(world) = World::or_skip("harness: odd packets") else {
        return;
    };
    let attempts = unguarded(
        &world,
        &["join 239.66.66.66".into(), "join ff05::4b58:5345".into()],
    );
    for attempt in &attempts {
        attempt.succeeded();
    }
    let group = [239, 66, 66, 66];
    assert!(
        world.sniffer.awaits(|packet| packet.carries(&group)),
        "the IGMP report"
    );
    let group = [0x4b, 0x58, 0x53, 0x45];
    assert!(
        world
            .sniffer
            .awaits(|packet| packet.carries(&group) && !packet.belongs_to_the_link()),
        "the MLD report"
    );
}

#[test]
fn a_quiet_world_is_quiet() {
    let Some(world) = World::or_skip("harness: silence") else {
        return;
    };
    world.nothing_escaped(&[]);
}

#[test]
fn the_dns_server_answers_what_it_was_told_and_remembers() {
    let Some(world) = World::or_skip("harness: DNS") else {
        return;
    };
    world
        .dns
        .resolve("allowed.example", &[ALLOWED_V4.into(), ALLOWED_V6.into()]);
    world.dns.behave("long.example", Manner::Truncated);
    let attempts = unguarded(
        &world,
        &[
            format!("dns-udp {UPSTREAM_V4}:53 A allowed.example"),
            format!("dns-udp [{UPSTREAM_V6}]:53 AAAA allowed.example"),
            format!("dns-tcp {UPSTREAM_V4}:53 A allowed.example other.example"),
            format!("dns-udp {UPSTREAM_V4}:53 A long.example"),
        ],
    );
    assert_eq!(attempts[0].succeeded(), format!("code=0 {ALLOWED_V4}"));
    assert_eq!(attempts[1].succeeded(), format!("code=0 {ALLOWED_V6}"));
    assert_eq!(
        attempts[2].succeeded(),
        format!("code=0 {ALLOWED_V4} / code=3")
    );
    assert_eq!(attempts[3].succeeded(), "code=0 truncated");
    assert!(world.dns.heard_of("other.example"));
    assert!(!world.dns.heard_of("never.example"));
    let by_stream = world
        .dns
        .asked()
        .into_iter()
        .filter(|asked| asked.transport == Transport::Tcp);
    assert_eq!(
        by_stream.map(|asked| asked.kind).collect::<Vec<_>>(),
        [wire::kind::A; 2]
    );
}

#[test]
fn the_probe_passes_sockets_and_talks_to_itself() {
    let Some(world) = World::or_skip("harness: probe") else {
        return;
    };
    let path = world.directory().join("hand-over.sock");
    let mut giver = Command::new(world.probe());
    giver.args(["open s udp4".into(), format!("give s {}", path.display())]);
    let giver = world
        .near
        .run(|| Running::start(&mut giver))
        .expect("the probe starts");
    while !path.exists() {
        std::thread::yield_now();
    }
    let attempts = unguarded(
        &world,
        &[
            format!("take s {}", path.display()),
            format!("send-to s {FORBIDDEN_V4}:443 handed-over"),
            "receive s".into(),
            "self-tcp 127.0.0.1:0 hello".into(),
            "self-udp [::1]:0 hello".into(),
            format!("listen l {NEAR_V4}:0"),
            "descriptors".into(),
        ],
    );
    for attempt in &attempts {
        attempt.succeeded();
    }
    assert_eq!(attempts[2].detail, "handed-over");
    assert!(attempts[6].detail.starts_with("0 1 "), "{:?}", attempts[6]);
    for attempt in &Outcome::of(giver).attempts {
        attempt.succeeded();
    }
}

#[test]
fn a_cgroup_goes_away_with_what_runs_in_it() {
    if !egress_tests::privilege::granted("harness: cgroup") {
        return;
    }
    let group = Cgroup::new().expect("root can make cgroups");
    let mut sleeper = Running::start(Command::new("sleep").arg("60")).expect("sleep starts");
    group.adopt(sleeper.pid()).expect("root can move processes");
    assert_eq!(cgroup::of(sleeper.pid()).as_deref(), Some(group.path()));
    let path = group.path().to_owned();
    drop(group);
    assert!(!path.exists());
    assert!(sleeper.wait(egress_tests::process::patience()).is_some());
}

const SOON: Duration = Duration::from_secs(10);

/// Tells how its owner ended: whether by a panic.
struct Ending(Sender<bool>);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::panicking());
    }
}

#[test]
fn a_server_that_hears_datagrams_ends_without_a_panic() {
    let Some(world) = World::or_skip("harness: the end of a server") else {
        return;
    };
    let (tell, told) = channel();
    let (hear, heard) = channel();
    let ending = Ending(tell);
    let mut threads = Threads::default();
    let address = SocketAddr::from(([127, 0, 0, 1], 5300));
    hearing(&mut threads, &world.near, address, move |_, _, _| {
        // The server owns what tells of its end.
        std::hint::black_box(&ending);
        let _ = hear.send(());
    })
    .expect("it hears");
    let client = world.near.run(|| UdpSocket::bind("127.0.0.1:0"));
    let sent = client.expect("a socket").send_to(b"a word", address);
    sent.expect("sent");
    heard.recv_timeout(SOON).expect("heard");
    // Long enough for it to wait for the next.
    std::thread::sleep(Duration::from_millis(200));
    drop(threads);
    assert_eq!(told.recv_timeout(SOON), Ok(false));
}
