//! Whether a name may be resolved, and where its answer may lead.

use super::meaning::Policy;
use super::rule::{PermittedService, Rule, Subject, without_covered};
use crate::model::{DomainName, PortRange, RuleOrigin};
use egress_common::{Ip, Reason};
use jiff::Timestamp;
use std::net::IpAddr;

/// What policy says about a name.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum NameVerdict {
    /// It may be resolved.
    Allow(NamePermit),
    /// It is not forwarded to anybody.
    Refuse(Refusal),
}

/// That a name may be resolved, and what its addresses are then open for. Each
/// address must still pass [`Policy::screen`]: rules differ in where they may lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamePermit {
    /// Services of every rule that means the name and applies.
    pub services: Vec<PermittedService>,
    /// The longest wildcard among those rules, by position, and how many labels
    /// of the name stand below it; `None` if one of the rules is for this name.
    pub wildcard: Option<(usize, usize)>,
}

/// Why something is refused, in a form that a person can act on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The entry that decided, if one did.
    pub rule: Option<RuleOrigin>,
    /// What to do if it should be allowed.
    pub help: String,
}

impl Policy {
    /// Judges a name. The blocklist wins over every rule; of the rules, all that
    /// mean the name and have not expired count together.
    pub fn judge_name(&self, name: &DomainName, now: Timestamp) -> NameVerdict {
        if let Some(block) = self.blocked_names.matching(name).first() {
            return NameVerdict::Refuse(self.blocked(*block));
        }
        if let Some(refusal) = self.refused_by_lists(name) {
            return NameVerdict::Refuse(refusal);
        }
        let mut meant = self.allowed_names.matching(name);
        meant.extend(self.allowed_by_lists(name.as_str()));
        meant.sort_unstable();
        let rules = || {
            meant
                .iter()
                .filter_map(|at| Some((*at, self.rules.get(*at)?)))
        };
        let services: Vec<PermittedService> = rules()
            .filter(|(_, rule)| rule.applies(now))
            .flat_map(|(at, rule)| rule.services(at))
            .collect();
        if !services.is_empty() {
            let applying = rules().filter(|(_, rule)| rule.applies(now));
            let wildcard = wildcard(name, applying);
            return NameVerdict::Allow(NamePermit { services, wildcard });
        }
        NameVerdict::Refuse(match rules().map(|(_, rule)| rule).next() {
            Some(expired) => expired_rule(expired),
            None => Refusal {
                reason: Reason::NameNotAllowed,
                rule: None,
                help: self.line_for_name(name),
            },
        })
    }

    /// Why a name, in canonical text, is refused at any time; `None` if it may be
    /// allowed. Says what [`Policy::judge_name`] says, in less time.
    pub fn refuses(&self, name: &str) -> Option<Reason> {
        if self.blocked_names.means(name) || self.blocking_list(name).is_some() {
            Some(Reason::NameBlocked)
        } else if self.allowed_names.means(name) || self.allowed_by_lists(name).next().is_some() {
            None
        } else {
            Some(Reason::NameNotAllowed)
        }
    }

    /// Judges one address of an answer for a permitted name: what it may be
    /// opened for, which is never nothing.
    ///
    /// Only services of rules that may lead to this address are given, so that
    /// one rule's `allow_private` never widens the ports of another.
    pub fn screen(&self, permit: &NamePermit, ip: IpAddr) -> Result<Vec<PermittedService>, Reason> {
        if Ip::from(ip).is_never_allowed() {
            return Err(Reason::NeverAllowed);
        }
        if self.blocking_network(ip).is_some() {
            return Err(Reason::NameBlocked);
        }
        let leads = |service: &PermittedService| {
            self.rules
                .get(service.rule)
                .is_some_and(|rule| rule.may_lead_to(ip))
        };
        let services: Vec<_> = permit.services.iter().copied().filter(leads).collect();
        if services.is_empty() {
            return Err(Reason::Rebinding);
        }
        if let [_] = services.as_slice() {
            return Ok(services);
        }
        // Single ports stay beside `any`: when the rule that says `any` ends, what
        // another rule opened on them must not end with it.
        let (any, single): (Vec<_>, Vec<_>) = services
            .into_iter()
            .partition(|service| service.transport.ports == PortRange::ANY);
        Ok([without_covered(single), without_covered(any)].concat())
    }

    /// The blocklist entry that refuses an address.
    pub(super) fn blocking_network(&self, ip: IpAddr) -> Option<usize> {
        self.blocked_networks.around(&ip.to_canonical().into())
    }

    /// The refusal by a blocklist entry.
    pub(super) fn blocked(&self, position: usize) -> Refusal {
        let entry = self.blocks.get(position);
        let help = match entry {
            Some(entry) => {
                let why = entry
                    .reason
                    .as_ref()
                    .map_or(String::new(), |why| format!(" ({why})"));
                format!(
                    "`{}` at {}{why} wins over every rule; remove it to allow this",
                    entry.origin.text, entry.origin
                )
            }
            None => String::new(),
        };
        Refusal {
            reason: Reason::NameBlocked,
            rule: entry.map(|entry| entry.origin.clone()),
            help,
        }
    }

    /// What to write to allow `name`. A rule that just misses it is named,
    /// because the three spellings are easily taken for each other.
    fn line_for_name(&self, name: &DomainName) -> String {
        let line = self.line_to_add(&format!("domain: \"{name}\""), Some(443), "https");
        let near = self.allowed_names.near(name);
        let Some(rule) = near.last().and_then(|at| self.rules.get(*at)) else {
            return line;
        };
        let Subject::Domain(pattern) = &rule.subject else {
            return line;
        };
        let base = pattern.base();
        let difference = if base == name {
            format!("means only names below it; `**.{base}` means both")
        } else {
            format!("means that name only; `*.{base}` means the names below it")
        };
        format!("{line} (`{pattern}` at {} {difference})", rule.origin)
    }

    /// The line that opens a destination.
    pub(super) fn line_to_add(&self, subject: &str, port: Option<u16>, protocol: &str) -> String {
        format!(
            "to allow it, add to the allowlist in {}: {}",
            self.file.display(),
            rule_line(subject, port, protocol)
        )
    }
}

/// A rule as a policy has it, for `domain: …` or `cidr: …`; `port` where the
/// protocol has one.
pub fn rule_line(subject: &str, port: Option<u16>, protocol: &str) -> String {
    let ports = port.map_or(String::new(), |port| format!(", ports: [{port}]"));
    format!("- {{ {subject}{ports}, protocols: [{protocol}] }}")
}

/// The longest wildcard that means the name, unless a rule is for the name itself.
fn wildcard<'r>(
    name: &DomainName,
    rules: impl Iterator<Item = (usize, &'r Rule)>,
) -> Option<(usize, usize)> {
    let all = labels(name);
    let mut longest = None;
    for (at, rule) in rules {
        let below = match &rule.subject {
            Subject::Domain(pattern) => all.saturating_sub(labels(pattern.base())),
            Subject::List(list) => match list.find(name.as_str()) {
                Some(found) => found.below,
                None => continue,
            },
            Subject::Networks(_) => continue,
        };
        if below == 0 {
            return None;
        }
        if longest.is_none_or(|(_, shortest)| below < shortest) {
            longest = Some((at, below));
        }
    }
    longest
}

/// How many labels a name has.
fn labels(name: &DomainName) -> usize {
    1 + name.as_str().bytes().filter(|byte| *byte == b'.').count()
}

/// The refusal by a rule whose time is over.
fn expired_rule(rule: &Rule) -> Refusal {
    let when = rule
        .expires
        .map_or(String::new(), |end| format!(" at {end}"));
    Refusal {
        reason: Reason::RuleExpired,
        rule: Some(rule.origin.clone()),
        help: format!(
            "`{}` at {} expired{when}; renew its `expires`",
            rule.origin.text, rule.origin
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{NamePermit, NameVerdict, Refusal};
    use crate::model::DomainName;
    use crate::policy::{Policy, render};
    use egress_common::Reason;
    use jiff::Timestamp;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn now() -> Timestamp {
        time("2026-11-20T12:00:00Z")
    }

    fn policy(rules: &str) -> Policy {
        let text = format!("apiVersion: egress/v1\n{rules}");
        match Policy::parse("test.yaml", &text, now()) {
            Ok((policy, _)) => policy,
            Err(found) => panic!("{}", render::diagnostics_text(&found, render::Colour::No)),
        }
    }

    fn judge(policy: &Policy, name: &str) -> NameVerdict {
        policy.judge_name(&DomainName::parse(name).expect("a name"), now())
    }

    #[track_caller]
    fn permit(policy: &Policy, name: &str) -> NamePermit {
        match judge(policy, name) {
            NameVerdict::Allow(permit) => permit,
            NameVerdict::Refuse(refusal) => panic!("{name} is refused: {refusal:?}"),
        }
    }

    #[track_caller]
    fn refusal(policy: &Policy, name: &str) -> Refusal {
        match judge(policy, name) {
            NameVerdict::Allow(permit) => panic!("{name} is allowed: {permit:?}"),
            NameVerdict::Refuse(refusal) => refusal,
        }
    }

    /// What `ip` would be opened for, as text, or the reason against it.
    fn opened(policy: &Policy, name: &str, ip: &str) -> Result<Vec<String>, Reason> {
        let ip = ip.parse().expect("an address");
        let services = policy.screen(&permit(policy, name), ip)?;
        Ok(services.iter().map(|s| s.transport.to_string()).collect())
    }

    #[test]
    fn all_rules_that_mean_a_name_count_together() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: api.example.com, protocols: [https] }\n    - { domain: \"*.example.com\", ports: [8080], protocols: [tcp] }\n    - { domain: \"**.example.com\", ports: [8080], protocols: [tcp] }\n",
        );
        assert_eq!(
            opened(&policy, "api.example.com", "203.0.113.7"),
            Ok(vec!["443/tcp".to_owned(), "8080/tcp".to_owned()])
        );
        assert_eq!(
            opened(&policy, "example.com", "203.0.113.7"),
            Ok(vec!["8080/tcp".to_owned()])
        );
        assert_eq!(
            refusal(&policy, "example.org").reason,
            Reason::NameNotAllowed
        );
        assert_eq!(
            refusal(&policy, "badexample.com").reason,
            Reason::NameNotAllowed
        );
    }

    #[test]
    fn the_blocklist_wins_over_every_rule() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: \"**.example.com\", protocols: [https] }\nblocklist:\n  - { domain: pay.example.com, reason: money }\n  - { cidr: \"203.0.113.0/24\" }\ndns: { block_patterns: [\"*.onion.example.com\"] }\n",
        );
        let refused = refusal(&policy, "pay.example.com");
        assert_eq!(refused.reason, Reason::NameBlocked);
        assert_eq!(refused.rule.map(|rule| rule.line), Some(6));
        assert!(refused.help.contains("(money)"), "{}", refused.help);
        assert_eq!(
            refusal(&policy, "x.onion.example.com").reason,
            Reason::NameBlocked
        );
        let blocked = opened(&policy, "www.example.com", "203.0.113.7");
        assert_eq!(blocked, Err(Reason::NameBlocked));
        let mapped = opened(&policy, "www.example.com", "::ffff:203.0.113.7");
        assert_eq!(mapped, Err(Reason::NameBlocked));
    }

    #[test]
    fn answers_in_special_ranges_need_a_rule_that_says_so() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: public.example.com, protocols: [https] }\n    - { domain: private.example.com, protocols: [https], allow_private: true }\n    - { domain: named.example.com, protocols: [https], allow_private_networks: [\"10.1.0.0/16\", \"169.254.169.254\", \"fd00:ec2::254\"] }\n",
        );
        // Address, and whether each of the three rules may lead there.
        for (ip, expected) in [
            ("203.0.113.7", [true, true, true]),
            ("2001:db8::1", [true, true, true]),
            ("10.1.2.3", [false, true, true]),
            ("::ffff:10.1.2.3", [false, true, true]),
            ("10.2.2.3", [false, true, false]),
            ("172.31.0.1", [false, true, false]),
            ("192.168.0.1", [false, true, false]),
            ("100.64.0.1", [false, true, false]),
            ("fd00::1", [false, true, false]),
            ("100.100.100.200", [false, false, false]),
            ("168.63.129.16", [false, false, false]),
            ("169.254.169.254", [false, false, true]),
            ("169.254.1.1", [false, false, false]),
            ("fd00:ec2::254", [false, false, true]),
            ("fe80::1", [false, false, false]),
            ("127.0.0.1", [false, false, false]),
            ("::1", [false, false, false]),
            ("0.0.0.0", [false, false, false]),
            ("::", [false, false, false]),
        ] {
            let names = [
                "public.example.com",
                "private.example.com",
                "named.example.com",
            ];
            for (name, expected) in names.into_iter().zip(expected) {
                let found = opened(&policy, name, ip);
                let wanted = if expected {
                    Ok(vec!["443/tcp".to_owned()])
                } else {
                    Err(Reason::Rebinding)
                };
                assert_eq!(found, wanted, "{name} {ip}");
            }
        }
        for ip in [
            "224.0.0.1",
            "255.255.255.255",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "::10.0.0.1",
        ] {
            assert_eq!(
                opened(&policy, "private.example.com", ip),
                Err(Reason::NeverAllowed),
                "{ip}"
            );
        }
    }

    #[test]
    fn one_rules_private_ranges_do_not_widen_the_ports_of_another() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: db.example.com, ports: [5432], protocols: [tcp], allow_private: true }\n    - { domain: \"*.example.com\", ports: [any], protocols: [tcp] }\n",
        );
        assert_eq!(
            opened(&policy, "db.example.com", "10.0.0.1"),
            Ok(vec!["5432/tcp".to_owned()])
        );
        assert_eq!(
            opened(&policy, "db.example.com", "203.0.113.1"),
            Ok(vec!["5432/tcp".to_owned(), "any/tcp".to_owned()])
        );
    }

    #[test]
    fn echo_has_no_ports_and_those_of_a_rule_belong_to_the_others() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: a.example.com, protocols: [icmp] }\n    - { domain: b.example.com, ports: [8443], protocols: [icmp, tcp] }\n    - { domain: c.example.com, protocols: [https, icmp] }\n",
        );
        for (name, open) in [
            ("a.example.com", &["icmp"][..]),
            ("b.example.com", &["8443/tcp", "icmp"]),
            ("c.example.com", &["443/tcp", "icmp"]),
        ] {
            let open = open.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(opened(&policy, name, "203.0.113.1"), Ok(open), "{name}");
        }
        assert_eq!(policy.relaxations, Vec::<String>::new());
    }

    #[test]
    fn a_rule_ends_the_moment_it_expires() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: a.example.com, protocols: [https], expires: \"2027-03-01\" }\n    - { cidr: \"203.0.113.0/24\", ports: [1], protocols: [tcp], expires: \"2027-03-01\" }\n",
        );
        let name = DomainName::parse("a.example.com").expect("a name");
        let before = time("2027-02-28T23:59:59Z");
        let after = time("2027-03-01T00:00:00Z");
        assert!(matches!(
            policy.judge_name(&name, before),
            NameVerdict::Allow(_)
        ));
        let NameVerdict::Refuse(refused) = policy.judge_name(&name, after) else {
            panic!("the rule has expired");
        };
        assert_eq!(refused.reason, Reason::RuleExpired);
        assert_eq!(refused.rule.map(|rule| rule.line), Some(4));
        assert_eq!(policy.networks(before).len(), 1);
        assert_eq!(policy.networks(after), []);
    }

    #[test]
    fn what_only_a_wildcard_allows_is_told_with_its_labels() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: \"*.example.com\", protocols: [https] }\n    - { domain: \"**.b.example.com\", protocols: [https] }\n    - { domain: www.example.com, protocols: [https] }\n",
        );
        for (name, expected) in [
            ("a.example.com", Some((0, 1))),
            ("x.y.example.com", Some((0, 2))),
            ("x.b.example.com", Some((1, 1))),
            ("b.example.com", None),
            ("www.example.com", None),
        ] {
            assert_eq!(permit(&policy, name).wildcard, expected, "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_rule_that_just_misses() {
        let policy = policy(
            "allowlist:\n  a:\n    - { domain: \"*.example.com\", protocols: [https] }\n    - { domain: example.net, protocols: [https] }\n",
        );
        let help = refusal(&policy, "example.com").help;
        assert!(help.contains("`**.example.com` means both"), "{help}");
        let help = refusal(&policy, "www.example.net").help;
        assert!(
            help.contains("`*.example.net` means the names below it"),
            "{help}"
        );
    }
}
