//! What the book says about names, and opening what they lead to. Pure: both
//! clocks are arguments, and the caller brings the kernel map in step.

use super::book::{Book, Compiled};
use crate::dns::{Below, Judgement, OpenError, Opening, Refusal, Sieve};
use crate::enforcer::boot_now;
use crate::grants::{Changes, Clamp, Offer};
use crate::model::{DomainName, Transport};
use crate::policy::{self, NamePermit, NameVerdict, PermittedService, Policy};
use egress_common::{Mode, PolicyId, Reason, RuleId, SandboxId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
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

/// A version of a policy, to be asked what it refuses without the book's lock.
#[derive(Clone, Debug)]
pub struct PolicySieve(Arc<Policy>);

impl Sieve for PolicySieve {
    fn refuses(&self, name: &str) -> Option<Reason> {
        self.0.refuses(name)
    }

    fn refusal(&self, name: &DomainName) -> Option<Refusal> {
        match self.0.judge_name(name, Timestamp::now()) {
            NameVerdict::Refuse(refused) => Some(refusal(refused)),
            NameVerdict::Allow(_) => None,
        }
    }

    fn negative_ttl(&self) -> Duration {
        self.0.dns.negative_cache_ttl
    }
}

fn refusal(refused: policy::Refusal) -> Refusal {
    Refusal {
        reason: refused.reason,
        rule: refused.rule,
        help: Some(refused.help).filter(|help| !help.is_empty()),
    }
}

impl Book {
    /// What the sandbox's policy refuses in any case; `None` if each query has to
    /// be counted, or if refusals are recorded only.
    pub fn sieve(&self, sandbox: SandboxId) -> Option<PolicySieve> {
        let policy = &self.policy_of(sandbox)?.policy;
        let is_counted = policy.dns.limits.queries_per_second.is_some();
        let is_enforced = policy.mode == Mode::Enforce;
        (is_enforced && !is_counted).then(|| PolicySieve(Arc::clone(policy)))
    }

    /// Whether the sandbox may resolve the name.
    pub fn judge(
        &self,
        sandbox: SandboxId,
        name: &DomainName,
        now: Timestamp,
    ) -> Judgement<Permit> {
        let Some(compiled) = self.policy_of(sandbox) else {
            let help = self.unblocking(sandbox);
            return Judgement::Refuse(Refusal {
                reason: match help {
                    Some(_) => Reason::SandboxBlocked,
                    None => Reason::UnknownAsker,
                },
                rule: None,
                help,
            });
        };
        match compiled.policy.judge_name(name, now) {
            NameVerdict::Allow(permit) => {
                let first = permit.services.first().map(|service| service.rule);
                let rule = first
                    .and_then(|at| compiled.policy.rules.get(at))
                    .map(|rule| rule.origin.clone());
                let below = permit.wildcard.map(|(rule, labels)| Below {
                    wildcard: compiled.rule(rule).0,
                    labels,
                });
                Judgement::Allow {
                    below,
                    permit: Permit {
                        policy: compiled.id,
                        name: Some(Arc::new(permit)),
                    },
                    rule,
                }
            }
            NameVerdict::Refuse(refused) => {
                let refusal = refusal(refused);
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

    /// Opens the addresses for the sandbox from boot-time nanoseconds `now` on.
    /// What the kernel map must then hold is added to `changes`, in this order,
    /// and has to be carried out on an error too: where only a later address
    /// found a bound, the ledger has made room for the earlier ones already.
    pub fn open(
        &mut self,
        now: u64,
        sandbox: SandboxId,
        permit: &Permit,
        opening: Opening<'_>,
        changes: &mut Vec<Changes>,
    ) -> Result<(), OpenError> {
        let compiled = self.current(sandbox, permit).ok_or_else(|| OpenError {
            reason: Reason::GrantFailed,
            detail: "the policy changed while the name was resolved; ask again".into(),
        })?;
        let Some(name) = &permit.name else {
            return Ok(());
        };
        let clamp = clamp(compiled);
        let offers = by_services(compiled, name, opening.addresses)?;
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
        Ok(())
    }

    /// How long the sandbox's grants last; no time at all if it has ended.
    pub fn clamp(&self, sandbox: SandboxId) -> Clamp {
        let ended = Clamp {
            min: Duration::ZERO,
            max: Duration::ZERO,
            grace: Duration::ZERO,
        };
        self.policy_of(sandbox).map_or(ended, clamp)
    }

    /// Boot-time nanoseconds at which the next rule of the sandbox's policy expires.
    pub fn rules_until(&self, sandbox: SandboxId) -> u64 {
        let Some(compiled) = self.policy_of(sandbox) else {
            return 0;
        };
        let Some(expiry) = compiled.next_expiry() else {
            return u64::MAX;
        };
        let left = expiry.duration_since(Timestamp::now()).as_nanos();
        boot_now().saturating_add(u64::try_from(left).unwrap_or(0))
    }

    /// The sandbox's policy, if it is still the version that gave the permit.
    fn current(&self, sandbox: SandboxId, permit: &Permit) -> Option<&Compiled> {
        self.policy_of(sandbox)
            .filter(|compiled| compiled.id == permit.policy)
    }
}

fn clamp(compiled: &Compiled) -> Clamp {
    Clamp {
        min: compiled.policy.dns.min_ttl,
        max: compiled.policy.dns.max_ttl,
        grace: compiled.policy.dns.grace,
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
