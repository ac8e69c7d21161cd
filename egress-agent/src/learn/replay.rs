//! What another policy would have decided.

use super::{is_matter_of_policy, reason, service};
use crate::audit::StoredRecord;
use crate::model::DomainName;
use crate::policy::explain::Answer;
use crate::policy::{NameVerdict, Policy, Query, Target, explain};
use egress_common::{Protocol, Reason};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Different changes that are kept; what comes beyond is counted.
const MOST_CHANGES: usize = 10_000;

/// What was asked, as far as a policy looks at it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Asked {
    is_query: bool,
    name: Option<DomainName>,
    address: Option<IpAddr>,
    port: u16,
    protocol: Option<Protocol>,
}

/// What the candidate says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    allows: bool,
    reason: Option<Reason>,
    rule: Option<String>,
}

/// A decision that the candidate would change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// What was decided: `allow`, `deny`, `would_deny`.
    pub was: String,
    /// What the candidate would decide: `allow` or `deny`.
    pub would_be: &'static str,
    /// `dns` or `flow`.
    pub kind: &'static str,
    /// The name, or the address.
    pub destination: String,
    /// The port of a flow, where its transport has ports.
    pub port: Option<u16>,
    /// The transport of a flow.
    pub protocol: Option<&'static str>,
    /// How many decisions.
    pub count: u64,
    /// Of which sandboxes.
    pub sandboxes: BTreeSet<String>,
    /// Why the candidate would refuse it.
    pub reason: Option<&'static str>,
    /// The rule of the candidate that decides.
    pub rule: Option<String>,
}

/// Asks a candidate about every recorded decision.
#[derive(Debug)]
pub struct Replay<'p> {
    candidate: &'p Policy,
    now: Timestamp,
    said: BTreeMap<Asked, Said>,
    changes: BTreeMap<(Asked, String), Change>,
    /// Decisions that the candidate was asked about.
    pub asked: u64,
    /// Decisions that it would not change.
    pub same: u64,
    /// Decisions that no policy has a part in.
    pub not_policy: u64,
    /// Changed decisions beyond what is kept.
    pub beyond: u64,
}

impl<'p> Replay<'p> {
    /// Begins; rules that have expired at `now` do not apply.
    pub fn new(candidate: &'p Policy, now: Timestamp) -> Self {
        Self {
            candidate,
            now,
            said: BTreeMap::new(),
            changes: BTreeMap::new(),
            asked: 0,
            same: 0,
            not_policy: 0,
            beyond: 0,
        }
    }

    /// Asks about one record.
    pub fn take(&mut self, record: &StoredRecord) {
        let Some(was) = record.verdict.as_deref() else {
            return;
        };
        let passed = was == "allow";
        let of_policy = passed
            || reason(record).is_none_or(is_matter_of_policy)
            || matches!(reason(record), Some(Reason::NameBlocked));
        let Some(asked) = asked(record).filter(|_| of_policy) else {
            self.not_policy = self.not_policy.saturating_add(record.count);
            return;
        };
        self.asked = self.asked.saturating_add(record.count);
        let said = match self.said.get(&asked) {
            Some(said) => said.clone(),
            None => {
                let said = self.ask(&asked);
                if self.said.len() < MOST_CHANGES {
                    self.said.insert(asked.clone(), said.clone());
                }
                said
            }
        };
        if said.allows == passed {
            self.same = self.same.saturating_add(record.count);
            return;
        }
        let key = (asked.clone(), was.to_owned());
        if self.changes.len() >= MOST_CHANGES && !self.changes.contains_key(&key) {
            self.beyond = self.beyond.saturating_add(record.count);
            return;
        }
        let change = self.changes.entry(key).or_insert_with(|| Change {
            was: was.to_owned(),
            would_be: if said.allows { "allow" } else { "deny" },
            kind: if asked.is_query { "dns" } else { "flow" },
            destination: match (&asked.name, asked.address) {
                (Some(name), _) => name.to_string(),
                (None, Some(address)) => address.to_string(),
                (None, None) => String::new(),
            },
            port: asked
                .protocol
                .is_some_and(Protocol::has_ports)
                .then_some(asked.port),
            protocol: asked.protocol.map(Protocol::name),
            count: 0,
            sandboxes: BTreeSet::new(),
            reason: said.reason.map(Reason::name),
            rule: said.rule.clone(),
        });
        change.count = change.count.saturating_add(record.count);
        if let Some(sandbox) = &record.sandbox {
            change.sandboxes.insert(sandbox.clone());
        }
    }

    /// What would change: what would be refused first, then by how often.
    pub fn changes(&self) -> Vec<&Change> {
        let mut changes: Vec<&Change> = self.changes.values().collect();
        changes.sort_by(|a, b| {
            b.would_be
                .cmp(a.would_be)
                .then(b.count.cmp(&a.count))
                .then_with(|| a.destination.cmp(&b.destination))
        });
        changes
    }

    fn ask(&self, asked: &Asked) -> Said {
        if asked.is_query
            && let Some(name) = &asked.name
        {
            return match self.candidate.judge_name(name, self.now) {
                NameVerdict::Allow(permit) => Said {
                    allows: true,
                    reason: None,
                    rule: permit
                        .services
                        .first()
                        .and_then(|service| self.candidate.rules.get(service.rule))
                        .map(|rule| rule.origin.to_string()),
                },
                NameVerdict::Refuse(refusal) => Said {
                    allows: false,
                    reason: Some(refusal.reason),
                    rule: refusal.rule.map(|rule| rule.to_string()),
                },
            };
        }
        // Under its name, if it has one that leads to this address; by number else.
        let by_name = asked
            .name
            .clone()
            .filter(|name| self.may_lead(name, asked.address));
        let by_number = asked.address.map(Target::Ip);
        let targets = [by_name.map(Target::Name), by_number];
        let mut last = Said {
            allows: false,
            reason: Some(Reason::NoRule),
            rule: None,
        };
        for to in targets.into_iter().flatten() {
            let query = Query {
                to,
                port: asked.port,
                protocol: asked.protocol.unwrap_or(Protocol::Tcp),
            };
            let explanation = explain(self.candidate, &query, self.now);
            let said = Said {
                allows: explanation.answer != Answer::Deny,
                reason: explanation.reason,
                rule: explanation.rule.map(|rule| rule.to_string()),
            };
            if said.allows {
                return said;
            }
            last = said;
        }
        last
    }

    /// Whether the resolver would hand this address out for the name.
    fn may_lead(&self, name: &DomainName, address: Option<IpAddr>) -> bool {
        match (self.candidate.judge_name(name, self.now), address) {
            (NameVerdict::Allow(permit), Some(address)) => {
                self.candidate.screen(&permit, address).is_ok()
            }
            // What it says about the name is the answer.
            (NameVerdict::Allow(_) | NameVerdict::Refuse(_), _) => true,
        }
    }
}

fn asked(record: &StoredRecord) -> Option<Asked> {
    let name = record
        .name
        .as_deref()
        .and_then(|name| DomainName::parse(name).ok());
    match record.kind.as_str() {
        "dns" => Some(Asked {
            is_query: true,
            name: Some(name?),
            address: None,
            port: 0,
            protocol: None,
        }),
        "flow" => {
            let hook = record.hook.as_deref();
            if !matches!(
                hook,
                Some("connect" | "sendmsg" | "egress" | "interface_leaves")
            ) {
                return None;
            }
            let (protocol, port) = service(record)?;
            Some(Asked {
                is_query: false,
                name,
                address: Some(record.address?),
                port,
                protocol: Some(protocol),
            })
        }
        _ => None,
    }
}
