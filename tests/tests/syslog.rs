//! The syslog feed, judged by a real collector: rsyslog parses what arrives.

mod policy;

use egress_tests::World;
use egress_tests::collector::Collector;
use egress_tests::process::patience;
use egress_tests::product::{Agent, audit};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

/// The collector's port; each world has all ports to itself.
const PORT: u16 = 5514;

fn agent<'w>(world: &'w World, syslog: &str) -> Agent<'w> {
    let agent = Agent::prepare(
        world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    agent.configure(&format!(
        "{}[syslog]\nhost = \"127.0.0.1\"\nport = {PORT}\n{syslog}",
        agent.configuration()
    ));
    agent
}

fn refused(agent: &Agent<'_>, sandbox: &str, name: &str) {
    let probe = agent.probe(sandbox, "changing", &[&format!("resolve {name}")]);
    probe.finish();
}

/// What rsyslog has to have understood of a refused query.
fn check(line: &str) {
    let fields: Vec<&str> = line.splitn(6, '\t').collect();
    let [data, host, program, kind, priority, text] = fields[..] else {
        panic!("not six fields: {line}");
    };
    assert!(
        data.starts_with("[egress@32473 id=\"") && data.ends_with(']'),
        "{data}"
    );
    for part in [
        "sandbox=\"s\"",
        "policy=\"changing\"",
        "verdict=\"deny\"",
        "queryType=\"A\"",
    ] {
        assert!(data.contains(part), "{part} in {data}");
    }
    assert!(!host.is_empty() && host != "127.0.0.1", "{host}");
    assert_eq!((program, kind), ("egress-agent", "dns"));
    assert_eq!(priority, (13 * 8 + 4).to_string(), "log audit, warning");
    assert!(text.contains("no rule allows the name"), "{text}");
}

#[test]
fn datagrams_are_understood() {
    let Some(world) = World::or_skip("syslog: udp") else {
        return;
    };
    let mut agent = agent(&world, "transport = \"udp\"\n");
    let input = format!(
        "module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{PORT}\")"
    );
    let mut collector = Collector::new(&agent.directory().join("rsyslog"), &input);
    collector.start(&world);
    agent.launch();
    // Nobody knows when a datagram is heard: more are sent until one is.
    let deadline = Instant::now() + patience();
    while !collector.seen().contains("refused.example") {
        assert!(Instant::now() < deadline, "{}", collector.seen());
        refused(&agent, "s", "refused.example");
    }
    check(&collector.line(&["name=\"refused.example\"", "queryType=\"A\""]));
}

#[test]
fn a_collector_that_was_away_misses_nothing_over_tcp() {
    let Some(world) = World::or_skip("syslog: tcp") else {
        return;
    };
    let mut agent = agent(&world, "transport = \"tcp\"\n");
    let input = format!(
        "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{PORT}\")"
    );
    let mut collector = Collector::new(&agent.directory().join("rsyslog"), &input);
    collector.start(&world);
    agent.launch();
    refused(&agent, "s", "first.example");
    check(&collector.line(&["name=\"first.example\"", "queryType=\"A\""]));
    let begun = *collector.sequences().first().expect("a message");

    collector.stop();
    refused(&agent, "s", "second.example");
    assert!(agent.recorded(&["the syslog collector takes nothing"]));
    // The agent is replaced meanwhile; it knows what it has sent.
    agent.kill();
    agent.launch();
    refused(&agent, "s", "third.example");
    collector.start(&world);
    collector.line(&["name=\"second.example\""]);
    collector.line(&["name=\"third.example\""]);

    let state = agent.directory().join("state");
    let stored: BTreeSet<i64> = audit(&state)
        .iter()
        .filter(|record| record["name"] != serde_json::Value::Null)
        .filter_map(|record| record["sequence"].as_i64())
        .filter(|sequence| *sequence >= begun)
        .collect();
    let deadline = Instant::now() + patience();
    while !stored.is_subset(&collector.sequences()) {
        assert!(
            Instant::now() < deadline,
            "missing: {:?}",
            stored.difference(&collector.sequences())
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn only_the_collector_that_the_authority_vouches_for_is_fed_over_tls() {
    let Some(world) = World::or_skip("syslog: tls") else {
        return;
    };
    let prepared = agent(&world, "transport = \"udp\"\n");
    let place = prepared.directory().join("rsyslog");
    let input = format!(
        "module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{PORT}\")"
    );
    let mut collector = Collector::new(&place, &input);
    let certify = |name: &str| {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=collector",
            ])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            // An authority's certificate is no server's.
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(place.join(format!("{name}key.pem")))
            .arg("-out")
            .arg(place.join(format!("{name}cert.pem")))
            .output()
            .expect("openssl is installed; run `cargo xtask setup`");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    };
    certify("");
    certify("other-");
    collector.start(&world);
    // The first problem is the one that is told.
    collector.await_port(&world, PORT);
    let mut agent = prepared;
    let configure = |agent: &Agent<'_>, authority: &str| {
        agent.configure(&format!(
            "{}[syslog]\nhost = \"127.0.0.1\"\nport = {PORT}\ntransport = \"tls\"\nca_file = \"{}\"\n",
            agent.configuration(),
            place.join(authority).display()
        ));
    };
    configure(&agent, "other-cert.pem");
    agent.launch();
    refused(&agent, "s", "first.example");
    assert!(agent.recorded(&["the syslog collector takes nothing", "certificate"]));
    assert_eq!(collector.seen(), "", "a stranger was told something");
    agent.kill();
    configure(&agent, "cert.pem");
    agent.launch();
    refused(&agent, "s", "second.example");
    check(&collector.line(&["name=\"second.example\"", "queryType=\"A\""]));
}
