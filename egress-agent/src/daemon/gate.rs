//! How the resolver is served: policy is asked, addresses are granted and
//! written, and only then may an answer leave.

use super::agent::Agent;
use super::permit::Permit;
use crate::dns::{Gate, Judgement, Limits, OpenError, Opening, Refusal};
use crate::enforcer::{Receipt, boot_now};
use crate::model::{DomainName, Record};
use egress_common::{Mode, Protocol, Reason, SandboxId};
use jiff::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

impl Gate for Agent {
    type Receipt = Receipt;
    type Permit = Permit;

    fn asker(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId> {
        let sandbox = self.enforcer().asker(from, protocol)?;
        // A sandbox that ended between its packet and now asks no more.
        self.book().policy_of(sandbox).map(|_| sandbox)
    }

    fn judge(&self, sandbox: SandboxId, name: &DomainName) -> Judgement<Permit> {
        if self.enforcer().is_stopped() {
            return Judgement::Refuse(Refusal {
                reason: Reason::Emergency,
                rule: None,
                help: None,
            });
        }
        self.book().judge(sandbox, name, Timestamp::now())
    }

    fn screen(&self, sandbox: SandboxId, permit: &Permit, address: IpAddr) -> Result<(), Reason> {
        self.book().screen(sandbox, permit, address)
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
        if self.enforcer().is_stopped() {
            return Err(OpenError {
                reason: Reason::Emergency,
                detail: Reason::Emergency.sentence().into(),
            });
        }
        let mut book = self.book();
        let mut changes = Vec::new();
        let opened = book.open(boot_now(), sandbox, permit, opening, &mut changes);
        let receipt = self.grant(&mut book, changes)?;
        opened.map(|()| receipt)
    }

    fn record(&self, mut record: Record) {
        if let Some(id) = record.sandbox_id
            && let Some(member) = self.book().member(id)
        {
            record.sandbox = Some(member.name.to_string());
            record.policy = Some(member.policy.clone());
            record.relaxations.clone_from(&member.relaxed);
            record.attribution.clone_from(&member.attribution);
        }
        self.recorder().record(record);
    }
}
