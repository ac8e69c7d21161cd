//! How the resolver is served: policy is asked, addresses are granted and
//! written, and only then may an answer leave.

use super::agent::Agent;
use super::permit::{Permit, PolicySieve};
use crate::dns::{Gate, Judgement, Limits, OpenError, Opening, Refusal, Sources, Standing};
use crate::enforcer::{Receipt, boot_now};
use crate::grants::Clamp;
use crate::model::{DomainName, NameLimits, Record};
use egress_common::{Mode, Protocol, Reason, SandboxId};
use jiff::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Grants that stand in the kernel map, and how long answers may rely on them.
pub struct StandingGrants {
    receipt: Receipt,
    clamp: Clamp,
    /// Boot-time nanoseconds at which the next rule of the policy expires.
    rules_until: u64,
}

impl Standing for StandingGrants {
    fn covers(&self, now: u64, answer_ttl: Duration) -> bool {
        let at_least = self.clamp.min.min(self.clamp.max).max(answer_ttl);
        let wanted = nanoseconds(at_least + self.clamp.grace);
        // Renewing for less than a second would be a system call for each answer.
        // The grace is what may be missing, never the time that is told.
        let spared = nanoseconds(self.clamp.grace.min(Duration::from_secs(1)));
        let needed = now.saturating_add(wanted.saturating_sub(spared));
        now < self.rules_until && needed <= self.receipt.expires()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Gate for Agent {
    type Receipt = StandingGrants;
    type Permit = Permit;
    type Sieve = PolicySieve;

    fn now(&self) -> u64 {
        boot_now()
    }

    fn generation(&self) -> u64 {
        self.generation.current()
    }

    fn drained(&self) {
        self.enforcer().drained();
    }

    fn sender(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId> {
        self.enforcer().asker(from, protocol)
    }

    fn asker(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId> {
        let sandbox = self.enforcer().asker(from, protocol)?;
        // A sandbox that ended between its packet and now asks no more.
        self.book().member(sandbox).map(|_| sandbox)
    }

    fn process(&self, from: SocketAddr, protocol: Protocol) -> Option<u32> {
        self.enforcer().asking_process(from, protocol)
    }

    fn sieve(&self, sandbox: SandboxId) -> Option<PolicySieve> {
        self.book().sieve(sandbox)
    }

    fn in_emergency(&self) -> bool {
        self.enforcer().is_stopped()
    }

    fn judge(&self, sandbox: SandboxId, name: &DomainName) -> Judgement<Permit> {
        if self.in_emergency() {
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

    fn sources(&self, sandbox: SandboxId, name: &DomainName) -> Sources {
        let book = self.book();
        let Some(compiled) = book.policy_of(sandbox) else {
            return Sources::default();
        };
        let dns = &compiled.policy.dns;
        Sources {
            view: dns.view.clone(),
            addresses: dns.hosts.get(name).cloned(),
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
                names: compiled.policy.dns.limits,
                rules_until: compiled.next_expiry(),
            },
            // It ended just now: nothing may be kept for it.
            None => Limits {
                mode: Mode::Enforce,
                cache_ttl: Duration::ZERO,
                negative_cache_ttl: Duration::ZERO,
                max_addresses: 0,
                names: NameLimits::default(),
                rules_until: Some(Timestamp::UNIX_EPOCH),
            },
        }
    }

    fn open(
        &self,
        sandbox: SandboxId,
        permit: &Permit,
        opening: Opening<'_>,
    ) -> Result<StandingGrants, OpenError> {
        if self.in_emergency() {
            return Err(OpenError {
                reason: Reason::Emergency,
                detail: Reason::Emergency.sentence().into(),
            });
        }
        let mut book = self.book();
        let mut changes = Vec::new();
        let opened = book.open(boot_now(), sandbox, permit, opening, &mut changes);
        let receipt = self.grant(&mut book, changes)?;
        opened.map(|()| StandingGrants {
            receipt,
            clamp: book.clamp(sandbox),
            rules_until: book.rules_until(sandbox),
        })
    }

    fn has_policy(&self, sandbox: SandboxId) -> bool {
        self.book().policy_of(sandbox).is_some()
    }

    fn note(&self, decisions: u64) {
        self.recorder().note(decisions);
    }

    fn record_noted(&self, mut record: Record) {
        if let Some(id) = record.sandbox_id
            && let Some(member) = self.book().member(id)
        {
            record.sandbox = Some(member.name.to_string());
            record.policy = Some(member.policy.clone());
            record.relaxations.clone_from(&member.relaxed);
            record.attribution.clone_from(&member.attribution);
        }
        self.recorder().record_noted(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn grants(expires: u64, grace: u64) -> StandingGrants {
        StandingGrants {
            receipt: Receipt::for_tests(expires * SECOND),
            clamp: Clamp {
                min: Duration::from_secs(30),
                max: Duration::from_secs(3600),
                grace: Duration::from_secs(grace),
            },
            rules_until: 500 * SECOND,
        }
    }

    fn covers(grants: &StandingGrants, now: u64, answer_ttl: u64) -> bool {
        grants.covers(now * SECOND, Duration::from_secs(answer_ttl))
    }

    #[test]
    fn grants_cover_an_answer_only_while_they_outlive_it() {
        let granted = grants(460, 60);
        // 100 s into it, 300 s are told and 60 s of grace stay.
        assert!(covers(&granted, 100, 300));
        assert!(
            covers(&granted, 101, 300),
            "one second of the grace may be missing"
        );
        assert!(!covers(&granted, 102, 300));
        // Short answers are renewed as long as `min_ttl` asks for more.
        assert!(covers(&granted, 371, 1));
        assert!(!covers(&granted, 372, 1));
        // Without grace the time that is told is never cut.
        let strict = grants(460, 0);
        assert!(covers(&strict, 160, 300));
        assert!(!covers(&strict, 161, 300));
        assert!(!covers(&grants(10_000, 60), 500, 1), "a rule has expired");
        assert!(!covers(
            &grants(u64::MAX / SECOND, 60),
            u64::MAX / SECOND,
            1
        ));
    }
}
