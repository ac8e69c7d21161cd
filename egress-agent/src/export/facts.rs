//! What the schemas ask of a record in their own words, found once.

use crate::audit::StoredRecord;
use serde::Serialize;
use std::net::IpAddr;

/// A record, seen as the schemas see events.
pub(super) struct Facts<'a> {
    /// It came from outside.
    pub inbound: bool,
    /// It is a query; its name is no party of a connection.
    pub is_dns: bool,
    /// It is about the network at all.
    pub is_network: bool,
    /// The name that was asked for, of a query.
    pub question: Option<&'a str>,
    /// The party that is not the sandbox.
    pub peer: Option<Peer<'a>>,
    /// Who did it.
    pub process: Option<Process<'a>>,
    /// On whose account, a number as text.
    pub user: Option<String>,
    /// File and line.
    pub rule: Option<Rule<'a>>,
    /// 4 or 6.
    pub ip_version: Option<u32>,
}

/// The party that is not the sandbox.
#[derive(Clone, Copy)]
pub(super) struct Peer<'a> {
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub name: Option<&'a str>,
}

/// A process, as both schemas write it.
#[derive(Serialize)]
pub(super) struct Process<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// Where the rule stands that decided.
pub(super) struct Rule<'a> {
    pub id: String,
    pub text: Option<&'a str>,
}

/// What no schema has a field for, under the product's own names.
#[derive(Serialize)]
pub(super) struct Own<'a> {
    kind: &'a str,
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

impl<'a> Facts<'a> {
    pub fn of(record: &'a StoredRecord) -> Self {
        let is_dns = record.kind == "dns";
        let name = record.name.as_deref();
        let domain = name.filter(|_| !is_dns);
        let has_peer = record.address.is_some() || domain.is_some();
        let has_process = record.process.is_some() || record.command.is_some();
        Self {
            inbound: record.hook.as_deref() == Some("ingress"),
            is_dns,
            is_network: matches!(record.kind.as_str(), "flow" | "dns"),
            question: name.filter(|_| is_dns),
            peer: has_peer.then_some(Peer {
                address: record.address,
                port: record.port,
                name: domain,
            }),
            process: has_process.then_some(Process {
                pid: record.process,
                name: record.command.as_deref(),
            }),
            user: record.user.map(|id| id.to_string()),
            rule: record.rule.as_ref().map(|rule| Rule {
                id: format!("{}:{}", rule.file, rule.line),
                text: rule.text.as_deref(),
            }),
            ip_version: record.address.map(|ip| if ip.is_ipv4() { 4 } else { 6 }),
        }
    }

    /// Puts the peer where the direction wants it, and something else in the
    /// other place: source, then destination.
    pub fn ends<T>(&self, peer: T, other: T) -> (T, T) {
        if self.inbound {
            (peer, other)
        } else {
            (other, peer)
        }
    }
}

impl<'a> Own<'a> {
    pub fn of(record: &'a StoredRecord) -> Self {
        Self {
            kind: &record.kind,
            on_behalf_of: record.on_behalf_of.as_deref(),
            sandbox: record.sandbox.as_deref(),
            sandbox_id: record.sandbox_id,
            policy: record.policy.as_deref(),
            session: record.session.as_deref(),
            task: record.task.as_deref(),
            project: record.project.as_deref(),
            hook: record.hook.as_deref(),
        }
    }
}
