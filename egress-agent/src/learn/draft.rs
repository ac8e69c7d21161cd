//! A policy that allows what was done, for people to review.

use super::{is_matter_of_policy, reason, service};
use crate::alerts::carries_data;
use crate::audit::StoredRecord;
use crate::model::{DomainName, PortRange, Transport};
use crate::policy::is_special;
use egress_common::{Ip, Protocol, Reason};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

/// Destinations that are kept. A sandbox that scans has more, and a policy of
/// more could not be reviewed.
const MOST_DESTINATIONS: usize = 10_000;

/// Where something went.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Destination {
    Name(DomainName),
    Address(IpAddr),
}

/// How often, and from where.
#[derive(Clone, Debug, Default)]
struct Tally {
    allowed: u64,
    refused: u64,
    sandboxes: BTreeSet<String>,
}

impl Tally {
    fn add(&mut self, record: &StoredRecord) {
        match record.verdict.as_deref() {
            Some("allow") => self.allowed = self.allowed.saturating_add(record.count),
            _ => self.refused = self.refused.saturating_add(record.count),
        }
        if self.sandboxes.len() <= SANDBOXES_SHOWN
            && let Some(sandbox) = &record.sandbox
        {
            self.sandboxes.insert(sandbox.clone());
        }
    }

    fn in_words(&self, what: &str) -> String {
        let mut words = format!("{} {what}", self.allowed.saturating_add(self.refused));
        if self.refused > 0 {
            let _ = write!(words, ", {} of them without a rule", self.refused);
        }
        let names: Vec<&str> = self
            .sandboxes
            .iter()
            .map(String::as_str)
            .take(SANDBOXES_SHOWN)
            .collect();
        if !names.is_empty() {
            let _ = write!(words, "; {}", names.join(", "));
        }
        if self.sandboxes.len() > SANDBOXES_SHOWN {
            words.push_str(" and others");
        }
        words
    }
}

/// Sandboxes that a comment names.
const SANDBOXES_SHOWN: usize = 3;

/// What was learned so far.
#[derive(Debug, Default)]
pub struct Draft {
    services: BTreeMap<Destination, BTreeMap<(Protocol, u16), Tally>>,
    /// Names that were asked for and refused, so that nobody knows the port.
    asked: BTreeMap<DomainName, Tally>,
    /// Names that had a part in an attack: never in a policy, whatever else
    /// was done with them.
    tainted: BTreeSet<DomainName>,
    /// Which name an address was handed out under, by sandbox.
    handed_out: BTreeMap<(String, IpAddr), DomainName>,
    left_out: BTreeMap<&'static str, u64>,
}

impl Draft {
    /// Learns from a record. They have to come in the order of their times: a
    /// name is resolved before its address is connected to.
    pub fn take(&mut self, record: &StoredRecord) {
        match record.kind.as_str() {
            "dns" => self.query(record),
            "flow" => self.flow(record),
            _ => {}
        }
    }

    fn query(&mut self, record: &StoredRecord) {
        let Some(name) = name(record) else {
            return;
        };
        let why = reason(record);
        let rebinds = why == Some(Reason::Rebinding);
        if rebinds || carries_data(name.as_str()) {
            let what = if rebinds {
                Reason::Rebinding.name()
            } else {
                "a name that carries data"
            };
            self.leave_out(what, record.count);
            if self.tainted.len() < MOST_DESTINATIONS {
                self.tainted.insert(name);
            }
            return;
        }
        if let Some(sandbox) = &record.sandbox
            && self.handed_out.len() < MOST_DESTINATIONS
        {
            for address in granted(record) {
                self.handed_out
                    .insert((sandbox.clone(), address), name.clone());
            }
        }
        match why {
            Some(Reason::NameNotAllowed | Reason::RuleExpired)
                if self.asked.len() < MOST_DESTINATIONS || self.asked.contains_key(&name) =>
            {
                self.asked.entry(name).or_default().add(record);
            }
            Some(Reason::NameNotAllowed | Reason::RuleExpired) => {}
            Some(other) => self.leave_out(other.name(), record.count),
            None => {}
        }
    }

    fn flow(&mut self, record: &StoredRecord) {
        let passed = record.verdict.as_deref() == Some("allow");
        if let Some(why) = reason(record).filter(|why| !passed && !is_matter_of_policy(*why)) {
            return self.leave_out(why.name(), record.count);
        }
        let inbound = record.hook.as_deref() == Some("ingress");
        let (Some(address), Some((protocol, port))) = (record.address, service(record)) else {
            return;
        };
        if inbound || port == 53 {
            return;
        }
        let sandbox = record.sandbox.clone().unwrap_or_default();
        let resolved = || self.handed_out.get(&(sandbox, address)).cloned();
        let destination = match name(record).or_else(resolved) {
            Some(name) => Destination::Name(name),
            // Private, local and metadata addresses are for people to open:
            // reaching them by number is what an attack inside looks like.
            None if !passed && is_special(address) => {
                return self.leave_out("an address of a private or special range", record.count);
            }
            None if Ip::from(address).is_never_allowed() || address.is_loopback() => {
                return self.leave_out("an address that no policy should open", record.count);
            }
            None => Destination::Address(address.to_canonical()),
        };
        if self.services.len() >= MOST_DESTINATIONS && !self.services.contains_key(&destination) {
            return self.leave_out("more destinations than a person could review", record.count);
        }
        self.services
            .entry(destination)
            .or_default()
            .entry((protocol, port))
            .or_default()
            .add(record);
    }

    fn leave_out(&mut self, why: &'static str, count: u64) {
        let sum = self.left_out.entry(why).or_default();
        *sum = sum.saturating_add(count);
    }

    /// The policy as text: what was done is allowed, each line with how often it
    /// was; what was asked for and refused stands in comments.
    pub fn policy(&self, name: &str, applies_to: Option<&str>) -> String {
        let mut text = String::from(
            "# Learned from audit records. Review every line before it is used: it allows what was\n\
             # done, which need not be what should be done.\n\
             apiVersion: egress/v1\n",
        );
        // Writing to text does not fail.
        let _ = writeln!(text, "name: {name}");
        if let Some(sandboxes) = applies_to {
            let _ = writeln!(text, "applies_to:\n  - sandbox: \"{sandboxes}\"");
        }
        text.push_str("\negress:\n  default_action: deny\n  mode: enforce\n");
        let mut rules = String::new();
        for (destination, services) in &self.services {
            self.rule(destination, services, &mut rules);
        }
        if !rules.is_empty() {
            let _ = write!(text, "\nallowlist:\n  learned:\n{rules}");
        }
        let asked = self.asked.iter().filter(|(name, _)| {
            !self.tainted.contains(*name)
                && !self
                    .services
                    .contains_key(&Destination::Name((*name).clone()))
        });
        let mut asked = asked.peekable();
        if asked.peek().is_some() {
            text.push_str(
                "\n# Asked for and refused, so nobody knows for which port. To allow one, put it into the\n\
                 # allowlist with the ports that it needs:\n",
            );
            for (name, tally) in asked {
                let _ = writeln!(
                    text,
                    "#   - {{ domain: \"{name}\", protocols: [https] }}  # {}",
                    tally.in_words("queries")
                );
            }
        }
        if !self.left_out.is_empty() {
            text.push_str("\n# Left out, since no policy should allow it, or none can:\n");
            for (why, count) in &self.left_out {
                let _ = writeln!(text, "#   {count} times {why}");
            }
        }
        text
    }

    fn rule(
        &self,
        destination: &Destination,
        services: &BTreeMap<(Protocol, u16), Tally>,
        rules: &mut String,
    ) {
        let subject = match destination {
            Destination::Name(name) if self.tainted.contains(name) => return,
            Destination::Name(name) => format!("domain: \"{name}\""),
            Destination::Address(address) => format!(
                "cidr: \"{address}/{}\"",
                if address.is_ipv4() { 32 } else { 128 }
            ),
        };
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            let of_protocol: Vec<_> = services
                .iter()
                .filter(|((its, _), _)| *its == protocol)
                .collect();
            if of_protocol.is_empty() {
                continue;
            }
            for ((_, port), tally) in &of_protocol {
                let transport = Transport {
                    protocol,
                    ports: PortRange::one(*port),
                };
                let _ = writeln!(rules, "    # {transport}: {}", tally.in_words("flows"));
            }
            let ports: Vec<String> = of_protocol
                .iter()
                .map(|((_, port), _)| port.to_string())
                .collect();
            let _ = match (protocol, ports.as_slice()) {
                (Protocol::Tcp, [port]) if port == "443" => {
                    writeln!(rules, "    - {subject}\n      protocols: [https]")
                }
                (Protocol::Icmp, _) => {
                    writeln!(rules, "    - {subject}\n      protocols: [icmp]")
                }
                _ => writeln!(
                    rules,
                    "    - {subject}\n      ports: [{}]\n      protocols: [{}]",
                    ports.join(", "),
                    protocol.name()
                ),
            };
        }
    }
}

/// The name of a record, if it is one that a policy can hold.
fn name(record: &StoredRecord) -> Option<DomainName> {
    let name = DomainName::parse(record.name.as_deref()?).ok()?;
    // It stands in quotes in the draft; DNS names have none of these.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    name.as_str().chars().all(plain).then_some(name)
}

/// The addresses that the resolver says it handed out.
fn granted(record: &StoredRecord) -> impl Iterator<Item = IpAddr> {
    let detail = record.detail.as_deref().unwrap_or_default();
    detail
        .split("; ")
        .filter_map(|note| note.strip_prefix("granted "))
        .flat_map(|list| list.split(", "))
        .filter_map(|text| text.parse().ok())
}
