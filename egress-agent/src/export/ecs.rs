//! Elastic Common Schema 8.

use super::facts::{Facts, Own, Process};
use super::time::rfc3339;
use super::{PRODUCT, VENDOR, VERSION, summary};
use crate::audit::StoredRecord;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The version whose field names these are.
const ECS_VERSION: &str = "8.11.0";

#[derive(Serialize)]
pub struct Event<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    message: String,
    ecs: Ecs,
    event: About<'a>,
    host: Host<'a>,
    observer: Observer,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule<'a>>,
    related: Related<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    /// What ECS has no field for, under the product's own name.
    egress: Egress<'a>,
}

#[derive(Serialize)]
struct Ecs {
    version: &'static str,
}

#[derive(Serialize)]
struct About<'a> {
    kind: &'static str,
    category: [&'static str; 1],
    r#type: Vec<&'static str>,
    action: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    dataset: &'static str,
    module: &'static str,
    provider: &'static str,
    id: &'a str,
    sequence: i64,
}

#[derive(Serialize)]
struct Host<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Observer {
    vendor: &'static str,
    product: &'static str,
    version: &'static str,
    r#type: &'static str,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

#[derive(Serialize)]
struct Network<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iana_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    direction: &'static str,
}

#[derive(Serialize)]
struct Dns<'a> {
    r#type: &'static str,
    question: Question<'a>,
}

#[derive(Serialize)]
struct Question<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
}

#[derive(Serialize)]
struct User {
    id: String,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ruleset: Option<&'a str>,
}

#[derive(Serialize)]
struct Related<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<[IpAddr; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<[&'a str; 1]>,
}

#[derive(Serialize)]
struct Egress<'a> {
    #[serde(flatten)]
    own: Own<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a str>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// The record as an event.
pub fn event(record: &StoredRecord) -> Event<'_> {
    let facts = Facts::of(record);
    let endpoint = facts.peer.map(|peer| Endpoint {
        address: peer
            .name
            .map(str::to_owned)
            .or_else(|| peer.address.map(|ip| ip.to_string())),
        ip: peer.address,
        port: peer.port,
        domain: peer.name,
    });
    let (source, destination) = facts.ends(endpoint, None);
    let protocol = record.protocol.as_deref();
    let number = protocol.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    Event {
        timestamp: rfc3339(record.time),
        message: summary(record),
        ecs: Ecs {
            version: ECS_VERSION,
        },
        event: about(record),
        host: Host { name: &record.node },
        observer: Observer {
            vendor: VENDOR,
            product: PRODUCT,
            version: VERSION,
            r#type: "firewall",
        },
        destination,
        source,
        network: facts.is_network.then(|| Network {
            transport: protocol.filter(|_| number.is_none()),
            iana_number: number,
            r#type: facts
                .ip_version
                .map(|version| if version == 4 { "ipv4" } else { "ipv6" }),
            protocol: facts.is_dns.then_some("dns"),
            direction: if facts.inbound { "ingress" } else { "egress" },
        }),
        dns: facts.is_dns.then_some(Dns {
            r#type: "query",
            question: Question {
                name: facts.question,
                r#type: record.query_type.as_deref(),
            },
        }),
        process: facts.process,
        user: facts.user.map(|id| User { id }),
        rule: facts.rule.map(|rule| Rule {
            id: rule.id,
            name: rule.text,
            ruleset: record.policy.as_deref(),
        }),
        related: Related {
            ip: record.address.map(|ip| [ip]),
            hosts: record.name.as_deref().map(|name| [name]),
        },
        labels: &record.labels,
        egress: Egress {
            own: Own::of(record),
            verdict: record.verdict.as_deref(),
            count: record.count,
            detail: record.detail.as_deref(),
        },
    }
}

/// The fields by which everything is sorted; their words are ECS's own.
fn about(record: &StoredRecord) -> About<'_> {
    let verdict = record.verdict.as_deref();
    let (kind, category, mut types) = match record.kind.as_str() {
        "flow" => ("event", "network", vec!["connection"]),
        "dns" => ("event", "network", vec!["protocol"]),
        "alert" => ("alert", "intrusion_detection", vec!["info"]),
        "policy" => ("event", "configuration", vec!["change"]),
        "loss" => ("pipeline_error", "process", vec!["error"]),
        _ => ("event", "process", vec!["info"]),
    };
    let is_network = category == "network";
    match verdict {
        Some("deny") if is_network => types.push("denied"),
        Some(_) if is_network => types.push("allowed"),
        _ => {}
    }
    About {
        kind,
        category: [category],
        r#type: types,
        action: verdict.unwrap_or(&record.kind),
        outcome: match verdict {
            Some("allow" | "would_deny") => "success",
            Some("deny") => "failure",
            _ => "unknown",
        },
        reason: record.reason.as_deref(),
        dataset: "egress.audit",
        module: "egress",
        provider: PRODUCT,
        id: &record.id,
        sequence: record.sequence,
    }
}
