//! What is wrong with a rule although each of its keys can be read.

use super::rules::Rules;
use crate::model::{DomainPattern, PortRange, Transport};
use crate::policy::diagnostic::{Report, Span};
use crate::policy::names::NameIndex;
use crate::policy::ranges::NetworkIndex;
use crate::policy::rule::{Subject, single_ports};
use crate::policy::special::{self, Class, Special, canonical};
use crate::policy::wire::{Allow, At, Field, Items, PortItem, ProtocolWord};
use ipnet::IpNet;

/// Ports that a rule for names may open one by one. Each costs a map entry for
/// each address, so a wide range must be written as `any`.
const MAX_DOMAIN_PORTS: u32 = 64;

/// Checks the ports of a rule, one by one and beside each other.
pub fn ports(ports: &Field<Items<PortItem>>, protocols: &Items<ProtocolWord>, report: &mut Report) {
    let items = &ports.value.0;
    let portless = |word: &At<ProtocolWord>| !word.value.transport().has_ports();
    if !protocols.0.is_empty() && protocols.0.iter().all(portless) {
        report.error(
            "no-effect",
            ports.key,
            "`icmp` has no ports, so `ports` has no effect",
            "remove it, or add the protocol that it is for",
        );
    }
    let any = items.iter().any(|item| item.value.0 == PortRange::ANY);
    for item in items {
        let range = item.value.0;
        if range == PortRange::ANY {
            continue;
        }
        if any {
            report.error(
                "no-effect",
                item.span,
                format!(
                    "`{}` has no effect beside `any`",
                    report.source().under(item.span)
                ),
                "remove it, or remove `any`",
            );
        }
        if range == PortRange::one(53) {
            report.error(
                "dns-port",
                item.span,
                "port 53 in a rule has no effect: all DNS is brought to the agent's resolver",
                "remove it; names are resolved without a rule for port 53",
            );
        } else if range.holds(53) {
            report.warn(
                "dns-port",
                item.span,
                "port 53 in this range has no effect: all DNS is brought to the agent's resolver",
                "",
            );
        }
    }
}

/// Checks what a rule says about names.
pub fn domain(
    allow: &Allow,
    pattern: &DomainPattern,
    place: Span,
    transports: &[Transport],
    report: &mut Report,
) {
    let base = pattern.base().as_str();
    let public = psl::suffix(base.as_bytes())
        .is_some_and(|s| s.is_known() && s.as_bytes() == base.as_bytes());
    if public && !matches!(pattern, DomainPattern::Exact(_)) {
        report.error(
            "public-suffix",
            place,
            format!(
                "`{pattern}` covers the public suffix `{base}`, below which anybody can have a name"
            ),
            format!("name the domain that is yours, such as `*.example.{base}`"),
        );
    }
    if base == "localhost" {
        report.error(
            "invalid-name",
            place,
            format!("`{pattern}` means nothing: `localhost` has no names below it"),
            "write `domain: localhost` for loopback listeners",
        );
    }
    ports_and_networks(allow, place, transports, report);
}

/// Checks what any rule says whose addresses come from the resolver.
pub fn ports_and_networks(
    allow: &Allow,
    place: Span,
    transports: &[Transport],
    report: &mut Report,
) {
    if single_ports(transports) > MAX_DOMAIN_PORTS {
        let span = allow.ports.as_ref().map_or(place, |ports| ports.span);
        report.error(
            "too-many-ports",
            span,
            format!("a rule for names opens at most {MAX_DOMAIN_PORTS} ports one by one, and this one opens {}", single_ports(transports)),
            "write fewer ports, or `any`",
        );
    }
    let networks = allow
        .allow_private_networks
        .iter()
        .flat_map(|field| &field.value.0);
    for item in networks {
        private_network(&canonical(&item.value.0), item.span, report);
    }
}

fn private_network(net: &IpNet, span: Span, report: &mut Report) {
    let (code, message, help) = match special::around(net) {
        Some(Special {
            class: Class::Never,
            name,
            ..
        }) => (
            "never-allowed",
            format!("no policy can open `{net}`: it is {name}"),
            "remove it",
        ),
        Some(Special {
            class: Class::Loopback,
            ..
        }) => (
            "no-effect",
            format!("no name may lead to loopback, so `{net}` has no effect here"),
            "write a rule with `domain: localhost` and the ports",
        ),
        Some(_) => return,
        None => (
            "no-effect",
            format!("`{net}` does not lie inside one special range, so it has no effect here"),
            "answers that hold public addresses need no permission; name private networks inside their range",
        ),
    };
    report.error(code, span, message, help);
}

/// Checks what a rule says about networks.
pub fn networks(allow: &Allow, nets: &[IpNet], place: Span, report: &mut Report) {
    if let Some(networks) = &allow.allow_private_networks {
        report.error(
            "no-effect",
            networks.key,
            "`allow_private_networks` is for names that lead to private addresses; this rule names networks",
            "write one rule with `cidr:` for each network",
        );
    }
    for net in nets {
        if let Some(Special {
            class: Class::Never,
            name,
            ..
        }) = special::around(net)
        {
            report.error(
                "never-allowed",
                place,
                format!("no policy can open `{net}`: it is {name}"),
                "remove the rule",
            );
        }
    }
    if let Some(field) = allow.allow_private.as_ref().filter(|field| field.value)
        && !nets.iter().any(has_private_inside)
    {
        report.warn(
            "no-effect",
            field.key,
            "`allow_private` has no effect: the rule names its networks itself",
            "remove it",
        );
    }
}

/// Whether a network is wider than a private range in it, and so does not name it.
pub fn has_private_inside(net: &IpNet) -> bool {
    special::all()
        .iter()
        .any(|range| range.class == Class::Private && net.contains(&range.net) && *net != range.net)
}

/// Warns about rules that the blocklist leaves nothing of.
pub fn warn_about_blocked(
    read: &Rules,
    names: &NameIndex,
    networks: &NetworkIndex,
    report: &mut Report,
) {
    for (rule, place) in read.rules.iter().zip(&read.places) {
        let by = match &rule.subject {
            Subject::Domain(pattern) => names.covering(pattern).first().copied(),
            Subject::Networks(nets) => {
                let all: Option<Vec<usize>> = nets.iter().map(|net| networks.around(net)).collect();
                all.and_then(|blocks| blocks.first().copied())
            }
            Subject::List(_) => None,
        };
        if let Some(block) = by.and_then(|position| read.blocks.get(position)) {
            report.warn(
                "blocked",
                *place,
                format!(
                    "the rule allows nothing: `{}` in line {} wins over it",
                    block.origin.text, block.origin.line
                ),
                "remove one of the two",
            );
        }
    }
}
