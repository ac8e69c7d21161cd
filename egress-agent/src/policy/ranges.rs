//! Finds the networks around a network or an address.

use ipnet::IpNet;
use std::collections::HashMap;

/// Networks by their prefix. A look-up probes once for each prefix length that
/// occurs, so the cost does not grow with the number of networks.
#[derive(Clone, Debug, Default)]
pub struct NetworkIndex {
    positions: HashMap<IpNet, usize>,
    /// The prefix lengths that occur, IPv4 and IPv6 apart.
    lengths: [Vec<u8>; 2],
}

impl NetworkIndex {
    /// Indexes networks with their positions in somebody's list; of equal ones
    /// the first stays.
    pub fn new<'n>(networks: impl Iterator<Item = (usize, &'n IpNet)>) -> Self {
        let mut index = Self::default();
        for (position, net) in networks {
            index.positions.entry(net.trunc()).or_insert(position);
            index.lengths[family(net)].push(net.prefix_len());
        }
        for lengths in &mut index.lengths {
            lengths.sort_unstable();
            lengths.dedup();
        }
        index
    }

    /// The position of the widest network that holds all of `net`.
    pub fn around(&self, net: &IpNet) -> Option<usize> {
        self.lengths[family(net)]
            .iter()
            .take_while(|bits| **bits <= net.prefix_len())
            .find_map(|bits| {
                let wider = IpNet::new(net.addr(), *bits).ok()?.trunc();
                self.positions.get(&wider).copied()
            })
    }
}

fn family(net: &IpNet) -> usize {
    usize::from(matches!(net, IpNet::V6(_)))
}

#[cfg(test)]
mod tests {
    use super::NetworkIndex;
    use ipnet::{IpNet, Ipv4Net};
    use proptest::prelude::*;

    fn network() -> impl Strategy<Value = IpNet> {
        (0..16_u32, 0..=32_u8).prop_map(|(top, bits)| {
            let net = Ipv4Net::new((top << 28).into(), bits).expect("bits fit");
            net.trunc().into()
        })
    }

    proptest! {
        #[test]
        fn it_finds_a_network_exactly_if_one_is_around(
            nets in prop::collection::vec(network(), 0..10), inner in network(),
        ) {
            let index = NetworkIndex::new(nets.iter().enumerate());
            let found = index.around(&inner);
            prop_assert_eq!(found.is_some(), nets.iter().any(|net| net.contains(&inner)));
            prop_assert!(found.is_none_or(|at| nets[at].contains(&inner)));
        }
    }
}
