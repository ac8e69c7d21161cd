//! How the resolver is served: policy is asked, addresses are granted and
//! written, and only then may an answer leave.

use super::agent::Agent;
use super::book::{Book, Compiled};
use crate::dns::{Gate, Judgement, Limits, OpenError, Opening, Refusal};
use crate::enforcer::{Receipt, boot_now};
use crate::grants::{Clamp, Offer};
use crate::model::{DomainName, Record, Transport};
use crate::policy::{NamePermit, NameVerdict, PermittedService};
use egress_common::{Mode, PolicyId, Protocol, Reason, RuleId, SandboxId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What a policy allows about a name, with the version of the policy that said so.
#[derive(Clone, Debug)]
pub struct Permit {
    policy: PolicyId,
    /// `None` in shadow mode for a name that no rule allows: nothing is opened,
    /// because nothing is closed.
    name: Option<Arc<NamePermit>>,
}

impl Gate for Agent {
    type Receipt = Receipt;
    type Permit = Permit;

    fn asker(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId> {
        let sandbox = self.enforcer().asker(from, protocol)?;
        // A sandbox that ended between its packet and now asks no more.
        self.book().policy_of(sandbox).map(|_| sandbox)
    }

    fn judge(&self, sandbox: SandboxId, name: &DomainName) -> Judgement<Permit> {
        let book = self.book();
        let Some(compiled) = book.policy_of(sandbox) else {
            return Judgement::Refuse(Refusal {
                reason: Reason::UnknownAsker,
                rule: None,
                help: None,
            });
        };
        match compiled.policy.judge_name(name, Timestamp::now()) {
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

    fn screen(&self, sandbox: SandboxId, permit: &Permit, address: IpAddr) -> Result<(), Reason> {
        let book = self.book();
        let compiled = current(&book, sandbox, permit).ok_or(Reason::UnknownAsker)?;
        match &permit.name {
            Some(name) => compiled.policy.screen(name, address).map(drop),
            None => Ok(()),
        }
    }

    fn query_type_allowed(&self, sandbox: SandboxId, query_type: u16) -> bool {
        self.book().policy_of(sandbox).is_some_and(|compiled| {
            crate::dns::type_is_allowed(query_type, &compiled.policy.dns.query_types)
        })
    }

    fn limits(&self, sandbox: SandboxId) -> Limits {
        match self.book().policy_of(sandbox) {
            Some(compiled) => Limits {
                mode: compiled.policy.mode,
                cache_ttl: compiled.policy.dns.cache_ttl,
                negative_cache_ttl: compiled.policy.dns.negative_cache_ttl,
                max_addresses: compiled.policy.dns.max_addresses.into(),
            },
            // It ended just now: nothing may be kept for it.
            None => Limits {
                mode: Mode::Enforce,
                cache_ttl: Duration::ZERO,
                negative_cache_ttl: Duration::ZERO,
                max_addresses: 0,
            },
        }
    }

    fn open(
        &self,
        sandbox: SandboxId,
        permit: &Permit,
        opening: Opening<'_>,
    ) -> Result<Receipt, OpenError> {
        let mut book = self.book();
        let gone = || OpenError {
            reason: Reason::GrantFailed,
            detail: "the policy changed while the name was resolved; ask again".into(),
        };
        let compiled = current(&book, sandbox, permit).ok_or_else(gone)?;
        let Some(name) = &permit.name else {
            return self.grant(&mut book, Vec::new());
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
            let change = book
                .ledger_mut()
                .offer(boot_now(), &offer)
                .map_err(|full| OpenError {
                    reason: Reason::TooManyAddresses,
                    detail: full.to_string(),
                })?;
            changes.push(change);
        }
        self.grant(&mut book, changes)
    }

    fn record(&self, mut record: Record) {
        if let Some(id) = record.sandbox_id
            && let Some(member) = self.book().member(id)
        {
            record.sandbox = Some(member.name.to_string());
            record.policy = Some(member.policy.clone());
        }
        self.recorder().record(record);
    }
}

/// The sandbox's policy, if it is still the version that gave the permit.
fn current<'b>(book: &'b Book, sandbox: SandboxId, permit: &Permit) -> Option<&'b Compiled> {
    book.policy_of(sandbox)
        .filter(|compiled| compiled.id == permit.policy)
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
