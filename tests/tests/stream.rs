//! The live stream of records, read with curl.

mod policy;

use egress_tests::World;
use egress_tests::process::{Running, patience};
use egress_tests::product::{Agent, audit};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn agent<'w>(world: &'w World, metrics: &str) -> (Agent<'w>, PathBuf) {
    let mut agent = Agent::prepare(
        world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    let socket = agent.directory().join("metrics.sock");
    agent.configure(&format!(
        "{}[metrics]\nlisten = \"unix:{}\"\n{metrics}",
        agent.configuration(),
        socket.display()
    ));
    agent.launch();
    (agent, socket)
}

fn curl(socket: &Path, arguments: &[&str], target: &str) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--no-buffer", "--unix-socket"])
        .arg(socket)
        .args(arguments)
        .arg(format!("http://localhost{target}"));
    command
}

fn listen(socket: &Path, arguments: &[&str], target: &str) -> Running {
    let mut command = curl(socket, arguments, target);
    let mut running = Running::start(&mut command).expect("curl is installed");
    // The head tells that the stream has begun.
    while !running.line().expect("a head").is_empty() {}
    running
}

/// The status of an answer that ends.
fn status(socket: &Path, arguments: &[&str], target: &str) -> String {
    let ends = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--max-time",
        "20",
    ];
    let output = curl(socket, &[&ends, arguments].concat(), target)
        .output()
        .expect("curl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One event: its id, its name and its data.
fn event(stream: &mut Running) -> (i64, String, Value) {
    let (mut id, mut name, mut data) = (0, String::new(), Value::Null);
    loop {
        let line = stream.line().expect("the stream goes on");
        match line.split_once(": ").or_else(|| line.split_once(':')) {
            Some(("id", value)) => id = value.parse().expect("a number"),
            Some(("event", value)) => name = value.to_owned(),
            Some(("data", value)) => data = serde_json::from_str(value).expect("JSON"),
            // An empty line ends an event; a comment keeps the stream alive.
            None if !name.is_empty() => return (id, name, data),
            _ => {}
        }
    }
}

/// Waits for the event about a name.
fn about(stream: &mut Running, name: &str) -> (i64, Value) {
    let deadline = Instant::now() + patience();
    loop {
        let (id, kind, data) = event(stream);
        assert_eq!(kind, "record");
        assert_eq!(data["sequence"], id);
        // An alert about the name may come first.
        if data["name"] == name && data["kind"] == "dns" {
            return (id, data);
        }
        assert!(Instant::now() < deadline, "nothing about {name}");
    }
}

fn refused(agent: &Agent<'_>, sandbox: &str, name: &str) {
    agent
        .probe(sandbox, "changing", &[&format!("resolve {name}")])
        .finish();
}

#[test]
fn records_come_as_they_are_stored_and_a_client_that_was_away_misses_none() {
    let Some(world) = World::or_skip("stream") else {
        return;
    };
    let (agent, socket) = agent(&world, "events = true\n");
    refused(&agent, "early", "before.example");
    let mut stream = listen(&socket, &["--include"], "/v1/events");
    refused(&agent, "s", "first.example");
    let (seen, record) = about(&mut stream, "first.example");
    assert_eq!(record["sandbox"], "s");
    assert_eq!(record["verdict"], "deny");
    drop(stream);
    refused(&agent, "s", "second.example");
    let id = format!("Last-Event-ID: {seen}");
    let mut again = listen(&socket, &["--include", "--header", &id], "/v1/events");
    refused(&agent, "s", "third.example");
    // Every record from there on, each once and in order.
    let mut last = seen;
    let deadline = Instant::now() + patience();
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "third.example") {
        let (id, _, data) = event(&mut again);
        assert_eq!(id, last + 1, "{data}");
        last = id;
        names.extend(data["name"].as_str().map(str::to_owned));
        assert!(Instant::now() < deadline, "{names:?}");
    }
    assert!(names.contains(&"second.example".to_owned()), "{names:?}");
    assert!(!names.contains(&"before.example".to_owned()), "{names:?}");
    let stored = audit(&agent.directory().join("state"));
    assert!(stored.iter().any(|record| record["sequence"] == last));

    // Conditions are those of `audit query`.
    let mut few = listen(
        &socket,
        &["--include"],
        "/v1/events?sandbox=t&verdict=deny&name=*.example",
    );
    refused(&agent, "s", "fourth.example");
    refused(&agent, "t", "fifth.example");
    let (_, _, data) = event(&mut few);
    assert_eq!(data["name"], "fifth.example", "the first that meets them");
    assert_eq!(status(&socket, &[], "/v1/events?colour=red"), "400");
    let foreign = ["--header", "Host: evil.example"];
    assert_eq!(status(&socket, &foreign, "/v1/events"), "403");

    // No more than sixteen at a time, and a place that is left is free again.
    let mut others: Vec<Running> = (0..14)
        .map(|_| listen(&socket, &["--include"], "/v1/events"))
        .collect();
    assert_eq!(status(&socket, &[], "/v1/events"), "503");
    drop(others.pop());
    refused(&agent, "s", "sixth.example");
    let deadline = Instant::now() + patience();
    while status(&socket, &["--max-time", "1"], "/v1/events") != "200" {
        assert!(Instant::now() < deadline, "the place stays taken");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_agent_with_open_streams_ends_in_time_and_offers_none_unless_told_to() {
    let Some(world) = World::or_skip("stream: end") else {
        return;
    };
    let (mut agent, socket) = agent(&world, "events = true\n");
    let stream = listen(&socket, &["--include"], "/v1/events");
    let running = agent.take_running();
    let begun = Instant::now();
    running
        .signal(rustix::process::Signal::TERM)
        .expect("the agent runs");
    let (ended, _, errors) = running.finish();
    assert!(ended.success(), "{errors}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{errors}");
    assert!(!errors.contains("did not end in time"), "{errors}");
    drop(stream);
    drop(agent);
    let (_other, socket) = self::agent(&world, "");
    assert_eq!(status(&socket, &[], "/v1/events"), "404");
}
