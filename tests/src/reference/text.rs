//! A policy as the text that a person would write.

use super::{Policy, Ports, Protocol, Rule, Subject};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;

/// A policy's text, and the line of each of its rules.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Written {
    pub yaml: String,
    pub lines: Vec<u32>,
}

/// Writes a policy; `began` is the moment that `expires` counts from.
pub fn write(policy: &Policy, began: Timestamp) -> Written {
    let mut yaml = format!(
        "apiVersion: egress/v1\nname: {}\negress: {{ mode: {} }}\n",
        policy.name,
        if policy.shadow { "shadow" } else { "enforce" }
    );
    let dns = &policy.dns;
    // Writing to a string cannot fail.
    let _ = writeln!(
        yaml,
        "dns: {{ cache_ttl: {}s, min_ttl: {}s, max_ttl: {}s, grace: {}s, max_addresses: {} }}",
        dns.cache_ttl, dns.min_ttl, dns.max_ttl, dns.grace, dns.max_addresses
    );
    if !policy.blocklist.is_empty() {
        yaml += "blocklist:\n";
    }
    for entry in &policy.blocklist {
        let _ = writeln!(yaml, "  - {{ {} }}", subject(entry));
    }
    // Half of the rules under each of the two keys.
    let (grouped, listed) = policy.rules.split_at(policy.rules.len().div_ceil(2));
    let mut lines = Vec::new();
    for (head, rules) in [
        ("allowlist:\n  group:\n", grouped),
        ("project_allowlist:\n", listed),
    ] {
        if !rules.is_empty() {
            yaml += head;
        }
        for written in rules {
            lines.push(1 + yaml.matches('\n').count() as u32);
            let _ = writeln!(yaml, "    - {{ {} }}", rule(written, began));
        }
    }
    Written { yaml, lines }
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Domain(pattern) => format!("domain: \"{pattern}\""),
        Subject::Cidr(net) => format!("cidr: \"{net}\""),
    }
}

fn rule(rule: &Rule, began: Timestamp) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let mut text = subject(&rule.subject);
    let protocols = rule.protocols.iter().map(|protocol| match protocol {
        Protocol::Https => "https".to_owned(),
        Protocol::Http => "http".to_owned(),
        Protocol::Tcp => "tcp".to_owned(),
        Protocol::Udp => "udp".to_owned(),
        Protocol::Icmp => "icmp".to_owned(),
    });
    text += &format!(", protocols: [{}]", list(protocols.collect()));
    let ports = rule.ports.iter().map(|ports| match ports {
        Ports::One(port) => port.to_string(),
        Ports::Range(first, last) => format!("\"{first}-{last}\""),
        Ports::Any => "any".to_owned(),
    });
    if !rule.ports.is_empty() {
        text += &format!(", ports: [{}]", list(ports.collect()));
    }
    if rule.allow_private {
        text += ", allow_private: true";
    }
    let networks = rule.allow_private_networks.iter();
    if !rule.allow_private_networks.is_empty() {
        let networks = networks.map(|net| format!("\"{net}\"")).collect();
        text += &format!(", allow_private_networks: [{}]", list(networks));
    }
    if let Some(expires) = rule.expires {
        let moment = began + SignedDuration::from_secs(expires.cast_signed());
        text += &format!(", expires: \"{moment}\"");
    }
    text
}
