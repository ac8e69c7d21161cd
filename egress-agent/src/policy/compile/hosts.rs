//! Addresses that a policy gives names itself.

use crate::model::DomainName;
use crate::policy::diagnostic::Report;
use crate::policy::judge::NameVerdict;
use crate::policy::meaning::Policy;
use crate::policy::wire::Document;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Reads `dns.hosts`.
pub fn read(document: &Document, report: &mut Report) -> BTreeMap<DomainName, Vec<IpAddr>> {
    let mut hosts: BTreeMap<DomainName, Vec<IpAddr>> = BTreeMap::new();
    let field = document
        .dns
        .as_ref()
        .and_then(|dns| dns.value.hosts.as_ref());
    let Some(field) = field else {
        return hosts;
    };
    for (text, items) in &field.value.0 {
        match DomainName::parse(text) {
            Ok(name) => {
                let addresses = items.0.iter().map(|item| item.value.0);
                hosts.entry(name).or_default().extend(addresses);
            }
            Err(error) => report.error(
                "invalid-name",
                field.key,
                format!("`{text}` in `hosts`: {error}"),
                "write one whole name, without a wildcard",
            ),
        }
    }
    hosts
}

/// Reports entries that no rule lets a sandbox have.
pub fn check(policy: &Policy, document: &Document, now: Timestamp, report: &mut Report) {
    let field = document
        .dns
        .as_ref()
        .and_then(|dns| dns.value.hosts.as_ref());
    let Some(field) = field else {
        return;
    };
    // What lists hold is known only once they are open.
    if policy.lists().next().is_some() {
        return;
    }
    for (name, addresses) in &policy.dns.hosts {
        let permit = match policy.judge_name(name, now) {
            NameVerdict::Allow(permit) => permit,
            NameVerdict::Refuse(_) => {
                report.error(
                    "no-effect",
                    field.key,
                    format!("`{name}` in `hosts` has no effect: no rule allows the name"),
                    format!("add a rule with `domain: \"{name}\"`, or remove the entry"),
                );
                continue;
            }
        };
        for address in addresses {
            if let Err(reason) = policy.screen(&permit, *address) {
                report.error(
                    "no-effect",
                    field.key,
                    format!(
                        "`{address}` of `{name}` in `hosts` has no effect: {}",
                        reason.sentence()
                    ),
                    "private addresses need `allow_private: true` or `allow_private_networks` in the rule",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use jiff::Timestamp;

    fn codes(hosts: &str) -> Vec<(&'static str, String)> {
        let text = format!(
            "apiVersion: egress/v1\nname: h\nallowlist:\n  a:\n    - {{ domain: db.example, ports: [5432], protocols: [tcp], allow_private: true }}\n    - {{ domain: web.example, protocols: [https] }}\ndns:\n  hosts: {hosts}\n"
        );
        match Policy::parse("h.yaml", &text, Timestamp::UNIX_EPOCH) {
            Ok((policy, _)) => {
                assert_eq!(policy.dns.hosts.len(), 1);
                Vec::new()
            }
            Err(found) => found.into_iter().map(|f| (f.code, f.message)).collect(),
        }
    }

    #[test]
    fn entries_need_a_rule_for_the_name_and_for_where_it_leads() {
        assert_eq!(codes("{ db.example: [\"10.0.0.5\", \"fd00::5\"] }"), []);
        assert_eq!(codes("{ web.example: [\"203.0.113.7\"] }"), []);
        for (hosts, code, words) in [
            ("{ web.example: [\"10.0.0.5\"] }", "no-effect", "10.0.0.5"),
            ("{ db.example: [\"127.0.0.1\"] }", "no-effect", "127.0.0.1"),
            (
                "{ other.example: [\"203.0.113.7\"] }",
                "no-effect",
                "no rule allows",
            ),
            (
                "{ \"*.example\": [\"203.0.113.7\"] }",
                "invalid-name",
                "*.example",
            ),
            (
                "{ db.example: [here] }",
                "invalid-value",
                "`here` is no address",
            ),
            ("{ db.example: [] }", "empty", "empty"),
        ] {
            let found = codes(hosts);
            let is_told = found
                .iter()
                .any(|(own, text)| *own == code && text.contains(words));
            assert!(is_told, "{hosts}: {found:?}");
        }
    }
}
