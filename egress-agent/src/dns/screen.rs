//! What of a learned answer this sandbox may have, and opening it.

use super::chain::Chain;
use super::gate::{Gate, Judgement, Limits, OpenError, Opening};
use super::service_binding;
use crate::model::DomainName;
use egress_common::{Mode, Reason, SandboxId};
use hickory_proto::rr::Record;
use std::net::IpAddr;
use std::time::Duration;

/// An answer that passed the policy and opens nothing yet.
#[derive(Debug)]
pub(super) struct Screened {
    aliases: Vec<Record>,
    records: Vec<Record>,
    /// What the answer names and the gate must open.
    addresses: Vec<IpAddr>,
    /// What was taken out, and why. In shadow mode it is still in `records`.
    pub(super) removed: Vec<(IpAddr, Reason)>,
}

/// An answer whose addresses are open. It holds the receipt, so nobody can make
/// one without having opened exactly what its records name.
pub(super) struct Opened<G: Gate> {
    records: Vec<Record>,
    addresses: Vec<IpAddr>,
    answer_ttl: Duration,
    receipt: G::Receipt,
    is_direct: bool,
}

impl<G: Gate> Opened<G> {
    /// What was opened.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether no alias stands between the question and what was opened: every record is
    /// then owned by the name that was asked for.
    pub(super) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// The records of the answer and their TTL, with the receipt that they need.
    pub(super) fn redeem(self) -> (Vec<Record>, Duration, G::Receipt) {
        (self.records, self.answer_ttl, self.receipt)
    }
}

/// A name in the chain that policy blocks.
#[derive(Debug)]
pub(super) struct Blocked(pub(super) DomainName);

/// Looks for a blocked name among the aliases. That no rule *allows* an alias
/// is fine: the rule is about the name that was asked for.
pub(super) fn blocked_alias<G: Gate>(
    gate: &G,
    sandbox: SandboxId,
    chain: &Chain,
) -> Result<(), Blocked> {
    let targets = chain.aliases.iter().map(|(_, target)| target.clone());
    let named = chain
        .records
        .iter()
        .filter_map(|record| match &record.data {
            hickory_proto::rr::RData::CNAME(target) => super::name::canonical(&target.0),
            _ => None,
        });
    for target in targets.chain(named) {
        match gate.judge(sandbox, &target) {
            Judgement::Refuse(refusal) | Judgement::Shadow { refusal, .. }
                // While everything is stopped nobody says whether the name is blocked.
                if matches!(refusal.reason, Reason::NameBlocked | Reason::Emergency) =>
            {
                return Err(Blocked(target));
            }
            Judgement::Refuse(_) | Judgement::Shadow { .. } | Judgement::Allow { .. } => {}
        }
    }
    Ok(())
}

/// Takes out what the policy does not let this sandbox have.
pub(super) fn screen<G: Gate>(
    gate: &G,
    sandbox: SandboxId,
    permit: &G::Permit,
    limits: &Limits,
    chain: &Chain,
) -> Screened {
    let may_lead_to = |target: &DomainName| match gate.judge(sandbox, target) {
        Judgement::Allow { .. } | Judgement::Shadow { .. } => true,
        Judgement::Refuse(_) => false,
    };
    let mut screened = Screened {
        aliases: chain
            .aliases
            .iter()
            .map(|(record, _)| record.clone())
            .collect(),
        records: Vec::with_capacity(chain.records.len()),
        addresses: Vec::with_capacity(chain.records.len()),
        removed: Vec::new(),
    };
    for record in &chain.records {
        let Some(record) = service_binding::reduce(record, may_lead_to) else {
            continue;
        };
        let Some(address) = record.data.ip_addr() else {
            screened.records.push(record);
            continue;
        };
        // A v4-mapped AAAA is that IPv4 address on the wire, and is judged as it.
        let address = address.to_canonical();
        if screened.addresses.contains(&address) {
            continue;
        }
        let verdict = if screened.addresses.len() < limits.max_addresses {
            gate.screen(sandbox, permit, address)
        } else {
            Err(Reason::TooManyAddresses)
        };
        match verdict {
            Ok(()) => screened.addresses.push(address),
            Err(reason) => {
                screened.removed.push((address, reason));
                // Shadow mode hands out what it would have removed, but opens
                // it no more than enforcement does.
                if limits.mode == Mode::Enforce || reason == Reason::TooManyAddresses {
                    continue;
                }
            }
        }
        screened.records.push(record);
    }
    screened
}

impl Screened {
    /// Whether nothing is left to answer.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Has the gate open what the answer will name.
    pub(super) fn open<G: Gate>(
        self,
        gate: &G,
        sandbox: SandboxId,
        permit: &G::Permit,
        name: &DomainName,
        (ttl, limits): (Duration, &Limits),
    ) -> Result<Opened<G>, OpenError> {
        let answer_ttl = ttl.min(limits.cache_ttl);
        let opening = Opening {
            name,
            addresses: &self.addresses,
            ttl,
            answer_ttl,
        };
        let receipt = gate.open(sandbox, permit, opening)?;
        let is_direct = self.aliases.is_empty();
        let records = if is_direct {
            self.records
        } else {
            [self.aliases, self.records].concat()
        };
        Ok(Opened {
            records,
            addresses: self.addresses,
            answer_ttl,
            receipt,
            is_direct,
        })
    }
}
