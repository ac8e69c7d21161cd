//! Network rules flattened for a trie that gives only its longest match.

use super::Policy;
use super::rule::{BlockEntry, PermittedService, Rule, Subject, without_covered};
use super::special::{self, Special, from_mapped, to_mapped};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// One entry of the trie: everything that is open there, wider networks included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlatNetwork {
    /// The network.
    pub net: IpNet,
    /// What is open; nothing makes it a hole in the network around it.
    pub services: Vec<PermittedService>,
}

impl Policy {
    /// What network rules open at `now`, one entry for each network whose
    /// answer differs from that of the network around it.
    pub fn networks(&self, now: Timestamp) -> Vec<FlatNetwork> {
        flatten(&self.rules, &self.blocks, |rule| rule.applies(now))
            .map(|(net, services)| (net, without_covered(services)))
            .scan(
                Vec::new(),
                |around: &mut Vec<FlatNetwork>, (net, services)| {
                    Some(differing(around, FlatNetwork { net, services }))
                },
            )
            .flatten()
            .collect()
    }
}

/// Gives `entry` back if it differs from the narrowest entry `around` it.
fn differing(around: &mut Vec<FlatNetwork>, entry: FlatNetwork) -> Option<FlatNetwork> {
    while around
        .last()
        .is_some_and(|outer| !within(&entry.net, &outer.net))
    {
        around.pop();
    }
    let outer = around.last().map_or(&[][..], |outer| &outer.services);
    if outer == entry.services {
        return None;
    }
    around.push(entry.clone());
    Some(entry)
}

/// Whether the trie, where IPv4 lies inside `::/0`, would find `outer` around `inner`.
fn within(inner: &IpNet, outer: &IpNet) -> bool {
    let ((inner, bits), (outer, outer_bits)) = (to_mapped(inner), to_mapped(outer));
    outer_bits <= bits && prefix(inner, outer_bits) == outer
}

fn prefix(address: u128, bits: u8) -> u128 {
    let host = 128 - u32::from(bits);
    address.checked_shr(host).map_or(0, |kept| kept << host)
}

/// What is written at one prefix.
#[derive(Default)]
struct Mark<'p> {
    rules: Vec<usize>,
    blocked: bool,
    special: Option<&'p Special>,
}

/// What holds inside one prefix.
struct Inside<'p> {
    net: IpNet,
    /// Rules with the network by which they came here.
    rules: Vec<(usize, IpNet)>,
    blocked: bool,
    special: Option<&'p Special>,
}

/// Where IPv4 begins: rules for IPv6 networks do not reach into it.
const IPV4: &str = "0.0.0.0/0";

/// Every prefix at which the answer can change, outer before inner, with all
/// services of the rules that `counts` takes.
///
/// One sweep over the sorted prefixes with a stack of those around the current
/// one: a rule, a blocked network and a special range hold from their own
/// prefix inward until a narrower one says otherwise.
pub(super) fn flatten<'p>(
    rules: &'p [Rule],
    blocks: &'p [BlockEntry],
    counts: impl Fn(&Rule) -> bool,
) -> impl Iterator<Item = (IpNet, Vec<PermittedService>)> {
    let mut marks: BTreeMap<(u128, u8), Mark<'p>> = BTreeMap::new();
    let mut any = false;
    for (position, rule) in rules.iter().enumerate() {
        if let Subject::Networks(nets) = &rule.subject
            && counts(rule)
        {
            for net in nets {
                any = true;
                marks
                    .entry(to_mapped(net))
                    .or_default()
                    .rules
                    .push(position);
            }
        }
    }
    // Without a rule nothing is open, and there is nothing to cut holes into.
    if any {
        for block in blocks {
            if let Subject::Networks(nets) = &block.subject {
                for net in nets {
                    marks.entry(to_mapped(net)).or_default().blocked = true;
                }
            }
        }
        for special in special::all() {
            marks.entry(to_mapped(&special.net)).or_default().special = Some(special);
        }
        if let Ok(net) = IPV4.parse::<IpNet>() {
            marks.entry(to_mapped(&net)).or_default();
        }
    }

    let mut around: Vec<Inside<'p>> = Vec::new();
    marks.into_iter().map(move |((address, bits), mark)| {
        let net = from_mapped(address, bits);
        while around.last().is_some_and(|outer| !within(&net, &outer.net)) {
            around.pop();
        }
        let outer = around.last();
        let enters_ipv4 = matches!(net, IpNet::V4(_)) && net.prefix_len() == 0;
        let mut inside = Inside {
            net,
            rules: match outer {
                Some(outer) if !enters_ipv4 => outer.rules.clone(),
                _ => Vec::new(),
            },
            // A blocked IPv6 network around `::ffff:0:0/96` says nothing about IPv4.
            blocked: mark.blocked || (!enters_ipv4 && outer.is_some_and(|outer| outer.blocked)),
            special: mark.special.or(outer.and_then(|outer| outer.special)),
        };
        inside
            .rules
            .extend(mark.rules.into_iter().map(|rule| (rule, net)));
        let services = open(rules, &inside);
        around.push(inside);
        (net, services)
    })
}

fn open(rules: &[Rule], inside: &Inside<'_>) -> Vec<PermittedService> {
    if inside.blocked {
        return Vec::new();
    }
    inside
        .rules
        .iter()
        .filter_map(|(position, net)| Some((*position, rules.get(*position)?, net)))
        .filter(|(_, rule, net)| {
            inside
                .special
                .is_none_or(|special| rule.opens(net, special))
        })
        .flat_map(|(position, rule, _)| rule.services(position))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{FlatNetwork, from_mapped, to_mapped, within};
    use crate::policy::rule::{PermittedService, Subject, without_covered};
    use crate::policy::special::holding;
    use crate::policy::{Policy, diagnostic::Diagnostic};
    use egress_common::MAX_SERVICES;
    use ipnet::IpNet;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().expect("a time")
    }

    fn policy(text: &str) -> Policy {
        let parsed = Policy::parse("test.yaml", text, now());
        let words = |found: &[Diagnostic]| {
            format!("{:?}", found.iter().map(|d| &d.message).collect::<Vec<_>>())
        };
        parsed.unwrap_or_else(|found| panic!("{}", words(&found))).0
    }

    /// What a trie lookup of `ip` gives.
    fn looked_up(networks: &[FlatNetwork], ip: IpAddr) -> Vec<PermittedService> {
        let one = IpNet::from(ip.to_canonical());
        let found = networks.iter().filter(|network| within(&one, &network.net));
        found
            .max_by_key(|network| to_mapped(&network.net).1)
            .map(|network| network.services.clone())
            .unwrap_or_default()
    }

    /// What the language says about `ip`, rule by rule.
    fn by_the_rules(policy: &Policy, ip: IpAddr) -> Vec<PermittedService> {
        let ip = ip.to_canonical();
        if policy.blocking_network(ip).is_some() {
            return Vec::new();
        }
        let mut services = Vec::new();
        for (at, rule) in policy.rules.iter().enumerate() {
            let Subject::Networks(nets) = &rule.subject else {
                continue;
            };
            for net in nets.iter().filter(|net| net.contains(&ip)) {
                if rule.applies(now()) && holding(ip).is_none_or(|range| rule.opens(net, range)) {
                    services.extend(rule.services(at));
                }
            }
        }
        without_covered(services)
    }

    /// Networks that lie around, inside and beside the special ranges.
    fn network() -> impl Strategy<Value = IpNet> {
        let address = prop::sample::select(vec![
            "0.0.0.0",
            "10.0.0.0",
            "10.66.1.0",
            "100.100.100.200",
            "127.0.0.1",
            "128.0.0.0",
            "169.254.169.254",
            "203.0.113.7",
            "192.168.1.1",
            "::",
            "::1",
            "fd00:ec2::254",
            "fc00::",
            "fe80::1",
            "2001:db8::1",
            "8000::",
        ]);
        (address, 0..=128_u8)
            .prop_map(|(address, bits)| {
                let ip: IpAddr = address.parse().expect("an address");
                let most = if ip.is_ipv4() { 32 } else { 128 };
                IpNet::new(ip, bits % (most + 1)).expect("bits fit").trunc()
            })
            // What lies inside a range that nothing can open is refused at load.
            .prop_filter("no rule can name it", |net| {
                let around = super::special::around(net);
                around.is_none_or(|range| range.class != super::special::Class::Never)
            })
    }

    prop_compose! {
        fn text()(
            rules in prop::collection::vec((network(), 1..4_u16, any::<bool>(), any::<bool>()), 1..8),
            blocks in prop::collection::vec(network(), 0..3),
        ) -> String {
            let mut text = "apiVersion: egress/v1\nallowlist:\n  a:\n".to_owned();
            for (net, port, private, expired) in rules {
                text += &format!("    - {{ cidr: \"{net}\", ports: [{port}], protocols: [tcp], allow_private: {private}");
                text += if expired { ", expires: \"2025-01-01\" }\n" } else { " }\n" };
            }
            if !blocks.is_empty() {
                text += "blocklist:\n";
            }
            for net in blocks {
                text += &format!("  - {{ cidr: \"{net}\" }}\n");
            }
            text
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_longest_match_opens_exactly_what_the_rules_say(
            text in text(), random in any::<u128>(),
        ) {
            let policy = policy(&text);
            let networks = policy.networks(now());
            // Answers can change only at the edges of what was written.
            let mut edges = vec![random];
            let written = policy.rules.iter().map(|rule| &rule.subject)
                .chain(policy.blocks.iter().map(|block| &block.subject));
            let special = super::special::all().iter().map(|range| range.net);
            let nets = written.flat_map(|subject| match subject {
                Subject::Networks(nets) => nets.clone(),
                Subject::Domain(_) | Subject::List(_) => Vec::new(),
            }).chain(special);
            for net in nets {
                let (first, bits) = to_mapped(&net);
                let last = first | u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                edges.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1), first | (random & (last ^ first))]);
            }
            for edge in edges {
                let ip = from_mapped(edge, 128).addr();
                prop_assert_eq!(looked_up(&networks, ip), by_the_rules(&policy, ip), "{} in\n{}", ip, text);
            }
            for network in networks {
                prop_assert!(network.services.len() <= MAX_SERVICES);
            }
        }
    }

    #[test]
    fn a_wide_network_leaves_special_ranges_and_the_blocklist_out() {
        let policy = policy(
            "apiVersion: egress/v1\nallowlist:\n  a:\n    - { cidr: \"0.0.0.0/0\", ports: [443], protocols: [tcp] }\nblocklist:\n  - { cidr: \"203.0.113.0/24\" }\n",
        );
        let networks = policy.networks(now());
        for (ip, open) in [
            ("198.51.100.1", true),
            ("203.0.113.1", false),
            ("10.0.0.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("168.63.129.16", false),
            ("2001:db8::1", false),
        ] {
            let ip: IpAddr = ip.parse().expect("an address");
            assert_eq!(!looked_up(&networks, ip).is_empty(), open, "{ip}");
        }
    }

    #[test]
    fn ipv6_everywhere_is_not_ipv4_everywhere() {
        let policy = policy(
            "apiVersion: egress/v1\nallowlist:\n  a:\n    - { cidr: \"::/0\", ports: [443], protocols: [tcp] }\n",
        );
        let networks = policy.networks(now());
        let open = |ip: &str| !looked_up(&networks, ip.parse().expect("an address")).is_empty();
        assert!(open("2001:db8::1"));
        assert!(!open("203.0.113.1") && !open("::ffff:203.0.113.1"));
        let hole = networks
            .iter()
            .find(|network| network.net.to_string() == "0.0.0.0/0");
        assert_eq!(hole.map(|network| network.services.len()), Some(0));
    }
}
