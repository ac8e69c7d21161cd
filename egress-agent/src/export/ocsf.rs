//! Open Cybersecurity Schema Framework 1.3.
//!
//! A flow is Network Activity (4001), a query DNS Activity (4003), an alert a
//! Detection Finding (2004); everything else is told as a Base Event, which any
//! consumer of the schema accepts. Verdicts follow the `security_control` profile.

use super::facts::{Facts, Own, Process};
use super::{PRODUCT, VENDOR, VERSION, sentence, summary};
use crate::audit::StoredRecord;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The version of the schema.
const SCHEMA: &str = "1.3.0";

#[derive(Serialize)]
pub struct Event<'a> {
    activity_id: u32,
    activity_name: &'static str,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    type_uid: u32,
    type_name: String,
    severity_id: u32,
    severity: &'static str,
    status_id: u32,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<&'a str>,
    /// Milliseconds since the epoch, as the schema's `timestamp_t`.
    time: i64,
    count: u64,
    message: String,
    metadata: Metadata<'a>,
    device: Device<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Actor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_info: Option<Connection<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<Query<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finding_info: Option<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_rule: Option<Rule<'a>>,
    observables: Vec<Observable>,
    unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    product: Product,
    profiles: [&'static str; 2],
    uid: &'a str,
    sequence: i64,
    log_name: &'static str,
    log_provider: &'a str,
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Device<'a> {
    hostname: &'a str,
    type_id: u32,
    r#type: &'static str,
}

#[derive(Serialize)]
struct Verdict {
    action_id: u32,
    action: &'static str,
    disposition_id: u32,
    disposition: &'static str,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
}

#[derive(Serialize)]
struct User {
    uid: String,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct Connection<'a> {
    direction_id: u32,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_num: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_ver_id: Option<u32>,
}

#[derive(Serialize)]
struct Query<'a> {
    hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
    class: &'static str,
    opcode_id: u32,
}

#[derive(Serialize)]
struct Finding {
    title: String,
    uid: String,
}

#[derive(Serialize)]
struct Rule<'a> {
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct Observable {
    name: &'static str,
    type_id: u32,
    r#type: &'static str,
    value: String,
}

#[derive(Serialize)]
struct Unmapped<'a> {
    #[serde(flatten)]
    own: Own<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

/// Category, class and activity, with the names that belong to the numbers.
struct Class {
    category: (u32, &'static str),
    class: (u32, &'static str),
    activity: (u32, &'static str),
}

fn class(record: &StoredRecord) -> Class {
    const NETWORK: (u32, &str) = (4, "Network Activity");
    let verdict = record.verdict.as_deref();
    match record.kind.as_str() {
        "flow" => Class {
            category: NETWORK,
            class: (4001, "Network Activity"),
            activity: match verdict {
                Some("allow" | "would_deny") => (1, "Open"),
                Some("deny") => (5, "Refuse"),
                _ => (6, "Traffic"),
            },
        },
        "dns" => Class {
            category: NETWORK,
            class: (4003, "DNS Activity"),
            activity: (1, "Query"),
        },
        "alert" => Class {
            category: (2, "Findings"),
            class: (2004, "Detection Finding"),
            activity: (1, "Create"),
        },
        _ => Class {
            category: (0, "Uncategorized"),
            class: (0, "Base Event"),
            activity: (99, "Other"),
        },
    }
}

/// The record as an event.
pub fn event(record: &StoredRecord) -> Event<'_> {
    let Class {
        category,
        class,
        activity,
    } = class(record);
    let (severity_id, severity) = severity(record);
    let (status_id, status) = match record.verdict.as_deref() {
        Some("allow" | "would_deny") => (1, "Success"),
        Some("deny") => (2, "Failure"),
        _ => (0, "Unknown"),
    };
    let facts = Facts::of(record);
    let peer = facts.peer.map(|peer| Endpoint {
        ip: peer.address,
        port: peer.port,
        hostname: peer.name,
        name: None,
    });
    // The other party of a flow without an address is what the kernel was asked
    // for; the schema wants one of both endpoints.
    let own = facts.is_network.then(|| Endpoint {
        ip: None,
        port: None,
        hostname: Some(&record.node),
        name: record.sandbox.as_deref(),
    });
    let (src_endpoint, dst_endpoint) = facts.ends(peer, own);
    Event {
        activity_id: activity.0,
        activity_name: activity.1,
        category_uid: category.0,
        category_name: category.1,
        class_uid: class.0,
        class_name: class.1,
        type_uid: class.0 * 100 + activity.0,
        type_name: format!("{}: {}", class.1, activity.1),
        severity_id,
        severity,
        status_id,
        status,
        status_code: record.reason.as_deref(),
        status_detail: record.reason.as_deref().map(sentence),
        time: record.time.as_millisecond(),
        count: record.count,
        message: summary(record),
        metadata: Metadata {
            version: SCHEMA,
            product: Product {
                name: PRODUCT,
                vendor_name: VENDOR,
                version: VERSION,
            },
            profiles: ["host", "security_control"],
            uid: &record.id,
            sequence: record.sequence,
            log_name: "audit",
            log_provider: &record.node,
        },
        device: Device {
            hostname: &record.node,
            type_id: 1,
            r#type: "Server",
        },
        verdict: verdict(record),
        connection_info: facts.is_network.then(|| connection(record, &facts)),
        observables: observables(record, &facts),
        actor: actor(facts.process, facts.user),
        dst_endpoint,
        src_endpoint,
        query: facts.question.map(|hostname| Query {
            hostname,
            r#type: record.query_type.as_deref(),
            class: "IN",
            opcode_id: 0,
        }),
        finding_info: (record.kind == "alert").then(|| Finding {
            title: record.detail.clone().unwrap_or_else(|| record.kind.clone()),
            uid: record.id.clone(),
        }),
        firewall_rule: facts.rule.map(|rule| Rule {
            uid: rule.id,
            name: rule.text,
        }),
        unmapped: Unmapped {
            own: Own::of(record),
            labels: &record.labels,
        },
    }
}

fn severity(record: &StoredRecord) -> (u32, &'static str) {
    match (record.kind.as_str(), record.verdict.as_deref()) {
        ("loss" | "alert", _) => (4, "High"),
        (_, Some("deny")) => (3, "Medium"),
        (_, Some("would_deny")) => (2, "Low"),
        _ => (1, "Informational"),
    }
}

fn verdict(record: &StoredRecord) -> Option<Verdict> {
    let (action_id, action, disposition_id, disposition) = match record.verdict.as_deref()? {
        "allow" => (1, "Allowed", 1, "Allowed"),
        "deny" => (2, "Denied", 2, "Blocked"),
        "would_deny" => (1, "Allowed", 17, "Logged"),
        _ => (0, "Unknown", 0, "Unknown"),
    };
    Some(Verdict {
        action_id,
        action,
        disposition_id,
        disposition,
    })
}

fn actor<'a>(process: Option<Process<'a>>, user: Option<String>) -> Option<Actor<'a>> {
    let user = user.map(|uid| User { uid });
    (process.is_some() || user.is_some()).then_some(Actor { process, user })
}

fn connection<'a>(record: &'a StoredRecord, facts: &Facts<'a>) -> Connection<'a> {
    let protocol = record.protocol.as_deref();
    let number = match protocol {
        Some("icmp") => Some(1),
        Some("tcp") => Some(6),
        Some("udp") => Some(17),
        Some(other) => other.parse().ok(),
        None => None,
    };
    Connection {
        direction_id: if facts.inbound { 1 } else { 2 },
        direction: if facts.inbound { "Inbound" } else { "Outbound" },
        protocol_name: protocol,
        protocol_num: number,
        protocol_ver_id: facts.ip_version,
    }
}

/// Each names the attribute of the event that it repeats.
fn observables(record: &StoredRecord, facts: &Facts<'_>) -> Vec<Observable> {
    let (ip, host) = if facts.inbound {
        ("src_endpoint.ip", "src_endpoint.hostname")
    } else {
        ("dst_endpoint.ip", "dst_endpoint.hostname")
    };
    let observed = |name, type_id, r#type, value| Observable {
        name,
        type_id,
        r#type,
        value,
    };
    let host = if facts.is_dns { "query.hostname" } else { host };
    let name = record.name.clone();
    let name = name.map(|name| observed(host, 1, "Hostname", name));
    let address = record.address.map(|ip| ip.to_string());
    let address = address.map(|address| observed(ip, 2, "IP Address", address));
    name.into_iter().chain(address).collect()
}
