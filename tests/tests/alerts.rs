//! Alerts, from what a sandbox does to who is told and what is done about it.
//! The receiver is another program, which knows the signature from its
//! specification only.

mod policy;

use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::probe::{go_on, rest, until_pause};
use egress_tests::process::{Running, patience};
use egress_tests::product::{Agent, audit};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A receiver by the Standard Webhooks specification. It refuses the first
/// message once, and prints what it takes: id, whether the signature holds, body.
const RECEIVER: &str = r#"
import base64, hashlib, hmac, http.server, json, sys, time
key = base64.b64decode(sys.argv[1].removeprefix("whsec_"))
refused = set()
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        id, stamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = f"{id}.{stamp}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        given = self.headers["webhook-signature"].split(" ")
        good = any(hmac.compare_digest(expected, one) for one in given)
        fresh = abs(time.time() - int(stamp)) < 300
        first = not refused
        if first:
            refused.add(id)
        self.send_response(500 if first else 204)
        self.send_header("content-length", "0")
        self.end_headers()
        print(json.dumps({"id": id, "signed": good, "fresh": fresh, "refused": first,
                          "body": json.loads(body)}), flush=True)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Starts a receiver beside the agent: it, and its port.
fn receiver(world: &World) -> (Running, u16) {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", RECEIVER, SECRET]);
    let mut receiver = world
        .near
        .run(|| Running::start(&mut command))
        .expect("python3 is installed");
    let port = receiver.line().expect("a port").parse().expect("a port");
    (receiver, port)
}

fn secret(agent: &Agent<'_>) -> String {
    let file = agent.directory().join("webhook.secret");
    fs::write(&file, SECRET).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    file.display().to_string()
}

/// Waits for a record that has all of these in it.
fn recorded(state: &Path, parts: &[&str]) -> Value {
    let deadline = Instant::now() + patience();
    loop {
        let records = audit(state);
        let found = records.iter().find(|record| {
            let text = record.to_string();
            parts.iter().all(|part| text.contains(part))
        });
        if let Some(record) = found {
            return record.clone();
        }
        assert!(
            Instant::now() < deadline,
            "no record with {parts:?}: {records:#?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn repeated_denials_are_told_with_a_signature_and_block_the_sandbox_until_it_is_unblocked() {
    let Some(world) = World::or_skip("alerts: block") else {
        return;
    };
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    let mut agent = Agent::prepare(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    let (mut receiver, port) = receiver(&world);
    let told = agent.directory().join("told.json");
    agent.configure(&format!(
        "{}[alerts]\ncommand = [\"/bin/sh\", \"-c\", \"cat > {}\"]\n\
         [alerts.webhook]\nurl = \"http://127.0.0.1:{port}/hook\"\nsecret_file = \"{}\"\n\
         [alerts.rules.blocked_destination]\nenabled = false\n\
         [alerts.rules.repeated_denials]\nmore_than = 3\nactions = [\"log\", \"notify\", \"block\"]\n",
        agent.configuration(),
        told.display(),
        secret(&agent),
    ));
    agent.launch();
    let state = agent.directory().join("state");
    let allowed = SocketAddr::from((ALLOWED_V4, 443)).to_string();
    let mut probe = agent.probe(
        "s",
        "changing",
        &[
            "resolve allowed.example",
            "open t tcp4",
            &format!("connect t {allowed}"),
            "send t before",
            "receive t",
            "pause",
            "resolve one.example",
            "resolve two.example",
            "resolve three.example",
            "resolve four.example",
            "pause",
            "send t after",
            "resolve allowed.example",
            &format!("tcp-exchange {allowed} again"),
            "pause",
            "named-exchange allowed.example 443 hello",
        ],
    );
    for attempt in until_pause(&mut probe) {
        attempt.succeeded();
    }
    for attempt in go_on(&mut probe) {
        attempt.failed();
    }

    // Told, signed, again under the same id after a refusal, and recorded.
    let mut messages: Vec<Value> = Vec::new();
    while messages.len() < 2 {
        let line = receiver.line().expect("a message");
        messages.push(serde_json::from_str(&line).expect("JSON"));
    }
    assert_eq!(messages[0]["refused"], true);
    assert_eq!(messages[1]["refused"], false);
    assert_eq!(messages[0]["id"], messages[1]["id"]);
    for message in &messages {
        assert_eq!(message["signed"], true, "{message}");
        assert_eq!(message["fresh"], true, "{message}");
        assert_eq!(message["body"]["type"], "egress.alert");
        let data = &message["body"]["data"];
        assert_eq!(data["condition"], "repeated_denials");
        assert_eq!(data["severity"], "high");
        assert_eq!(data["sandbox"], "s");
    }
    let alert = recorded(&state, &["\"kind\":\"alert\"", "alert:repeated_denials"]);
    assert_eq!(alert["sandbox"], "s");
    recorded(
        &state,
        &[
            "\"kind\":\"sandbox\"",
            "blocked: alert repeated_denials (high)",
        ],
    );
    let deadline = Instant::now() + patience();
    while !told.exists() || fs::read_to_string(&told).is_ok_and(|text| text.is_empty()) {
        assert!(Instant::now() < deadline, "the command was not run");
        std::thread::sleep(Duration::from_millis(20));
    }
    let by_command: Value =
        serde_json::from_str(&fs::read_to_string(&told).expect("read")).expect("JSON");
    assert_eq!(by_command["data"]["id"], messages[0]["body"]["data"]["id"]);

    // Blocked: what was open is closed, and nothing new opens, also for the next agent.
    for attempt in go_on(&mut probe) {
        attempt.failed();
    }
    let refused = recorded(&state, &["sandbox_blocked", &ALLOWED_V4.to_string()]);
    assert_eq!(refused["sandbox"], "s");
    assert!(
        refused["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("egressctl sandbox unblock s")),
        "{refused}"
    );
    agent.kill();
    agent.launch();
    agent
        .ask(&["sandbox", "unblock", "s", "--reason", "looked into"])
        .succeeded();
    for attempt in rest(probe) {
        attempt.succeeded();
    }
    recorded(&state, &["unblocked: looked into (uid 0)"]);
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
}

#[test]
fn names_that_carry_data_end_the_sandbox() {
    let Some(world) = World::or_skip("alerts: terminate") else {
        return;
    };
    let mut agent = Agent::prepare(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    agent.configure(&format!(
        "{}[alerts.rules.exfiltration]\nmore_than = 2\n",
        agent.configuration()
    ));
    agent.launch();
    let query = |n: u32| format!("resolve mzxw6ytboi2gk3tfnzqxg5dsnfxgo4t{n:04}mzxi.t.example");
    let steps: Vec<String> = (0..5).map(query).chain(["sleep 600000".into()]).collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let probe = agent.probe("s", "changing", &steps);
    let (status, _, errors) = probe.finish();
    assert_eq!(status.code(), Some(128 + 9), "{errors}");
    let state = agent.directory().join("state");
    let alert = recorded(&state, &["\"kind\":\"alert\"", "alert:exfiltration"]);
    assert!(
        alert["detail"]
            .as_str()
            .is_some_and(|detail| detail.starts_with("critical: ")),
        "{alert}"
    );
    recorded(&state, &["terminated: alert exfiltration (critical)"]);
}

#[test]
fn a_configuration_of_alerts_that_cannot_be_meant_is_refused() {
    let Some(world) = World::or_skip("alerts: configuration") else {
        return;
    };
    let agent = Agent::prepare(&world, &[]);
    let open = agent.directory().join("open.secret");
    fs::write(&open, SECRET).expect("written");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("set");
    for (text, said) in [
        ("[alerts.rules.weather]\n".to_owned(), "blocked_destination"),
        (
            "[alerts.webhook]\nurl = \"http://hooks.example.com/\"\nsecret_file = \"/s\"\n"
                .to_owned(),
            "unencrypted",
        ),
        (
            format!(
                "[alerts.webhook]\nurl = \"https://hooks.example.com/\"\nsecret_file = \"{}\"\n",
                open.display()
            ),
            "mode 0600",
        ),
    ] {
        agent.configure(&format!("{}{text}", agent.configuration()));
        let (status, _, errors) = agent.begin().finish();
        assert_eq!(status.code(), Some(78), "{errors}");
        assert!(errors.contains(said), "{errors}");
    }
}
