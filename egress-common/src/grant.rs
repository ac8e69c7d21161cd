//! What is open: learned addresses and static networks.

use crate::destination::{Destination, Ip, Port, Protocol};
use crate::layout::shared;
use crate::sandbox::{NameId, PolicyId, RuleId, SandboxId};

/// Key of the allow map: one learned address, for one sandbox, transport and port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct GrantKey {
    /// Whose grant it is.
    pub sandbox: SandboxId,
    /// IANA transport number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// The port, or [`Port::ANY`].
    pub port: Port,
    /// The address.
    pub ip: Ip,
}

impl GrantKey {
    /// The key under which `to` would be granted to `sandbox` with port `port`.
    #[inline(always)]
    pub const fn new(sandbox: SandboxId, to: &Destination, port: Port) -> Self {
        Self {
            sandbox,
            protocol: to.protocol as u8,
            reserved: 0,
            port,
            ip: to.ip,
        }
    }
}

/// A permission earned at run time.
///
/// It stays in the map after it expired: then it opens nothing new, but a
/// connection that began while it was good is still recognised by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Grant {
    /// Boot-time nanoseconds (`CLOCK_BOOTTIME`, so that a suspended machine
    /// does not prolong it) until which new connections may use it.
    pub expires: u64,
    /// The name that was asked for.
    pub name: NameId,
    /// The rule that allows the name.
    pub rule: RuleId,
}

/// Key of the network trie. `prefix_bits` counts from the start of `policy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct NetworkKey {
    /// The policy, big-endian, matched whole.
    pub policy: u32,
    /// The address, IPv4 as mapped IPv6.
    pub address: [u32; 4],
}

impl NetworkKey {
    /// Bits of the key before the address.
    pub const POLICY_BITS: u32 = 32;

    /// The key of `ip` under `policy`.
    #[inline(always)]
    pub const fn new(policy: PolicyId, ip: &Ip) -> Self {
        Self {
            policy: policy.0.to_be(),
            address: ip.0,
        }
    }
}

/// Ports of one transport that a network is open for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(C)]
pub struct Service {
    /// IANA transport number; 0 marks an unused slot.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// First port, machine order.
    pub first: u16,
    /// Last port, machine order, included.
    pub last: u16,
    /// Zero.
    pub reserved2: u16,
    /// The rule that opens them.
    pub rule: RuleId,
}

/// Port ranges that one network can be open for. The policy compiler refuses
/// more, with the rules that overlap.
pub const MAX_SERVICES: usize = 8;

/// What a static network is open for. A trie gives only its longest match, so
/// each entry carries what all networks around it allow too; one with no
/// service is a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Network {
    /// The open services; unused slots at the end.
    pub services: [Service; MAX_SERVICES],
}

impl Network {
    /// The rule under which `port` of `protocol` is open.
    #[inline(always)]
    pub fn rule_for(&self, protocol: Protocol, port: Port) -> Option<RuleId> {
        let port = port.host();
        let mut slot = 0;
        while let Some(service) = self.services.get(slot) {
            if service.protocol == protocol as u8 && service.first <= port && port <= service.last {
                return Some(service.rule);
            }
            slot += 1;
        }
        None
    }
}

shared! {
    GrantKey: 24 = { sandbox: u32, protocol: u8, reserved: u8, port: u16, ip: Ip }
    Grant: 16 = { expires: u64, name: u32, rule: u32 }
    NetworkKey: 20 = { policy: u32, address: [u32; 4] }
    Service: 12 = { protocol: u8, reserved: u8, first: u16, last: u16, reserved2: u16, rule: u32 }
    Network: 96 = { services: [Service; MAX_SERVICES] }
}
