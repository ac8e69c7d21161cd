//! What differs between two policies in meaning: order, comments and notes do not.

use super::limits::{Bytes, Limits};
use super::meaning::{DnsSettings, LinkSettings, Policy};
use super::rule::{BlockEntry, Rule, Subject};
use crate::model::DomainName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Differences, each as a line for people, sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Difference {
    /// What only the first one opens.
    pub closes: BTreeSet<String>,
    /// What only the second one opens.
    pub opens: BTreeSet<String>,
    /// What only the first one blocks.
    pub unblocks: BTreeSet<String>,
    /// What only the second one blocks.
    pub blocks: BTreeSet<String>,
    /// What is set otherwise: `mode: enforce → shadow`.
    pub settings: BTreeSet<String>,
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares two policies; either may be missing.
pub fn diff(before: Option<&Policy>, after: Option<&Policy>) -> Difference {
    let rules = |policy: Option<&Policy>| -> BTreeSet<String> {
        let rules = policy.iter().flat_map(|policy| &policy.rules);
        rules.flat_map(opened).collect()
    };
    let blocks = |policy: Option<&Policy>| -> BTreeSet<String> {
        let blocks = policy.iter().flat_map(|policy| &policy.blocks);
        let lists = policy.iter().flat_map(|policy| &policy.block_lists);
        blocks
            .map(|block: &BlockEntry| subject(&block.subject))
            .chain(lists.map(|block| block.list.to_string()))
            .collect()
    };
    let less = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
    let (rules_before, rules_after) = (rules(before), rules(after));
    let (blocks_before, blocks_after) = (blocks(before), blocks(after));
    let settings = match (before, after) {
        (Some(before), Some(after)) => settings(before)
            .into_iter()
            .zip(settings(after))
            .filter(|((_, before), (_, after))| before != after)
            .map(|((key, before), (_, after))| format!("{key}: {before} → {after}"))
            .collect(),
        (Some(gone), None) => [format!("policy {} is removed", gone.name)].into(),
        (None, Some(new)) => [format!("policy {} is added", new.name)].into(),
        (None, None) => BTreeSet::new(),
    };
    Difference {
        closes: less(&rules_before, &rules_after),
        opens: less(&rules_after, &rules_before),
        unblocks: less(&blocks_before, &blocks_after),
        blocks: less(&blocks_after, &blocks_before),
        settings,
    }
}

/// Each destination that a rule opens, on each of its transports.
fn opened(rule: &Rule) -> Vec<String> {
    let mut conditions = String::new();
    if let Some(end) = rule.expires {
        conditions.push_str(&format!(", until {end}"));
    }
    if rule.allow_private {
        conditions.push_str(", private ranges included");
    }
    if !rule.private_networks.is_empty() {
        let networks: Vec<String> = rule
            .private_networks
            .iter()
            .map(ToString::to_string)
            .collect();
        conditions.push_str(&format!(", also into {}", networks.join(" ")));
    }
    let subjects: Vec<String> = match &rule.subject {
        Subject::Domain(pattern) => vec![pattern.to_string()],
        Subject::Networks(networks) => networks.iter().map(ToString::to_string).collect(),
        Subject::List(list) => vec![list.to_string()],
    };
    subjects
        .iter()
        .flat_map(|subject| {
            rule.transports
                .iter()
                .map(move |transport| format!("{subject} {transport}"))
        })
        .map(|line| format!("{line}{conditions}"))
        .collect()
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Domain(pattern) => pattern.to_string(),
        Subject::Networks(networks) => {
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            networks.join(" ")
        }
        Subject::List(list) => list.to_string(),
    }
}

/// Everything else that a policy says, in one order. Every field is named here,
/// so that a new one cannot be forgotten.
fn settings(policy: &Policy) -> Vec<(&'static str, String)> {
    let Policy {
        name,
        file: _,
        digest: _,
        mode,
        applies_to,
        adopts,
        unmet_contract,
        interfaces,
        link,
        rules: _,
        blocks: _,
        block_lists: _,
        dns,
        user,
        limits,
        seccomp,
        relaxed,
        relaxations: _,
        allowed_names: _,
        listing_rules: _,
        blocked_names: _,
        blocked_networks: _,
    } = policy;
    let DnsSettings {
        query_types,
        cache_ttl,
        negative_cache_ttl,
        min_ttl,
        max_ttl,
        grace,
        max_addresses,
        limits: names,
        keep_fresh,
        view,
        hosts,
    } = dns;
    let mut applies: Vec<String> = applies_to.iter().map(ToString::to_string).collect();
    applies.extend(adopts.iter().map(|adoption| {
        format!(
            "{}:{}",
            format!("{:?}", adoption.kind).to_lowercase(),
            adoption.glob
        )
    }));
    applies.extend(interfaces.iter().map(|glob| format!("interface:{glob}")));
    applies.sort();
    let LinkSettings {
        dhcp,
        router_advertisements,
    } = link;
    let relaxed: Vec<String> = relaxed.iter().map(ToString::to_string).collect();
    vec![
        ("name", name.clone()),
        ("mode", format!("{mode:?}").to_lowercase()),
        ("applies_to", applies.join(" ")),
        ("dns.query_types", query_types.join(" ")),
        ("dns.cache_ttl", format!("{cache_ttl:?}")),
        ("dns.negative_cache_ttl", format!("{negative_cache_ttl:?}")),
        ("dns.min_ttl", format!("{min_ttl:?}")),
        ("dns.max_ttl", format!("{max_ttl:?}")),
        ("dns.grace", format!("{grace:?}")),
        ("dns.max_addresses", max_addresses.to_string()),
        ("dns.limits", format!("{names:?}")),
        ("dns.keep_fresh", keep_fresh.to_string()),
        ("dns.view", view.as_deref().unwrap_or("none").to_owned()),
        ("dns.hosts", hosts_in_words(hosts)),
        ("user", format!("{user:?}")),
        (
            "unmet_contract",
            format!("{unmet_contract:?}").to_lowercase(),
        ),
        ("sandbox", limits_in_words(limits)),
        ("network.dhcp", dhcp.to_string()),
        (
            "network.router_advertisements",
            router_advertisements.to_string(),
        ),
        ("seccomp", format!("{seccomp:?}").to_lowercase()),
        ("relax", relaxed.join(" ")),
    ]
}

fn hosts_in_words(hosts: &BTreeMap<DomainName, Vec<IpAddr>>) -> String {
    let words = hosts.iter().map(|(name, addresses)| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("{name} {}", addresses.join(" "))
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The limits that are set, each with its key.
fn limits_in_words(limits: &Limits) -> String {
    let Limits {
        cpu,
        cpu_weight,
        memory,
        memory_high,
        memory_swap,
        pids,
        io,
        timeout,
        disk,
        max_connections,
        max_pending_bytes,
        best_effort,
    } = limits;
    let bytes = |value: &Option<u64>| value.map(|bytes| Bytes(bytes).to_string());
    let number = |value: &Option<u32>| value.map(|number| number.to_string());
    let set = [
        (
            "cpu_limit",
            cpu.map(|thousandths| format!("{thousandths}m")),
        ),
        ("cpu_weight", cpu_weight.map(|weight| weight.to_string())),
        ("memory_limit", bytes(memory)),
        ("memory_high", bytes(memory_high)),
        ("memory_swap", bytes(memory_swap)),
        ("pids_limit", number(pids)),
        ("timeout", timeout.map(|time| format!("{time:?}"))),
        ("disk", bytes(disk)),
        ("max_connections", number(max_connections)),
        ("max_pending_bytes", bytes(max_pending_bytes)),
        ("best_effort", best_effort.then(|| "true".to_owned())),
    ];
    let io = io.iter().map(|limit| format!("io_limit {limit:?}"));
    let set = set
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key} {value}")));
    set.chain(io).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn policy(text: &str) -> Policy {
        Policy::parse("p.yaml", text, Timestamp::UNIX_EPOCH)
            .expect("a policy")
            .0
    }

    const BEFORE: &str = "apiVersion: egress/v1\nname: p\nallowlist:\n  a:\n    - domain: a.example.com\n      protocols: [https]\n    - domain: b.example.com\n      protocols: [https]\nproject_blocklist:\n  - domain: evil.example.com\n    reason: no\n";

    #[test]
    fn order_comments_groups_and_notes_make_no_difference() {
        let after = "# another text\napiVersion: egress/v1\nname: p\nallowlist:\n  z:\n    - { domain: b.example.com, ports: [443], protocols: [tcp], note: b }\n    - { domain: a.example.com, protocols: [https] }\nproject_blocklist:\n  - { domain: evil.example.com, reason: still no }\n";
        let difference = diff(Some(&policy(BEFORE)), Some(&policy(after)));
        assert!(difference.is_empty(), "{difference:?}");
    }

    #[test]
    fn what_opens_closes_blocks_and_is_set_otherwise_is_told() {
        let after = "apiVersion: egress/v1\nname: p\negress: { mode: shadow }\nallowlist:\n  a:\n    - { domain: a.example.com, ports: [443, 8443], protocols: [tcp] }\n    - { cidr: 198.51.100.0/24, ports: [5432], protocols: [tcp], expires: \"2030-01-01\" }\n";
        let difference = diff(Some(&policy(BEFORE)), Some(&policy(after)));
        let lines = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        assert_eq!(lines(&difference.closes), ["b.example.com 443/tcp"]);
        assert_eq!(
            lines(&difference.opens),
            [
                "198.51.100.0/24 5432/tcp, until 2030-01-01T00:00:00Z",
                "a.example.com 8443/tcp"
            ]
        );
        assert_eq!(lines(&difference.unblocks), ["evil.example.com"]);
        assert_eq!(lines(&difference.blocks), [""; 0]);
        assert_eq!(lines(&difference.settings), ["mode: enforce → shadow"]);
    }

    #[test]
    fn an_echo_that_opens_is_told_without_ports() {
        let after = BEFORE.replacen("[https]", "[https, icmp]", 1);
        let difference = diff(Some(&policy(BEFORE)), Some(&policy(&after)));
        assert_eq!(difference.opens, ["a.example.com icmp".to_owned()].into());
        assert_eq!(difference.closes, BTreeSet::new());
    }

    #[test]
    fn a_policy_that_comes_or_goes_is_told_with_everything_that_it_opens() {
        let policy = policy(BEFORE);
        assert_eq!(diff(None, Some(&policy)).opens.len(), 2);
        let gone = diff(Some(&policy), None);
        assert_eq!(gone.closes.len(), 2);
        assert!(gone.settings.contains("policy p is removed"));
    }
}
