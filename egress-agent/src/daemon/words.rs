//! Words for the numbers in the kernel's reports.

use super::agent::Agent;
use crate::events::{Context, SandboxFacts};
use crate::model::{DomainName, RuleOrigin};
use crate::policy::{Query, Target, explain, rule_line};
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
        let protocol = Protocol::from_key(event.protocol)?;
        // No line of a policy would have opened it.
        let port = event.port.host();
        if (port == 0 && protocol.has_ports()) || event.reason == Reason::Emergency as u8 {
            return None;
        }
        let book = self.book();
        if event.reason == Reason::SandboxBlocked as u8 {
            return book.unblocking(sandbox);
        }
        // Of ICMP a line opens only echo, and everything else cannot be read.
        if event.reason == Reason::Unparsable as u8 {
            return None;
        }
        let resolved = book
            .ledger()
            .grants(sandbox)
            .filter(|held| held.key.ip == event.ip)
            .last();
        if let Some(held) = resolved
            && let Some(name) = held.names.last()
        {
            let (place, port) = if protocol.has_ports() {
                ("on this port", Some(port))
            } else {
                ("for it", None)
            };
            let subject = format!("domain: \"{name}\"");
            return Some(format!(
                "the address belongs to {name}, which is not open {place}; to open it: `{}`",
                rule_line(&subject, port, protocol.name())
            ));
        }
        let policy = &book.policy_of(sandbox)?.policy;
        let query = Query {
            to: Target::Ip(event.ip.into()),
            port,
            protocol,
        };
        explain(policy, &query, Timestamp::now()).help
    }
}
