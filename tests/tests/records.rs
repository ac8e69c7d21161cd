//! What records of changes and ends say: who, what, and what was used.

mod policy;

use egress_tests::World;
use egress_tests::process::patience;
use egress_tests::product::{Agent, audit};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Waits for a record that this holds for.
#[track_caller]
fn record(agent: &Agent<'_>, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + patience();
    loop {
        let records = audit(&agent.directory().join("state"));
        if let Some(found) = records.iter().rev().find(|record| wanted(record)) {
            return found.clone();
        }
        assert!(Instant::now() < deadline, "{records:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_change_of_policy_says_who_made_it_and_what_changed() {
    let Some(world) = World::or_skip("records: policy") else {
        return;
    };
    let mut agent = Agent::start(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    let start = record(&agent, |it| it["kind"] == "policy");
    assert_eq!(start["actor"], "start of the agent");
    assert_eq!(start["diff"], Value::Null, "nothing was in force before");
    let digest = start["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(digest.len(), 64);

    let text = policy::changing(&["allowed.example", "second.example"], "");
    agent.write_policy("changing", &text);
    agent.ask(&["reload"]).succeeded();
    let is_change = |it: &Value| it["kind"] == "policy" && it["user"] == 0;
    let change = record(&agent, is_change);
    assert_eq!(change["actor"], "uid 0");
    assert_eq!(change["verdict"], "allow");
    assert_ne!(change["digest"], digest.as_str());
    let diff = change["diff"].as_str().expect("a diff");
    let added = |line: &str| line.starts_with('+') && line.contains("second.example");
    assert!(diff.lines().any(added), "{diff}");
    assert!(diff.contains("changing.yaml"), "{diff}");

    // What is refused changes nothing, and still says who tried.
    agent.write_policy("changing", "nonsense: 1\n");
    agent.egressctl(&["reload"]).expect("it starts").finish();
    let refused = record(&agent, |it| {
        it["kind"] == "policy" && it["verdict"] == "deny"
    });
    assert_eq!(refused["actor"], "uid 0");
    assert_eq!(refused["digest"], Value::Null);

    // Pushed while no agent ran: the next one tells what that changed.
    agent.kill();
    agent.write_policy("changing", &policy::changing(&["third.example"], ""));
    agent.launch();
    let pushed = record(&agent, |it| {
        it["kind"] == "policy" && it["actor"] == "start of the agent" && !it["diff"].is_null()
    });
    let diff = pushed["diff"].as_str().expect("a diff");
    assert!(
        diff.lines()
            .any(|line| line.starts_with('-') && line.contains("second.example")),
        "{diff}"
    );
}

#[test]
fn an_approved_rule_is_recorded_once_with_who_approved_it() {
    let Some(world) = World::or_skip("records: approval") else {
        return;
    };
    let approved = |names: &[&str]| {
        policy::changing(names, "").replacen(
            "protocols: [https]",
            "protocols: [https]\n      approved_by: ana\n      justification: >\n        the\n        \
             registry\n      expires: \"2099-01-01\"",
            1,
        )
    };
    let mut agent = Agent::start(&world, &[("changing", &approved(&["allowed.example"]))]);
    let approvals = |agent: &Agent<'_>| {
        let mut all = agent.audit();
        all.retain(|record| record["kind"] == "approval");
        all
    };
    let first = record(&agent, |it| it["kind"] == "approval");
    assert_eq!(first["actor"], "ana");
    assert_eq!(first["policy"], "changing");
    assert_eq!(first["rule"]["text"], "domain allowed.example");
    assert_eq!(
        first["detail"],
        "approved by ana, until 2099-01-01T00:00:00Z: the registry"
    );

    // Neither a reload that leaves it as it is nor the next agent tells it again;
    // another rule under the same name is another approval.
    agent.write_policy(
        "changing",
        &approved(&["allowed.example", "second.example"]),
    );
    agent.ask(&["reload"]).succeeded();
    agent.kill();
    agent.launch();
    assert_eq!(approvals(&agent).len(), 1);
    agent.write_policy("changing", &approved(&["third.example"]));
    agent.ask(&["reload"]).succeeded();
    record(&agent, |it| {
        it["kind"] == "approval" && it["rule"]["text"] == "domain third.example"
    });
    assert_eq!(approvals(&agent).len(), 2);
}

#[test]
fn the_end_of_a_sandbox_says_in_numbers_what_it_used() {
    let Some(world) = World::or_skip("records: usage") else {
        return;
    };
    let agent = Agent::start(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    agent
        .probe("s", "changing", &["resolve refused.example"])
        .finish();
    let end = record(&agent, |it| {
        it["sandbox"] == "s" && it["usage"] != Value::Null
    });
    assert_eq!(end["kind"], "sandbox");
    assert!(
        end["detail"]
            .as_str()
            .is_some_and(|detail| detail.starts_with("ended: cpu ")),
        "{end}"
    );
    // Every kernel accounts for processor time; the rest needs controllers.
    let cpu = end["usage"]["cpu_us"].as_u64().expect("a number");
    assert!(cpu > 0, "{end}");
    let began = record(&agent, |it| {
        it["kind"] == "sandbox" && it["usage"] == Value::Null
    });
    assert_eq!(began["sandbox"], "s");
}
