//! A version of a policy, with the numbers under which the kernel knows it.

use super::BookError;
use super::Member;
use crate::image;
use crate::model::PortRange;
use crate::policy::{NameVerdict, Policy};
use egress_common::{GrantKey, Network, PolicyId, Port, Protocol, RuleId, Sandbox};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A policy with the numbers under which the kernel knows it. Each version of a
/// policy gets numbers of its own.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Whose networks.
    pub id: PolicyId,
    /// The meaning.
    pub policy: Arc<Policy>,
    /// The id of the rule at position 0.
    pub(super) first_rule: u32,
    /// When the next rule expires.
    pub(super) next_expiry: Option<Timestamp>,
    /// Its networks as the kernel map holds them, until then.
    pub(super) networks: Arc<BTreeMap<image::Prefix, Network>>,
}

impl Compiled {
    pub(super) fn new(
        id: PolicyId,
        policy: &Arc<Policy>,
        first_rule: u32,
        now: Timestamp,
    ) -> Result<Self, BookError> {
        let ends = policy.rules.iter().filter_map(|rule| rule.expires);
        let mut compiled = Self {
            id,
            policy: Arc::clone(policy),
            first_rule,
            next_expiry: ends.filter(|end| now < *end).min(),
            networks: Arc::default(),
        };
        let mut networks = BTreeMap::new();
        for network in policy.networks(now) {
            let services: Vec<_> = network
                .services
                .iter()
                .map(|service| (service.transport, compiled.rule(service.rule)))
                .collect();
            if image::flatten_into(&mut networks, id, &network.net, &services) > 0 {
                return Err(BookError::TooManyServices(policy.name.clone()));
            }
        }
        compiled.networks = Arc::new(networks);
        Ok(compiled)
    }

    /// When the next rule expires.
    pub const fn next_expiry(&self) -> Option<Timestamp> {
        self.next_expiry
    }

    /// A sandbox under this version, as the kernel knows it.
    pub(super) fn sandbox(&self, member: &Member) -> Sandbox {
        Sandbox {
            id: member.id,
            policy: self.id,
            mode: self.policy.mode as u32,
            max_connections: self.policy.limits.max_connections.unwrap_or(0),
            send_buffer: self.policy.limits.send_buffer().unwrap_or(0),
            flags: if member.own_network {
                Sandbox::OWN_NETWORK
            } else {
                0
            },
        }
    }

    /// The id of the rule at `position`.
    pub fn rule(&self, position: usize) -> RuleId {
        RuleId(self.first_rule + position as u32)
    }
}

/// The rule that opens what a grant opens, if one still does.
/// [`Port::ANY`] asks for a rule that opens all ports.
pub(super) fn rule_for(
    compiled: &Compiled,
    verdict: &NameVerdict,
    key: &GrantKey,
) -> Option<RuleId> {
    let NameVerdict::Allow(permit) = verdict else {
        return None;
    };
    let protocol = Protocol::from_key(key.protocol)?;
    let opens = |ports: &PortRange| {
        if key.port == Port::ANY {
            *ports == PortRange::ANY
        } else {
            ports.holds(key.port.host())
        }
    };
    let services = compiled.policy.screen(permit, key.ip.into()).ok()?;
    services
        .iter()
        .find(|service| service.transport.protocol == protocol && opens(&service.transport.ports))
        .map(|service| compiled.rule(service.rule))
}
