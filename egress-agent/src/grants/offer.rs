//! What the resolver wants to open.

use crate::model::{DomainName, Transport};
use egress_common::{Destination, GrantKey, Ip, Port, Protocol, RuleId, SandboxId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses of one name, about to be handed out to one sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Who asked.
    pub sandbox: SandboxId,
    /// What was asked for.
    pub name: &'a DomainName,
    /// The screened addresses.
    pub addresses: &'a [IpAddr],
    /// What the policy opens on them. Where two open the same port, the first counts.
    pub services: &'a [(Transport, RuleId)],
    /// How long the upstream says that the addresses are good.
    pub ttl: Duration,
    /// How long the answer tells the client to keep them.
    pub answer_ttl: Duration,
    /// The policy's bounds.
    pub clamp: Clamp,
}

impl Offer<'_> {
    /// How many keys the offer can expand to, counted without expanding it.
    pub(super) fn size(&self) -> usize {
        let ports: usize = self
            .services
            .iter()
            .map(|(transport, _)| ports(transport).len())
            .sum();
        ports.saturating_mul(self.addresses.len())
    }

    /// The keys, each with the rule that opens it.
    pub(super) fn keys(&self) -> BTreeMap<GrantKey, RuleId> {
        let mut keys = BTreeMap::new();
        for &address in self.addresses {
            for (transport, rule) in self.services {
                for port in ports(transport) {
                    let port = Port::from_host(port);
                    let key = key(self.sandbox, address, transport.protocol, port);
                    keys.entry(key).or_insert(*rule);
                }
            }
        }
        keys
    }
}

fn key(sandbox: SandboxId, address: IpAddr, protocol: Protocol, port: Port) -> GrantKey {
    let to = Destination {
        ip: Ip::from(address),
        port,
        protocol,
    };
    GrantKey::new(sandbox, &to, port)
}

/// The map has no ranges: "any" is one key of its own, and a shorter range is
/// one key per port. Port 0 exists on no wire, and its key means "any", so a
/// range that merely begins at 0 begins at 1 here.
fn ports(transport: &Transport) -> std::ops::RangeInclusive<u16> {
    let range = transport.ports;
    if range == crate::model::PortRange::ANY {
        let any = Port::ANY.host();
        any..=any
    } else {
        range.first.max(1)..=range.last
    }
}

/// How long a grant opens new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clamp {
    /// Shorter TTLs count as this.
    pub min: Duration,
    /// Longer TTLs count as this.
    pub max: Duration,
    /// Added on top, for what clients keep longer than they should.
    pub grace: Duration,
}

impl Default for Clamp {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(30),
            max: Duration::from_secs(3600),
            grace: Duration::from_secs(60),
        }
    }
}

impl Clamp {
    /// The lifetime of a grant. Never shorter than the client may believe in the
    /// answer: the grant outlives it by the grace.
    pub fn lifetime(&self, ttl: Duration, answer_ttl: Duration) -> Duration {
        ttl.max(self.min).min(self.max).max(answer_ttl) + self.grace
    }
}
