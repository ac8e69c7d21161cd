//! What Prometheus reads from a running agent, judged by Prometheus' own tool.

mod policy;

use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::probe::until_pause;
use egress_tests::product::Agent;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// One request over a Unix socket: head and body of the answer.
fn get(socket: &Path, accept: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).expect("the endpoint answers");
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: agent\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// The value of a series that is written exactly so.
fn value(metrics: &str, series: &str) -> f64 {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or_else(|| panic!("no {series} in:\n{metrics}"))
}

/// What `promtool check metrics` has to say; nothing if all is well.
fn promtool(metrics: &str) -> String {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed; run `cargo xtask setup`");
    let mut input = tool.stdin.take().expect("a pipe");
    input.write_all(metrics.as_bytes()).expect("written");
    drop(input);
    let output = tool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        said.into_owned()
    } else {
        format!("{}: {said}", output.status)
    }
}

#[test]
fn prometheus_finds_nothing_to_object_to_and_counts_agree_with_what_happened() {
    let Some(world) = World::or_skip("metrics") else {
        return;
    };
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    let mut agent = Agent::prepare(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    let socket = agent.directory().join("metrics.sock");
    agent.configure(&format!(
        "{}count_bytes = true\n[metrics]\nlisten = \"unix:{}\"\nsandbox_labels = 10\n",
        agent.configuration(),
        socket.display()
    ));
    agent.launch();
    let mut probe = agent.probe(
        "s",
        "changing",
        &[
            "resolve allowed.example",
            "resolve refused.example",
            "named-exchange allowed.example 443 hello",
            "pause",
        ],
    );
    until_pause(&mut probe);
    let (head, metrics) = get(&socket, "*/*");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(promtool(&metrics), "", "{metrics}");

    assert!(value(&metrics, "egress_requests_total") >= 3.0);
    let refused =
        "egress_decisions_total{verdict=\"deny\",reason=\"name_not_allowed\",layer=\"resolver\"}";
    let refusals = value(&metrics, refused);
    assert!(refusals >= 1.0);
    assert_eq!(value(&metrics, "egress_requests_blocked_total"), refusals);
    assert_eq!(
        value(
            &metrics,
            "egress_sandbox_decisions_total{sandbox=\"s\",verdict=\"deny\"}"
        ),
        refusals
    );
    assert_eq!(value(&metrics, "egress_sandboxes"), 1.0);
    assert_eq!(
        value(&metrics, "egress_bpf_map_entries{map=\"sandboxes\"}"),
        1.0
    );
    assert!(value(&metrics, "egress_bpf_map_entries{map=\"grants\"}") >= 1.0);
    assert_eq!(
        value(&metrics, "egress_bpf_map_max_entries{map=\"grants\"}"),
        131_072.0
    );
    assert!(value(&metrics, "egress_kernel_redirected_total") >= 2.0);
    // An exchange was a handshake and a word each way.
    for direction in ["sent", "received"] {
        let series = format!("egress_bytes_total{{direction=\"{direction}\"}}");
        assert!(value(&metrics, &series) >= 100.0, "{series}");
    }
    assert!(value(&metrics, "egress_latency_seconds_count") >= 2.0);
    assert_eq!(value(&metrics, "egress_policy_last_reload_successful"), 1.0);
    assert!(
        value(
            &metrics,
            "egress_policy_last_reload_success_timestamp_seconds"
        ) > 1e9
    );

    // A load that is refused shows, and the moment of the last good one stays.
    let good = value(
        &metrics,
        "egress_policy_last_reload_success_timestamp_seconds",
    );
    agent.write_policy("changing", "apiVersion: egress/v1\nnonsense: 1\n");
    let reload = agent.egressctl(&["reload"]).expect("egressctl starts");
    assert!(!reload.finish().0.success());
    let (head, metrics) = get(&socket, "application/openmetrics-text;version=1.0.0");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert_eq!(value(&metrics, "egress_policy_last_reload_successful"), 0.0);
    assert_eq!(
        value(
            &metrics,
            "egress_policy_last_reload_success_timestamp_seconds"
        ),
        good
    );
}

#[test]
fn metrics_are_offered_on_loopback_only() {
    let Some(world) = World::or_skip("metrics: loopback") else {
        return;
    };
    let agent = Agent::prepare(&world, &[]);
    agent.configure(&format!(
        "{}[metrics]\nlisten = \"0.0.0.0:9751\"\n",
        agent.configuration()
    ));
    let (status, _, errors) = agent.begin().finish();
    assert_eq!(status.code(), Some(78), "{errors}");
    assert!(errors.contains("`metrics.listen`"), "{errors}");
}
