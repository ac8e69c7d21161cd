//! A rule, and what it opens.

use super::lists::NameList;
use super::special::{Class, Special, holding};
use crate::model::{DomainPattern, PortRange, RuleOrigin, Transport};
use egress_common::Protocol;
use ipnet::IpNet;
use jiff::Timestamp;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A destination that is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Where it stands.
    pub origin: RuleOrigin,
    /// The group in the allowlist, or the key of the list.
    pub group: Arc<str>,
    /// Which destinations.
    pub subject: Subject,
    /// On which transports and ports; sorted, without overlap inside one protocol.
    pub transports: Vec<Transport>,
    /// From when on it does not apply.
    pub expires: Option<Timestamp>,
    /// Whether private ranges are included (`allow_private: true`).
    pub allow_private: bool,
    /// Special networks that a name may lead to (`allow_private_networks`).
    pub private_networks: Vec<IpNet>,
    /// Who approved it, in the words of who wrote it.
    pub approved_by: Option<Arc<str>>,
    /// Why it is there, in the words of who wrote it.
    pub justification: Option<Arc<str>>,
}

/// Which destinations a rule means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Names; addresses come from the resolver.
    Domain(DomainPattern),
    /// Networks; the resolver has no part in it.
    Networks(Vec<IpNet>),
    /// Names of a list.
    List(ListUse),
}

/// A list of names that a policy uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListUse {
    /// The list's file.
    pub path: PathBuf,
    /// The names; `None` until the file is opened (`policy::load`). Until then a
    /// list of a rule means no name, and a block list means every name.
    pub names: Option<NameList>,
}

/// A list of names that are refused, whatever the rules say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockList {
    /// Where the policy names it.
    pub origin: RuleOrigin,
    /// The list.
    pub list: ListUse,
}

/// A destination that is refused, whatever the rules say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockEntry {
    /// Where it stands.
    pub origin: RuleOrigin,
    /// Which destinations.
    pub subject: Subject,
    /// Why, in the words of who wrote it.
    pub reason: Option<Arc<str>>,
}

/// One transport that is open, and the rule that opens it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PermittedService {
    /// The transport with its ports.
    pub transport: Transport,
    /// Position in [`super::Policy::rules`].
    pub rule: usize,
}

impl Rule {
    /// Whether it applies at `now`.
    pub fn applies(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    /// Whether a name under this rule may lead to `ip`.
    ///
    /// Loopback never: the kernel judges loopback by network rules alone, so
    /// such an answer could only mislead.
    pub fn may_lead_to(&self, ip: IpAddr) -> bool {
        let Some(special) = holding(ip) else {
            return true;
        };
        let ip = ip.to_canonical();
        let named = || {
            self.private_networks
                .iter()
                .any(|net| special.net.contains(net) && net.contains(&ip))
        };
        match special.class {
            Class::Never | Class::Loopback => false,
            Class::LinkLocal | Class::Metadata => named(),
            Class::Private => self.allow_private || named(),
        }
    }

    /// Whether a network of this rule, which holds addresses of `special`, opens them.
    /// A network inside the range names it; a wider one does not.
    pub fn opens(&self, net: &IpNet, special: &Special) -> bool {
        match special.class {
            Class::Never => false,
            Class::Loopback | Class::LinkLocal | Class::Metadata => special.net.contains(net),
            Class::Private => self.allow_private || special.net.contains(net),
        }
    }

    /// Every transport with this rule's position.
    pub fn services(&self, rule: usize) -> impl Iterator<Item = PermittedService> {
        self.transports
            .iter()
            .map(move |transport| PermittedService {
                transport: *transport,
                rule,
            })
    }
}

/// Whether everything that `inner` opens is open through `outer`.
pub fn covers(outer: &Transport, inner: &Transport) -> bool {
    outer.protocol == inner.protocol
        && outer.ports.first <= inner.ports.first
        && inner.ports.last <= outer.ports.last
}

/// Leaves out services that another one covers; of equal ones the first rule stays.
pub fn without_covered(mut services: Vec<PermittedService>) -> Vec<PermittedService> {
    // Sorted so, whatever covers a service stands before it, and it is covered
    // exactly if something before it reaches at least as far.
    services.sort_by_key(|service| {
        let Transport { protocol, ports } = service.transport;
        (protocol, ports.first, u16::MAX - ports.last, service.rule)
    });
    let mut reached: Option<Transport> = None;
    services.retain(|service| {
        let covered = reached.is_some_and(|wide| covers(&wide, &service.transport));
        if !covered {
            reached = Some(service.transport);
        }
        !covered
    });
    services
}

/// Sorts ports of each protocol and joins those that touch or overlap.
pub fn joined(mut transports: Vec<Transport>) -> Vec<Transport> {
    transports.sort();
    let mut joined: Vec<Transport> = Vec::new();
    for next in transports {
        match joined.last_mut() {
            Some(last)
                if last.protocol == next.protocol
                    && u32::from(next.ports.first) <= u32::from(last.ports.last) + 1 =>
            {
                last.ports.last = last.ports.last.max(next.ports.last);
            }
            _ => joined.push(next),
        }
    }
    joined
}

/// How many single ports the transports open; `any` counts as one.
pub fn single_ports(transports: &[Transport]) -> u32 {
    let count = |transport: &Transport| match transport.ports {
        PortRange::ANY => 1,
        PortRange { first, last } => u32::from(last) - u32::from(first) + 1,
    };
    transports.iter().map(count).sum()
}

/// Whether a service for `port` of `protocol` is among them, and which.
pub fn serving(
    services: &[PermittedService],
    protocol: Protocol,
    port: u16,
) -> Option<&PermittedService> {
    services
        .iter()
        .find(|s| s.transport.protocol == protocol && s.transport.ports.holds(port))
}
