//! Open Cybersecurity Schema Framework 1.3.
//!
//! A flow is Network Activity (4001), a query DNS Activity (4003), an alert a
//! Detection Finding (2004); everything else is told as a Base Event, which any
//! consumer of the schema accepts. Verdicts follow the `security_control` profile.

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
struct Process<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
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
    kind: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'a str>,
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
pub fn event<'a>(record: &'a StoredRecord) -> Event<'a> {
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
    let inbound = record.hook.as_deref() == Some("ingress");
    let is_dns = record.kind == "dns";
    let name = record.name.as_deref();
    let peer = (record.address.is_some() || (name.is_some() && !is_dns)).then_some(Endpoint {
        ip: record.address,
        port: record.port,
        hostname: name,
        name: None,
    });
    // The other party of a flow without an address is what the kernel was asked
    // for; the schema wants one of both endpoints.
    let own = (category.0 == 4).then(|| Endpoint {
        ip: None,
        port: None,
        hostname: Some(&record.node),
        name: record.sandbox.as_deref(),
    });
    let (src_endpoint, dst_endpoint) = if inbound { (peer, own) } else { (own, peer) };
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
        actor: actor(record),
        dst_endpoint,
        src_endpoint,
        connection_info: (category.0 == 4).then(|| connection(record, inbound)),
        query: name.filter(|_| is_dns).map(|hostname| Query {
            hostname,
            r#type: record.query_type.as_deref(),
            class: "IN",
            opcode_id: 0,
        }),
        finding_info: (record.kind == "alert").then(|| Finding {
            title: record.detail.clone().unwrap_or_else(|| record.kind.clone()),
            uid: record.id.clone(),
        }),
        firewall_rule: record.rule.as_ref().map(|rule| Rule {
            uid: format!("{}:{}", rule.file, rule.line),
            name: rule.text.as_deref(),
        }),
        observables: observables(
            record,
            if inbound {
                "src_endpoint.ip"
            } else {
                "dst_endpoint.ip"
            },
        ),
        unmapped: Unmapped {
            labels: &record.labels,
            on_behalf_of: record.on_behalf_of.as_deref(),
            kind: &record.kind,
            sandbox: record.sandbox.as_deref(),
            sandbox_id: record.sandbox_id,
            policy: record.policy.as_deref(),
            session: record.session.as_deref(),
            task: record.task.as_deref(),
            project: record.project.as_deref(),
            hook: record.hook.as_deref(),
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

fn actor(record: &StoredRecord) -> Option<Actor<'_>> {
    let process = (record.process.is_some() || record.command.is_some()).then_some(Process {
        pid: record.process,
        name: record.command.as_deref(),
    });
    let user = record.user.map(|id| User {
        uid: id.to_string(),
    });
    (process.is_some() || user.is_some()).then_some(Actor { process, user })
}

fn connection(record: &StoredRecord, inbound: bool) -> Connection<'_> {
    let protocol = record.protocol.as_deref();
    let number = match protocol {
        Some("tcp") => Some(6),
        Some("udp") => Some(17),
        Some(other) => other.parse().ok(),
        None => None,
    };
    Connection {
        direction_id: if inbound { 1 } else { 2 },
        direction: if inbound { "Inbound" } else { "Outbound" },
        protocol_name: protocol,
        protocol_num: number,
        protocol_ver_id: record.address.map(|ip| if ip.is_ipv4() { 4 } else { 6 }),
    }
}

fn observables(record: &StoredRecord, address: &'static str) -> Vec<Observable> {
    let is_dns = record.kind == "dns";
    let name = record.name.as_ref().map(|name| Observable {
        name: match (is_dns, address) {
            (true, _) => "query.hostname",
            (false, "src_endpoint.ip") => "src_endpoint.hostname",
            (false, _) => "dst_endpoint.hostname",
        },
        type_id: 1,
        r#type: "Hostname",
        value: name.clone(),
    });
    let ip = record.address.map(|ip| Observable {
        name: address,
        type_id: 2,
        r#type: "IP Address",
        value: ip.to_string(),
    });
    name.into_iter().chain(ip).collect()
}
