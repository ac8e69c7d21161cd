//! Words for the numbers in the kernel's reports.

use super::agent::Agent;
use crate::events::{Context, SandboxFacts};
use crate::model::{DomainName, RuleOrigin};
use crate::policy::{Query, Target, explain};
use egress_common::{Event, NameId, Protocol, Reason, RuleId, SandboxId};
use jiff::Timestamp;

impl Context for Agent {
    fn sandbox(&self, id: SandboxId) -> Option<SandboxFacts> {
        self.book().member(id).map(|member| SandboxFacts {
            name: member.name.to_string(),
            policy: member.policy.clone(),
            relaxations: member.relaxed.clone(),
            attribution: member.attribution.clone(),
        })
    }

    fn name(&self, id: NameId) -> Option<DomainName> {
        if id == NameId(0) {
            return None;
        }
        self.book().ledger().name(id).cloned()
    }

    fn rule(&self, id: RuleId) -> Option<RuleOrigin> {
        if id == RuleId(0) {
            return None;
        }
        self.book().rule(id).cloned()
    }

    /// Where the resolver handed the address out under a name, the port is what
    /// is missing, so the name is told; else the line for the address.
    fn hint(&self, sandbox: SandboxId, event: &Event) -> Option<String> {
        let protocol = Protocol::from_number(event.protocol)?;
        // No line of a policy would have opened it.
        if event.port.host() == 0 || event.reason == Reason::Emergency as u8 {
            return None;
        }
        let book = self.book();
        if event.reason == Reason::SandboxBlocked as u8 {
            return book.unblocking(sandbox);
        }
        let resolved = book
            .ledger()
            .grants(sandbox)
            .filter(|held| held.key.ip == event.ip)
            .last();
        if let Some(held) = resolved
            && let Some(name) = held.names.last()
        {
            return Some(format!(
                "the address belongs to {name}, which is not open on this port; to open it: \
                 `- {{ domain: \"{name}\", ports: [{}], protocols: [{}] }}`",
                event.port.host(),
                protocol.name()
            ));
        }
        let policy = &book.policy_of(sandbox)?.policy;
        let query = Query {
            to: Target::Ip(event.ip.into()),
            port: event.port.host(),
            protocol,
        };
        explain(policy, &query, Timestamp::now()).help
    }
}
