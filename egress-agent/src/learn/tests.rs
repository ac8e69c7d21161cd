//! What is learned from records, and what a policy would change.

use super::{Draft, Replay};
use crate::audit::StoredRecord;
use crate::policy::{Policy, render};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A record with these fields and no others.
fn record(given: Value) -> StoredRecord {
    let mut whole = serde_json::to_value(crate::audit::sample_for_tests()).expect("JSON");
    let fields = whole.as_object_mut().expect("an object");
    for (name, value) in fields.iter_mut() {
        if ![
            "id",
            "node",
            "sequence",
            "time",
            "kind",
            "count",
            "labels",
            "relaxations",
        ]
        .contains(&name.as_str())
        {
            *value = Value::Null;
        }
    }
    fields["count"] = json!(1);
    for (name, value) in given.as_object().expect("an object") {
        assert!(fields.contains_key(name), "no field {name}");
        fields[name] = value.clone();
    }
    serde_json::from_value(whole).expect("a record")
}

fn flow(
    verdict: &str,
    name: Option<&str>,
    address: &str,
    port: u16,
    reason: Option<&str>,
) -> StoredRecord {
    record(json!({
        "kind": "flow", "hook": "connect", "sandbox": "build", "verdict": verdict, "name": name,
        "address": address, "port": port, "protocol": "tcp", "reason": reason,
    }))
}

fn query(verdict: &str, name: &str, reason: Option<&str>, detail: Option<&str>) -> StoredRecord {
    record(json!({
        "kind": "dns", "hook": "resolver", "sandbox": "build", "verdict": verdict, "name": name,
        "query_type": "A", "reason": reason, "detail": detail,
    }))
}

fn draft(records: &[StoredRecord]) -> String {
    let mut draft = Draft::default();
    for record in records {
        draft.take(record);
    }
    draft.policy("learned", Some("build"))
}

fn policy(text: &str) -> Policy {
    match Policy::parse("candidate.yaml", text, Timestamp::UNIX_EPOCH) {
        Ok((policy, _)) => policy,
        Err(found) => panic!(
            "{}\n{text}",
            render::diagnostics_text(&found, render::Colour::No)
        ),
    }
}

#[test]
fn what_was_done_becomes_lines_with_counts_and_passes_the_check() {
    let text = draft(&[
        flow("allow", Some("a.example.com"), "203.0.113.1", 443, None),
        flow("allow", Some("a.example.com"), "203.0.113.2", 443, None),
        flow(
            "would_deny",
            Some("a.example.com"),
            "203.0.113.1",
            8443,
            Some("no_rule"),
        ),
        flow("deny", None, "198.51.100.7", 5432, Some("no_rule")),
        query("deny", "wanted.example.com", Some("name_not_allowed"), None),
    ]);
    let learned = policy(&text);
    assert_eq!(learned.name, "learned");
    assert!(text.contains("# 443/tcp: 2 flows; build"), "{text}");
    assert!(
        text.contains("# 8443/tcp: 1 flows, 1 of them without a rule"),
        "{text}"
    );
    assert!(
        text.contains("    - domain: \"a.example.com\"\n      ports: [443, 8443]\n"),
        "{text}"
    );
    assert!(
        text.contains("    - cidr: \"198.51.100.7/32\"\n      ports: [5432]\n"),
        "{text}"
    );
    assert!(
        text.contains("#   - { domain: \"wanted.example.com\", protocols: [https] }"),
        "{text}"
    );
    assert_eq!(
        learned.rules.len(),
        2,
        "what was only asked for is no rule: {text}"
    );
}

#[test]
fn an_address_that_the_resolver_handed_out_is_learned_by_its_name() {
    let text = draft(&[
        query(
            "would_deny",
            "a.example.com",
            Some("name_not_allowed"),
            Some("granted 203.0.113.1, 203.0.113.2"),
        ),
        flow("would_deny", None, "203.0.113.2", 443, Some("no_rule")),
    ]);
    assert!(
        text.contains("    - domain: \"a.example.com\"\n      protocols: [https]\n"),
        "{text}"
    );
    assert!(!text.contains("cidr"), "{text}");
    policy(&text);
}

#[test]
fn nothing_that_was_refused_as_an_attack_is_ever_in_a_draft() {
    let attacks = [
        "unparsable_packet",
        "socket_kind",
        "socket_option",
        "never_allowed",
        "loopback",
        "inbound",
        "foreign_socket",
        "other_resolver",
        "misrouted",
        "name_blocked",
        "rebinding",
        "chain_refused",
        "too_many_queries",
        "kernel_helper_failed",
        "unknown_sandbox",
    ];
    let mut records: Vec<StoredRecord> = attacks
        .iter()
        .map(|reason| {
            flow(
                "would_deny",
                Some("evil.example"),
                "203.0.113.9",
                443,
                Some(reason),
            )
        })
        .collect();
    records.extend([
        // A name that answered into a private range, and was reached too.
        query("deny", "rebound.example", Some("rebinding"), None),
        flow("allow", Some("rebound.example"), "203.0.113.10", 443, None),
        // A name that carries data.
        query(
            "deny",
            "mzxw6ytboi2gk3tfnzqxg5dsnfxgo4tfmfzxi.t.example",
            Some("name_not_allowed"),
            None,
        ),
        // Private, metadata and loopback addresses by number.
        flow("would_deny", None, "10.0.0.5", 22, Some("no_rule")),
        flow("would_deny", None, "169.254.169.254", 80, Some("no_rule")),
        flow("would_deny", None, "127.0.0.1", 6379, Some("no_rule")),
    ]);
    let text = draft(&records);
    let learned = policy(&text);
    assert_eq!(learned.rules, [], "{text}");
    for part in [
        "evil",
        "rebound",
        "mzxw6",
        "10.0.0.5",
        "169.254",
        "127.0.0.1",
    ] {
        assert!(!text.contains(part), "{part} in {text}");
    }
    assert!(
        text.contains("times rebinding"),
        "what was left out is told: {text}"
    );
}

#[test]
fn nothing_recorded_is_a_policy_that_allows_nothing() {
    let learned = policy(&draft(&[]));
    assert_eq!(learned.rules, []);
}

#[test]
fn a_replay_tells_what_a_candidate_would_change_and_what_it_has_no_part_in() {
    let candidate = policy(
        "apiVersion: egress/v1\nname: candidate\nallowlist:\n  web:\n    - domain: \"new.example.com\"\n      protocols: [https]\n    - cidr: \"198.51.100.0/24\"\n      ports: [5432]\n      protocols: [tcp]\n",
    );
    let mut replay = Replay::new(&candidate, Timestamp::UNIX_EPOCH);
    for record in [
        flow("allow", Some("old.example.com"), "203.0.113.1", 443, None),
        flow("allow", Some("old.example.com"), "203.0.113.2", 443, None),
        flow(
            "deny",
            Some("new.example.com"),
            "203.0.113.3",
            443,
            Some("no_rule"),
        ),
        flow(
            "deny",
            Some("new.example.com"),
            "203.0.113.3",
            22,
            Some("no_rule"),
        ),
        flow("deny", None, "198.51.100.7", 5432, Some("no_rule")),
        query("deny", "new.example.com", Some("name_not_allowed"), None),
        flow("deny", None, "203.0.113.9", 9, Some("socket_option")),
        record(json!({"kind": "agent"})),
    ] {
        replay.take(&record);
    }
    let changes: Vec<(String, u64, &str, &str)> = replay
        .changes()
        .iter()
        .map(|change| {
            let place = match change.port {
                Some(port) => format!("{} {port}", change.destination),
                None => change.destination.clone(),
            };
            (place, change.count, change.was.as_str(), change.would_be)
        })
        .collect();
    assert_eq!(
        changes[0],
        ("old.example.com 443".to_owned(), 1, "allow", "deny")
    );
    let mut rest = changes[2..].to_vec();
    rest.sort();
    assert_eq!(
        rest,
        [
            ("198.51.100.7 5432".to_owned(), 1, "deny", "allow"),
            ("new.example.com".to_owned(), 1, "deny", "allow"),
            ("new.example.com 443".to_owned(), 1, "deny", "allow"),
        ]
    );
    assert_eq!((replay.asked, replay.same, replay.not_policy), (6, 1, 1));
}

#[test]
fn a_name_that_the_candidate_allows_leads_nowhere_private() {
    let candidate = policy(
        "apiVersion: egress/v1\nname: candidate\nallowlist:\n  web:\n    - domain: \"a.example.com\"\n      protocols: [https]\n",
    );
    let mut replay = Replay::new(&candidate, Timestamp::UNIX_EPOCH);
    replay.take(&flow("allow", Some("a.example.com"), "10.0.0.7", 443, None));
    assert_eq!(
        replay.changes().len(),
        1,
        "the resolver would not hand it out"
    );
}

fn echo(
    hook: &str,
    name: Option<&str>,
    address: &str,
    verdict: &str,
    reason: Option<&str>,
) -> StoredRecord {
    record(json!({
        "kind": "flow", "hook": hook, "sandbox": "build", "verdict": verdict, "name": name,
        "address": address, "protocol": "icmp", "reason": reason,
    }))
}

#[test]
fn pings_are_learned_without_ports_and_what_else_icmp_was_refused_is_not() {
    let text = draft(&[
        echo(
            "interface_leaves",
            Some("a.example.com"),
            "203.0.113.1",
            "allow",
            None,
        ),
        echo(
            "interface_leaves",
            None,
            "198.51.100.7",
            "deny",
            Some("no_rule"),
        ),
        echo(
            "interface_leaves",
            None,
            "198.51.100.8",
            "deny",
            Some("unparsable_packet"),
        ),
        flow("allow", Some("a.example.com"), "203.0.113.1", 443, None),
    ]);
    let learned = policy(&text);
    assert_eq!(learned.rules.len(), 3, "{text}");
    assert!(
        text.contains(
            "    # icmp: 1 flows; build\n    - domain: \"a.example.com\"\n      protocols: [icmp]\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("    - cidr: \"198.51.100.7/32\"\n      protocols: [icmp]\n"),
        "{text}"
    );
    assert!(!text.contains("198.51.100.8"), "{text}");
}

#[test]
fn a_replay_asks_about_pings_through_interfaces() {
    let candidate = policy(
        "apiVersion: egress/v1\nname: candidate\nallowlist:\n  a:\n    - { cidr: \"203.0.113.0/24\", protocols: [icmp] }\n    - { cidr: \"198.51.100.0/24\", ports: [any], protocols: [tcp, udp] }\n",
    );
    let mut replay = Replay::new(&candidate, Timestamp::UNIX_EPOCH);
    replay.take(&echo(
        "interface_leaves",
        None,
        "203.0.113.7",
        "deny",
        Some("no_rule"),
    ));
    replay.take(&echo(
        "interface_leaves",
        None,
        "198.51.100.7",
        "allow",
        None,
    ));
    replay.take(&echo(
        "interface_leaves",
        None,
        "203.0.113.8",
        "allow",
        None,
    ));
    let changes: Vec<_> = replay
        .changes()
        .iter()
        .map(|change| {
            (
                change.destination.as_str(),
                change.port,
                change.protocol,
                change.would_be,
            )
        })
        .collect();
    assert_eq!(
        changes,
        [
            ("198.51.100.7", None, Some("icmp"), "deny"),
            ("203.0.113.7", None, Some("icmp"), "allow"),
        ]
    );
    assert_eq!((replay.asked, replay.same), (3, 1));
}
