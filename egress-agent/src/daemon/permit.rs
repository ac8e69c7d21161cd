//! What the book says about names, and opening what they lead to. Pure: both
//! clocks are arguments, and the caller brings the kernel map in step.

use super::book::{Book, Compiled};
use crate::dns::{Judgement, OpenError, Opening, Refusal};
use crate::grants::{Changes, Clamp, Offer};
use crate::model::{DomainName, Transport};
use crate::policy::{NamePermit, NameVerdict, PermittedService};
use egress_common::{Mode, PolicyId, Reason, RuleId, SandboxId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What a policy allows about a name, with the version of the policy that said so.
#[derive(Clone, Debug)]
pub struct Permit {
    policy: PolicyId,
    /// `None` in shadow mode for a name that no rule allows: nothing is opened,
    /// because nothing is closed.
    name: Option<Arc<NamePermit>>,
}

impl Book {
    /// Whether the sandbox may resolve the name.
    pub fn judge(
        &self,
        sandbox: SandboxId,
        name: &DomainName,
        now: Timestamp,
    ) -> Judgement<Permit> {
        let Some(compiled) = self.policy_of(sandbox) else {
            return Judgement::Refuse(Refusal {
                reason: Reason::UnknownAsker,
                rule: None,
                help: None,
            });
        };
        match compiled.policy.judge_name(name, now) {
            NameVerdict::Allow(permit) => {
                let first = permit.services.first().map(|service| service.rule);
                let rule = first
                    .and_then(|at| compiled.policy.rules.get(at))
                    .map(|rule| rule.origin.clone());
                Judgement::Allow {
                    permit: Permit {
                        policy: compiled.id,
                        name: Some(Arc::new(permit)),
                    },
                    rule,
                }
            }
            NameVerdict::Refuse(refusal) => {
                let refusal = Refusal {
                    reason: refusal.reason,
                    rule: refusal.rule,
                    help: Some(refusal.help).filter(|help| !help.is_empty()),
                };
                match compiled.policy.mode {
                    Mode::Enforce => Judgement::Refuse(refusal),
                    Mode::Shadow => Judgement::Shadow {
                        permit: Permit {
                            policy: compiled.id,
                            name: None,
                        },
                        refusal,
                    },
                }
            }
        }
    }

    /// Whether the permit covers an address that an answer holds.
    pub fn screen(
        &self,
        sandbox: SandboxId,
        permit: &Permit,
        address: IpAddr,
    ) -> Result<(), Reason> {
        let compiled = self.current(sandbox, permit).ok_or(Reason::UnknownAsker)?;
        match &permit.name {
            Some(name) => compiled.policy.screen(name, address).map(drop),
            None => Ok(()),
        }
    }

    /// Opens the addresses for the sandbox from boot-time nanoseconds `now` on:
    /// what the kernel map must then hold, in this order.
    pub fn open(
        &mut self,
        now: u64,
        sandbox: SandboxId,
        permit: &Permit,
        opening: Opening<'_>,
    ) -> Result<Vec<Changes>, OpenError> {
        let compiled = self.current(sandbox, permit).ok_or_else(|| OpenError {
            reason: Reason::GrantFailed,
            detail: "the policy changed while the name was resolved; ask again".into(),
        })?;
        let Some(name) = &permit.name else {
            return Ok(Vec::new());
        };
        let clamp = Clamp {
            min: compiled.policy.dns.min_ttl,
            max: compiled.policy.dns.max_ttl,
            grace: compiled.policy.dns.grace,
        };
        let offers = by_services(compiled, name, opening.addresses)?;
        let mut changes = Vec::with_capacity(offers.len());
        for (services, addresses) in offers {
            let offer = Offer {
                sandbox,
                name: opening.name,
                addresses: &addresses,
                services: &services,
                ttl: opening.ttl,
                answer_ttl: opening.answer_ttl,
                clamp,
            };
            let change = self
                .ledger_mut()
                .offer(now, &offer)
                .map_err(|full| OpenError {
                    reason: Reason::TooManyAddresses,
                    detail: full.to_string(),
                })?;
            changes.push(change);
        }
        Ok(changes)
    }

    /// The sandbox's policy, if it is still the version that gave the permit.
    fn current(&self, sandbox: SandboxId, permit: &Permit) -> Option<&Compiled> {
        self.policy_of(sandbox)
            .filter(|compiled| compiled.id == permit.policy)
    }
}

/// Addresses that are open for the same services, together: rules differ in
/// where they may lead.
type Offers = BTreeMap<Vec<(Transport, RuleId)>, Vec<IpAddr>>;

fn by_services(
    compiled: &Compiled,
    permit: &NamePermit,
    addresses: &[IpAddr],
) -> Result<Offers, OpenError> {
    let mut offers = Offers::new();
    for address in addresses {
        let services: Vec<PermittedService> =
            compiled
                .policy
                .screen(permit, *address)
                .map_err(|reason| OpenError {
                    reason,
                    detail: format!(
                        "an address of the answer may not be opened: {}",
                        reason.sentence()
                    ),
                })?;
        let key = services
            .iter()
            .map(|service| (service.transport, compiled.rule(service.rule)))
            .collect();
        offers.entry(key).or_default().push(*address);
    }
    Ok(offers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Change, Image};
    use crate::model::SandboxName;
    use crate::policy::{Policy, PolicySet};
    use egress_common::CgroupId;
    use std::time::Duration;

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().expect("a time")
    }

    fn policy(text: &str) -> Policy {
        let text = format!("apiVersion: egress/v1\nname: p\n{text}");
        Policy::parse("p.yaml", &text, now()).expect("a policy").0
    }

    /// A book with one sandbox under `text`, to which `a.example` led to `address`.
    fn book(text: &str, address: &str) -> Book {
        let policy = policy(text);
        let set = PolicySet::new(vec![policy.clone()]).expect("a set");
        let mut book = Book::new(&Image::default());
        book.load(set, now()).expect("loaded");
        let name = SandboxName::parse("s").expect("a name");
        let begun = book.begin(name, CgroupId(7), &policy, 1, Vec::new(), now());
        let id = begun.expect("begun").0.id;
        let name = DomainName::parse("a.example").expect("a name");
        let Judgement::Allow { permit, .. } = book.judge(id, &name, now()) else {
            panic!("the name is allowed");
        };
        let opening = Opening {
            name: &name,
            addresses: &[address.parse().expect("an address")],
            ttl: Duration::from_secs(60),
            answer_ttl: Duration::from_secs(60),
        };
        book.open(1, id, &permit, opening).expect("opened");
        book
    }

    /// The ports that are still granted after a reload, and how many keys it removes.
    fn reload(book: &mut Book, text: &str) -> (Vec<u16>, usize) {
        let set = PolicySet::new(vec![policy(text)]).expect("a set");
        let changes = book.load(set, now()).expect("loaded");
        let gone = changes
            .iter()
            .filter(|change| matches!(change, Change::RemoveGrant(_)));
        let left = book.ledger().entries().map(|(key, _)| key.port.host());
        (left.collect(), gone.count())
    }

    const ALLOWED: &str = "project_allowlist:\n  - { domain: a.example, protocols: [https]";

    #[test]
    fn a_reload_closes_addresses_that_the_name_may_no_longer_lead_to() {
        let private = format!("{ALLOWED}, allow_private: true }}\n");
        let public = format!("{ALLOWED} }}\n");
        let mut first = book(&private, "10.0.0.1");
        assert_eq!(reload(&mut first, &private), (vec![443], 0));
        assert_eq!(reload(&mut first, &public), (vec![], 1));

        let blocked = format!("{public}blocklist:\n  - {{ cidr: 203.0.113.0/24 }}\n");
        let mut second = book(&public, "203.0.113.7");
        assert_eq!(reload(&mut second, &blocked), (vec![], 1));
    }
}
