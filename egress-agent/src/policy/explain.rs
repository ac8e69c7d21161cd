//! What would happen to a destination, and why: `egressctl policy explain`.
//!
//! Addresses are judged by the same [`egress_common::decide()`] that runs in the
//! kernel, over the networks that the kernel would be given.

use super::judge::{NameVerdict, Refusal};
use super::meaning::Policy;
use super::networks::FlatNetwork;
use super::rule::{Subject, serving};
use super::special::holding;
use super::target::{Query, Target};
use crate::model::{DomainName, RuleOrigin};
use egress_common::{
    Because, Destination, Grant, GrantKey, Lookups, Mode, Neighbour, Network, Outcome, PolicyId,
    Port, Protocol, Reason, RuleId, Sandbox, SandboxId, Service, Standing, Verdict, decide,
};
use jiff::Timestamp;
use std::net::IpAddr;

/// What an [`Explanation`] comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It passes.
    Allow,
    /// It is refused, or in shadow mode recorded as what would be.
    Deny,
    /// It is DNS, and brought to the agent's resolver.
    Redirect,
}

impl Answer {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Redirect => "redirect",
        }
    }
}

/// The verdict about one destination with everything that explains it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// What was asked.
    pub query: Query,
    /// The policy's name.
    pub policy: String,
    /// The policy's mode.
    pub mode: Mode,
    /// The verdict.
    pub answer: Answer,
    /// Why it is refused.
    pub reason: Option<Reason>,
    /// The rule or blocklist entry that decided.
    pub rule: Option<RuleOrigin>,
    /// What to do if it should be allowed.
    pub help: Option<String>,
    /// What else a person should know.
    pub notes: Vec<String>,
}

impl Explanation {
    /// How the audit store would call it.
    pub fn outcome(&self) -> Outcome {
        match (self.answer, self.mode) {
            (Answer::Allow | Answer::Redirect, _) => Outcome::Allowed,
            (Answer::Deny, Mode::Enforce) => Outcome::Denied,
            (Answer::Deny, Mode::Shadow) => Outcome::WouldDeny,
        }
    }
}

/// Says what `policy` does with a destination at `now`.
pub fn explain(policy: &Policy, query: &Query, now: Timestamp) -> Explanation {
    let mut explanation = Explanation {
        query: query.clone(),
        policy: policy.name.clone(),
        mode: policy.mode,
        answer: Answer::Deny,
        reason: None,
        rule: None,
        help: None,
        notes: Vec::new(),
    };
    if Port::from_host(query.port) == Port::DNS {
        explanation.answer = Answer::Redirect;
        explanation
            .notes
            .push("port 53 is brought to the agent's resolver, whatever the address".to_owned());
        return explanation;
    }
    match &query.to {
        Target::Name(name) => about_name(policy, query, name, now, &mut explanation),
        Target::Ip(ip) => about_address(policy, query, *ip, now, &mut explanation),
    }
    if explanation.answer == Answer::Allow && query.protocol == Protocol::Icmp {
        explanation.notes.push(
            "echo of a sandbox behind an interface; for all others ICMP stays refused".to_owned(),
        );
    }
    if explanation.answer == Answer::Deny && policy.mode == Mode::Shadow {
        explanation.notes.push(
            "the policy is in shadow mode: it passes, and is recorded as `would_deny`".to_owned(),
        );
    }
    explanation
}

fn about_name(
    policy: &Policy,
    query: &Query,
    name: &DomainName,
    now: Timestamp,
    to: &mut Explanation,
) {
    if name.as_str() == "localhost" {
        // Rules for `localhost` are loopback networks, and it needs no resolver.
        return about_address(
            policy,
            query,
            IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            now,
            to,
        );
    }
    let permit = match policy.judge_name(name, now) {
        NameVerdict::Refuse(refusal) => return refused(refusal, to),
        NameVerdict::Allow(permit) => permit,
    };
    if let Some(service) = serving(&permit.services, query.protocol, query.port) {
        let rule = policy.rules.get(service.rule);
        to.answer = Answer::Allow;
        to.rule = rule.map(|rule| rule.origin.clone());
        to.notes
            .push("for addresses that the agent's resolver hands out for this name".to_owned());
        if query.protocol == Protocol::Tcp {
            to.notes.push("until TLS is looked into, the name inside TLS is not checked: another name on the same address is reachable too".to_owned());
        }
        if rule.is_some_and(|rule| !rule.allow_private) {
            to.notes
                .push("answers that point into private or special ranges are refused".to_owned());
        }
    } else {
        let open: Vec<String> = permit
            .services
            .iter()
            .map(|s| s.transport.to_string())
            .collect();
        to.reason = Some(Reason::NoRule);
        to.notes.push(format!(
            "the name may be resolved; it is open on: {}",
            open.join(", ")
        ));
        to.help = Some(policy.line_to_add(
            &format!("domain: \"{name}\""),
            query.named_port(),
            query.protocol.name(),
        ));
    }
}

fn refused(refusal: Refusal, to: &mut Explanation) {
    to.reason = Some(refusal.reason);
    to.rule = refusal.rule;
    to.help = (!refusal.help.is_empty()).then_some(refusal.help);
}

fn about_address(policy: &Policy, query: &Query, ip: IpAddr, now: Timestamp, to: &mut Explanation) {
    let networks = StaticNetworks(policy.networks(now));
    let destination = Destination {
        ip: ip.into(),
        port: Port::from_host(query.port),
        protocol: query.protocol,
    };
    match decide(&networks, &ASKER, &destination, Standing::New) {
        Verdict::Allow(because) => {
            to.answer = Answer::Allow;
            let rule = usize::try_from(because.rule().0)
                .unwrap_or(0)
                .checked_sub(1);
            to.rule = rule
                .and_then(|at| policy.rules.get(at))
                .map(|rule| rule.origin.clone());
            debug_assert!(
                matches!(because, Because::Network(_)),
                "nothing else can allow here"
            );
        }
        Verdict::Redirect => to.answer = Answer::Redirect,
        Verdict::Deny(reason) => {
            to.reason = Some(reason);
            if reason == Reason::NeverAllowed {
                return;
            }
            if let Some(block) = policy.blocking_network(ip) {
                return refused(policy.blocked(block), to);
            }
            if let Some(expired) = expired_for(policy, query, ip, now) {
                to.notes.push(format!(
                    "`{}` at {} would allow it, and has expired",
                    expired.text, expired
                ));
            }
            if let Some(special) = holding(ip) {
                to.notes.push(format!(
                    "the address is {}: only a rule for a network inside that range opens it",
                    special.name
                ));
            } else {
                to.notes.push("an address that the resolver handed out for an allowed name is open while its grant lasts".to_owned());
            }
            let subject = match to.query.to {
                Target::Name(_) => "domain: \"localhost\"".to_owned(),
                Target::Ip(ip) => format!("cidr: \"{ip}\""),
            };
            to.help = Some(policy.line_to_add(&subject, query.named_port(), query.protocol.name()));
        }
    }
}

/// A rule that held the address until it expired.
fn expired_for(policy: &Policy, query: &Query, ip: IpAddr, now: Timestamp) -> Option<RuleOrigin> {
    let holds = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&ip));
    let expired = policy.rules.iter().enumerate().find(|(at, rule)| {
        let services: Vec<_> = rule.services(*at).collect();
        !rule.applies(now)
            && matches!(&rule.subject, Subject::Networks(nets) if holds(nets))
            && serving(&services, query.protocol, query.port).is_some()
    });
    expired.map(|(_, rule)| rule.origin.clone())
}

/// Any sandbox will do: network rules are the policy's.
const ASKER: Sandbox = Sandbox {
    id: SandboxId(1),
    policy: PolicyId(1),
    mode: Mode::Enforce as u32,
    max_connections: 0,
    send_buffer: 0,
    flags: 0,
};

/// The networks of a policy without a kernel: no grant was earned, and every
/// loopback listener belongs to somebody else.
struct StaticNetworks(Vec<FlatNetwork>);

impl Lookups for StaticNetworks {
    fn grant(&self, _: &GrantKey) -> Option<Grant> {
        None
    }

    fn network(&self, _: PolicyId, to: &Destination) -> Option<Network> {
        let longest = longest_match(&self.0, to.ip.into())?;
        let mut network = Network::default();
        for (slot, (at, service)) in network
            .services
            .iter_mut()
            .zip(longest.services.iter().map(|s| (s.rule, s.transport)))
        {
            *slot = Service {
                protocol: service.protocol.number(),
                first: service.ports.first,
                last: service.ports.last,
                // 0 says that no rule applies, so positions count from 1.
                rule: RuleId(u32::try_from(at + 1).unwrap_or(0)),
                ..Service::default()
            };
        }
        Some(network)
    }

    fn neighbour(&self, _: &Destination) -> Neighbour {
        Neighbour::Other
    }

    fn now(&self) -> u64 {
        0
    }
}

/// The entry that the kernel's trie would find.
fn longest_match(networks: &[FlatNetwork], ip: IpAddr) -> Option<&FlatNetwork> {
    let (address, _) = super::special::to_mapped(&ip.to_canonical().into());
    networks
        .iter()
        .map(|network| (super::special::to_mapped(&network.net), network))
        .filter(|((prefix, bits), _)| {
            let host = 128 - u32::from(*bits);
            (address ^ prefix).checked_shr(host).unwrap_or(0) == 0
        })
        .max_by_key(|((_, bits), _)| *bits)
        .map(|(_, network)| network)
}
