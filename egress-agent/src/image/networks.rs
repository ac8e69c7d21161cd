//! From flattened networks to trie entries.

use super::Prefix;
use crate::model::Transport;
use egress_common::{Ip, MAX_SERVICES, Network, NetworkKey, PolicyId, RuleId, Service};
use ipnet::IpNet;
use std::collections::BTreeMap;

/// A transport with its ports and the rule that opens them.
pub type FlatService = (Transport, RuleId);

/// Clears all but the first `bits` of the key's address.
pub(super) fn mask(key: NetworkKey, bits: u32) -> NetworkKey {
    let [a, b, c, d] = key.address.map(u32::from_be);
    let address = u128::from(a) << 96 | u128::from(b) << 64 | u128::from(c) << 32 | u128::from(d);
    let masked = if bits == 0 {
        0
    } else {
        address & (u128::MAX << (128 - bits))
    };
    let word = |shift: u32| ((masked >> shift) as u32).to_be();
    NetworkKey {
        policy: key.policy,
        address: [word(96), word(64), word(32), word(0)],
    }
}

/// Adds one flattened network of `policy`. IPv4 networks become prefixes of the
/// mapped range, so their length grows by 96.
///
/// Returns how many services did not fit; the policy compiler has refused such
/// policies before, so anything but 0 is a reason not to use the image.
#[must_use]
pub fn flatten_into(
    networks: &mut BTreeMap<Prefix, Network>,
    policy: PolicyId,
    network: &IpNet,
    services: &[FlatService],
) -> usize {
    let bits = match network {
        IpNet::V4(v4) => 96 + u32::from(v4.prefix_len()),
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    let key = mask(NetworkKey::new(policy, &Ip::from(network.network())), bits);
    let mut entry = Network::default();
    for (slot, (transport, rule)) in entry.services.iter_mut().zip(services) {
        *slot = Service {
            protocol: transport.protocol.number(),
            first: transport.ports.first,
            last: transport.ports.last,
            rule: *rule,
            ..Service::default()
        };
    }
    networks.insert((NetworkKey::POLICY_BITS + bits, key), entry);
    services.len().saturating_sub(MAX_SERVICES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v4_network_is_a_prefix_of_the_mapped_range() {
        let mut networks = BTreeMap::new();
        let network = "10.20.30.40/16".parse().expect("a network");
        assert_eq!(flatten_into(&mut networks, PolicyId(7), &network, &[]), 0);
        let ((bits, key), _) = networks.first_key_value().expect("one entry");
        assert_eq!(*bits, 32 + 96 + 16);
        let base = Ip::from("10.20.0.0".parse::<std::net::IpAddr>().expect("an address"));
        assert_eq!(*key, NetworkKey::new(PolicyId(7), &base));
    }
}
