//! Whether a name may be resolved, and where its answer may lead.

use super::meaning::Policy;
use super::rule::{PermittedService, Rule, Subject, without_covered};
use crate::model::{DomainName, RuleOrigin};
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
        let meant = self.allowed_names.matching(name);
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
            return NameVerdict::Allow(NamePermit { services });
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
        Ok(without_covered(services))
    }

    /// The blocklist entry that refuses an address.
    pub(super) fn blocking_network(&self, ip: IpAddr) -> Option<usize> {
        let ip = ip.to_canonical();
        self.blocks.iter().position(|block| match &block.subject {
            Subject::Networks(nets) => nets.iter().any(|net| net.contains(&ip)),
            Subject::Domain(_) => false,
        })
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
        let line = self.line_to_add(&format!("domain: \"{name}\""), "443", "https");
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
    pub(super) fn line_to_add(&self, subject: &str, ports: &str, protocol: &str) -> String {
        format!(
            "to allow it, add to the allowlist in {}: - {{ {subject}, ports: [{ports}], protocols: [{protocol}] }}",
            self.file.display()
        )
    }
}

/// The refusal by a rule whose time is over.
fn expired_rule(rule: &Rule) -> Refusal {
    let since = rule
        .expires
        .map_or(String::new(), |end| format!(" since {end}"));
    Refusal {
        reason: Reason::RuleExpired,
        rule: Some(rule.origin.clone()),
        help: format!(
            "`{}` at {} has expired{since}; renew its `expires`",
            rule.origin.text, rule.origin
        ),
    }
}
