//! Names that no public server can know, and that therefore leave this host only
//! where somebody said to whom.
//!
//! Policy is asked first, as for all names; what it refuses is refused in its
//! words. What it allows is answered from static entries, by an upstream that is
//! configured for the domain, or else with "no such name" from here.

use crate::model::DomainName;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Domains with everything below them, and the document that says so.
const DOMAINS: &[(&str, &str)] = &[
    ("alt", "RFC 9476"),
    ("home.arpa", "RFC 8375"),
    ("invalid", "RFC 6761"),
    ("local", "RFC 6762"),
    ("onion", "RFC 7686"),
    ("resolver.arpa", "RFC 9462"),
];

/// Reserved for tests: no policy allows them by accident, so that they count only
/// where shadow mode lets through what no rule names.
const FOR_TESTS: (&str, &str) = ("test", "RFC 6761");

/// The document by which a name is not asked of public servers. `is_named` says
/// whether a rule names it.
pub(super) fn is_local(name: &DomainName, is_named: bool) -> Option<&'static str> {
    let text = name.as_str();
    let within = |domain: &str| {
        text.strip_suffix(domain)
            .is_some_and(|head| head.is_empty() || head.ends_with('.'))
    };
    if let Some((_, document)) = DOMAINS.iter().find(|(domain, _)| within(domain)) {
        return Some(document);
    }
    if !is_named && within(FOR_TESTS.0) {
        return Some(FOR_TESTS.1);
    }
    if let Some(numbers) = text.strip_suffix(".in-addr.arpa") {
        return reverse_v4(numbers);
    }
    text.strip_suffix(".ip6.arpa").and_then(reverse_v6)
}

/// RFC 6303 section 4.2 to 4.4, and RFC 7793 for the shared address space.
fn reverse_v4(numbers: &str) -> Option<&'static str> {
    // From the last label, which is the address's first byte.
    let mut bytes = [0; 4];
    let mut known = 0;
    for (label, byte) in numbers.rsplit('.').zip(&mut bytes) {
        *byte = label.parse().ok()?;
        known += 1;
    }
    let [a, b, c, d] = bytes;
    let first = Ipv4Addr::from(bytes);
    let is_special = match known {
        1 => matches!(a, 0 | 10 | 127),
        2 => {
            matches!(a, 0 | 10 | 127)
                || first.is_link_local()
                || (a, b) == (192, 168)
                || (a == 172 && (16..32).contains(&b))
        }
        _ => {
            matches!(a, 0 | 10 | 127)
                || first.is_private()
                || first.is_link_local()
                || first.is_documentation()
                || (known == 4 && (a, b, c, d) == (255, 255, 255, 255))
        }
    };
    if is_special {
        return Some("RFC 6303");
    }
    (known >= 2 && a == 100 && (64..128).contains(&b)).then_some("RFC 7793")
}

/// RFC 6303 sections 4.5 to 4.7.
fn reverse_v6(digits: &str) -> Option<&'static str> {
    let mut address = 0_u128;
    let mut known = 0;
    for label in digits.rsplit('.') {
        let digit = u128::from(u8::from_str_radix(label, 16).ok()?);
        if label.len() != 1 || known == 32 {
            return None;
        }
        address |= digit << (124 - 4 * known);
        known += 1;
    }
    let ip = Ipv6Addr::from_bits(address);
    let [first, second, ..] = ip.segments();
    let is_special = (known == 32 && (ip.is_unspecified() || ip.is_loopback()))
        // fd00::/8
        || (known >= 2 && first & 0xff00 == 0xfd00)
        // fe80::/10, as four zones of three digits
        || (known >= 3 && first & 0xffc0 == 0xfe80)
        // 2001:db8::/32
        || (known >= 8 && (first, second) == (0x2001, 0x0db8));
    is_special.then_some("RFC 6303")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_only_this_network_can_know_are_told_from_others() {
        for (name, document) in [
            ("printer.local", Some("RFC 6762")),
            ("local", Some("RFC 6762")),
            ("notlocal", None),
            ("local.example", None),
            ("nas.home.arpa", Some("RFC 8375")),
            ("a.invalid", Some("RFC 6761")),
            ("x.onion", Some("RFC 7686")),
            ("_dns.resolver.arpa", Some("RFC 9462")),
            ("ipv4only.arpa", None),
            ("example", None),
            ("www.example.com", None),
            ("5.1.2.10.in-addr.arpa", Some("RFC 6303")),
            ("10.in-addr.arpa", Some("RFC 6303")),
            ("1.0.0.127.in-addr.arpa", Some("RFC 6303")),
            ("1.0.16.172.in-addr.arpa", Some("RFC 6303")),
            ("16.172.in-addr.arpa", Some("RFC 6303")),
            ("172.in-addr.arpa", None),
            ("1.0.32.172.in-addr.arpa", None),
            ("192.in-addr.arpa", None),
            ("168.192.in-addr.arpa", Some("RFC 6303")),
            ("1.168.192.in-addr.arpa", Some("RFC 6303")),
            ("254.169.in-addr.arpa", Some("RFC 6303")),
            ("7.113.0.203.in-addr.arpa", Some("RFC 6303")),
            ("255.255.255.255.in-addr.arpa", Some("RFC 6303")),
            ("255.255.255.in-addr.arpa", None),
            ("1.0.64.100.in-addr.arpa", Some("RFC 7793")),
            ("1.0.128.100.in-addr.arpa", None),
            ("8.8.8.8.in-addr.arpa", None),
            ("x.8.8.in-addr.arpa", None),
            ("in-addr.arpa", None),
            ("d.f.ip6.arpa", Some("RFC 6303")),
            ("8.e.f.ip6.arpa", Some("RFC 6303")),
            ("b.e.f.ip6.arpa", Some("RFC 6303")),
            ("c.e.f.ip6.arpa", None),
            ("8.b.d.0.1.0.0.2.ip6.arpa", Some("RFC 6303")),
            ("9.b.d.0.1.0.0.2.ip6.arpa", None),
            ("ff.ip6.arpa", None),
        ] {
            let name = DomainName::parse(name).expect("a name");
            assert_eq!(is_local(&name, true), document, "{name}");
        }
        let zeros = "0.".repeat(31);
        let loopback = DomainName::parse(&format!("1.{zeros}ip6.arpa")).expect("a name");
        assert_eq!(is_local(&loopback, true), Some("RFC 6303"));
        let other = DomainName::parse(&format!("2.{zeros}ip6.arpa")).expect("a name");
        assert_eq!(is_local(&other, true), None);
    }

    #[test]
    fn names_for_tests_are_asked_for_only_where_a_rule_names_them() {
        let name = DomainName::parse("a.test").expect("a name");
        assert_eq!(is_local(&name, true), None);
        assert_eq!(is_local(&name, false), Some("RFC 6761"));
    }
}
