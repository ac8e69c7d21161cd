//! Address ranges that are not simply "somewhere on the internet".

use ipnet::IpNet;
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// What kind of range it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// No policy can open it (`egress_common::Ip::is_never_allowed`).
    Never,
    /// Listeners of the same host; opened only by a network rule that names it.
    Loopback,
    /// The same link, where cloud hosts keep their credentials; opened only by name.
    LinkLocal,
    /// A cloud host's own service outside the link-local range; opened only by name.
    Metadata,
    /// Private, shared or unique-local; opened by name or by `allow_private: true`.
    Private,
}

/// One special range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Special {
    /// The range.
    pub net: IpNet,
    /// Its kind.
    pub class: Class,
    /// What people call it.
    pub name: &'static str,
}

/// RFC 6890 and its successors, and the metadata services that clouds put elsewhere.
const RANGES: &[(&str, Class, &str)] = &[
    ("0.0.0.0/8", Class::Never, "\"this network\" (RFC 1122)"),
    ("0.0.0.0/32", Class::Loopback, "the unspecified address"),
    ("10.0.0.0/8", Class::Private, "private (RFC 1918)"),
    (
        "100.64.0.0/10",
        Class::Private,
        "shared, carrier-grade NAT (RFC 6598)",
    ),
    (
        "100.100.100.200/32",
        Class::Metadata,
        "a cloud metadata service",
    ),
    ("127.0.0.0/8", Class::Loopback, "loopback"),
    ("127.0.0.0/32", Class::Never, "broadcast on loopback"),
    ("127.255.255.255/32", Class::Never, "broadcast on loopback"),
    (
        "168.63.129.16/32",
        Class::Metadata,
        "a cloud platform service",
    ),
    (
        "169.254.0.0/16",
        Class::LinkLocal,
        "link-local, with cloud metadata services",
    ),
    ("172.16.0.0/12", Class::Private, "private (RFC 1918)"),
    (
        "192.0.0.192/32",
        Class::Metadata,
        "a cloud metadata service",
    ),
    ("192.168.0.0/16", Class::Private, "private (RFC 1918)"),
    ("224.0.0.0/4", Class::Never, "multicast"),
    ("240.0.0.0/4", Class::Never, "reserved and broadcast"),
    ("::/96", Class::Never, "IPv4-compatible (RFC 4291)"),
    ("::/128", Class::Loopback, "the unspecified address"),
    ("::1/128", Class::Loopback, "loopback"),
    ("64:ff9b::/96", Class::Never, "NAT64 (RFC 6052)"),
    ("64:ff9b:1::/48", Class::Never, "NAT64 (RFC 8215)"),
    ("2001::/32", Class::Never, "Teredo (RFC 4380)"),
    ("2002::/16", Class::Never, "6to4 (RFC 3056)"),
    ("fc00::/7", Class::Private, "unique local (RFC 4193)"),
    (
        "fd00:ec2::254/128",
        Class::Metadata,
        "a cloud metadata service",
    ),
    (
        "fd20:ce::254/128",
        Class::Metadata,
        "a cloud metadata service",
    ),
    ("fe80::/10", Class::LinkLocal, "link-local"),
    ("fec0::/10", Class::Private, "site-local (RFC 3879)"),
    ("ff00::/8", Class::Never, "multicast"),
];

/// Every special range.
pub fn all() -> &'static [Special] {
    static PARSED: LazyLock<Vec<Special>> = LazyLock::new(|| {
        let parse = |&(text, class, name): &(&str, Class, &'static str)| Special {
            net: text.parse().expect("the table holds networks"),
            class,
            name,
        };
        RANGES.iter().map(parse).collect()
    });
    &PARSED
}

/// The narrowest special range that holds all of `net`.
pub fn around(net: &IpNet) -> Option<&'static Special> {
    all()
        .iter()
        .filter(|special| special.net.contains(net))
        .max_by_key(|special| special.net.prefix_len())
}

/// The narrowest special range that holds `ip`; IPv4-mapped addresses count as IPv4.
///
/// Asked for each address of each answer.
pub fn holding(ip: IpAddr) -> Option<&'static Special> {
    /// The first address of a range, and the bits in which all of it agrees.
    static MASKED: LazyLock<Vec<(u128, u128, &'static Special)>> = LazyLock::new(|| {
        let mut ranges: Vec<_> = all()
            .iter()
            .map(|special| (to_mapped(&special.net), special))
            .collect();
        ranges.sort_by_key(|((_, bits), _)| Reverse(*bits));
        let masked = |((first, bits), special)| {
            let rest = u128::BITS - u32::from(bits);
            (first, u128::MAX.unbounded_shl(rest), special)
        };
        ranges.into_iter().map(masked).collect()
    });
    let (address, _) = to_mapped(&IpNet::from(ip.to_canonical()));
    let found = MASKED
        .iter()
        .find(|(first, mask, _)| address & mask == *first);
    found.map(|(_, _, special)| *special)
}

/// Whether an address lies in a private or special range, which a policy opens
/// only by naming it.
pub fn is_special(ip: IpAddr) -> bool {
    holding(ip).is_some()
}

/// A network in the one address space that the kernel's trie has, where IPv4 is
/// `::ffff:0:0/96`: the first address and the number of bits.
pub fn to_mapped(net: &IpNet) -> (u128, u8) {
    match net {
        IpNet::V4(v4) => (
            u128::from(v4.network().to_ipv6_mapped()),
            v4.prefix_len() + 96,
        ),
        IpNet::V6(v6) => (u128::from(v6.network()), v6.prefix_len()),
    }
}

/// The network at `address` with `bits` in the address space of the kernel's trie.
pub fn from_mapped(address: u128, bits: u8) -> IpNet {
    let v6 = Ipv6Addr::from(address);
    let net = match (v6.to_ipv4_mapped(), bits.checked_sub(96)) {
        (Some(v4), Some(bits)) => IpNet::new(v4.into(), bits),
        _ => IpNet::new(v6.into(), bits),
    };
    // Bits come from networks, so they fit.
    net.unwrap_or(IpNet::V4(Ipv4Addr::UNSPECIFIED.into()))
}

/// The one form of a network: IPv4 written as IPv4-mapped IPv6 is IPv4.
pub fn canonical(net: &IpNet) -> IpNet {
    let (address, bits) = to_mapped(net);
    from_mapped(address, bits)
}

#[cfg(test)]
mod tests {
    use super::{Class, all, around, canonical, holding};
    use egress_common::Ip;
    use ipnet::IpNet;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn agrees_with_the_kernel(ip: IpAddr) {
        assert_eq!(holding(ip), around(&IpNet::from(ip.to_canonical())), "{ip}");
        let class = holding(ip).map(|special| special.class);
        assert_eq!(
            class == Some(Class::Never),
            Ip::from(ip).is_never_allowed(),
            "{ip}"
        );
        // What is never allowed is refused before it is looked at as loopback.
        assert!(
            class == Some(Class::Never)
                || (class == Some(Class::Loopback)) == Ip::from(ip).is_loopback(),
            "{ip}"
        );
    }

    #[test]
    fn the_edges_of_every_range_are_what_the_kernel_programs_take_them_for() {
        for special in all() {
            for ip in [special.net.network(), special.net.broadcast()] {
                agrees_with_the_kernel(ip);
            }
        }
    }

    #[test]
    fn a_mapped_network_is_its_ipv4_network() {
        let net = |text: &str| text.parse().expect("a network");
        assert_eq!(canonical(&net("::ffff:10.0.0.0/104")), net("10.0.0.0/8"));
        assert_eq!(canonical(&net("::/0")), net("::/0"));
    }

    proptest! {
        #[test]
        fn random_addresses_too(v4: u32, v6: u128, top in prop::sample::select(vec![0u128, 0x2001, 0x2002, 0x64, 0xff02, 0xfe80])) {
            agrees_with_the_kernel(Ipv4Addr::from(v4).into());
            agrees_with_the_kernel(Ipv6Addr::from(v6).into());
            agrees_with_the_kernel(Ipv6Addr::from((v6 >> 16) | (top << 112)).into());
            agrees_with_the_kernel(Ipv6Addr::from(v6 & 0xffff_ffff).into());
        }
    }
}
