//! Everything of a policy that is not a rule.

use super::checks::has_private_inside;
use crate::model::{PortRange, Relaxation};
use crate::policy::Glob;
use crate::policy::diagnostic::Report;
use crate::policy::meaning::{DnsSettings, LinkSettings, Policy, UserSetting};
use crate::policy::rule::Subject;
use crate::policy::special::{Class, around};
use crate::policy::wire::{Document, Field, Seconds, User};
use egress_common::Mode;
use std::collections::BTreeSet;
use std::time::Duration;

/// What happens to what no rule allows.
pub fn mode(document: &Document) -> Mode {
    let written = document
        .egress
        .as_ref()
        .and_then(|egress| egress.value.mode.as_ref());
    written.map_or(Mode::Enforce, |field| field.value.into())
}

/// The sandboxes that the policy is for.
pub fn applies_to(document: &Document, report: &mut Report) -> Vec<Glob> {
    let mut globs = Vec::new();
    let items = document.applies_to.iter().flat_map(|field| &field.value.0);
    for item in items {
        if item.value.interface.is_some() {
            continue;
        }
        let Some(sandbox) = &item.value.sandbox else {
            if item.value.written.lacks("sandbox") && !item.value.written.has_later() {
                report.error(
                    "missing-key",
                    item.span,
                    "the matcher names no sandbox",
                    "write `sandbox:` with a name, such as `ci-*`",
                );
            }
            continue;
        };
        match Glob::parse(&sandbox.value.0) {
            Some(glob) => globs.push(glob),
            None => report.error(
                "invalid-value",
                sandbox.span,
                format!("no sandbox can be called `{}`", sandbox.value.0),
                "use 1 to 64 of a-z, A-Z, 0-9, `-`, `_`, `.`, and `*` for any text",
            ),
        }
    }
    globs
}

/// The interfaces that the policy is for.
pub fn interfaces(document: &Document, report: &mut Report) -> Vec<Glob> {
    let items = document.applies_to.iter().flat_map(|field| &field.value.0);
    let mut globs = Vec::new();
    for item in items {
        let Some(interface) = &item.value.interface else {
            continue;
        };
        if item.value.sandbox.is_some() {
            report.error(
                "invalid-value",
                item.span,
                "one matcher cannot name a sandbox and an interface",
                "write two matchers; a policy applies where one of them matches",
            );
        }
        match Glob::parse(&interface.value.0) {
            Some(glob) => globs.push(glob),
            None => report.error(
                "invalid-value",
                interface.span,
                format!("no interface can be called `{}`", interface.value.0),
                "use up to 15 of a-z, A-Z, 0-9, `-`, `_`, `.`, and `*` for any text",
            ),
        }
    }
    globs
}

/// What passes at an interface beside connections.
pub fn link(document: &Document) -> LinkSettings {
    let sandbox = document.sandbox.as_ref().map(|field| &field.value);
    let network = sandbox
        .and_then(|sandbox| sandbox.network.as_ref())
        .map(|field| &field.value);
    let is_on = |field: Option<&Field<bool>>| field.is_some_and(|field| field.value);
    LinkSettings {
        dhcp: is_on(network.and_then(|network| network.dhcp.as_ref())),
        router_advertisements: is_on(
            network.and_then(|network| network.router_advertisements.as_ref()),
        ),
    }
}

/// Who the command runs as, if the policy says.
pub fn user(document: &Document) -> Option<UserSetting> {
    let sandbox = &document.sandbox.as_ref()?.value;
    Some(match &sandbox.user.as_ref()?.value {
        User::Name(name) => UserSetting::Name(name.clone()),
        User::Id(id) => UserSetting::Id(*id),
    })
}

/// The points of the fence that are to be open.
pub fn relaxed(document: &Document, report: &mut Report) -> Vec<Relaxation> {
    let root = user(document).is_some_and(|user| user.is_root());
    let mut points = BTreeSet::new();
    points.extend(root.then_some(Relaxation::Root));
    let items = document
        .sandbox
        .iter()
        .filter_map(|field| field.value.relax.as_ref())
        .flat_map(|field| &field.value.0);
    for item in items {
        let point = &item.value.0;
        // Root's number is mapped into the namespace, and with it root's files:
        // the cgroups, once they are mounted there again.
        if root && *point == Relaxation::UserNamespaces {
            report.error(
                "invalid-value",
                item.span,
                "`user-namespaces` cannot be had together with `user: root`",
                "choose another user",
            );
        }
        if !points.insert(point.clone()) {
            report.error(
                "duplicate",
                item.span,
                format!("`{point}` stands here twice"),
                "remove one of them",
            );
        }
    }
    points.into_iter().collect()
}

/// How names are resolved, with the defaults for what is not written.
pub fn dns(document: &Document, report: &mut Report) -> DnsSettings {
    let standard = DnsSettings::default();
    let Some(block) = document.dns.as_ref().map(|field| &field.value) else {
        return standard;
    };
    let span = |field: &Option<Field<Seconds>>, otherwise: Duration| {
        field
            .as_ref()
            .map_or(otherwise, |field| Duration::from_secs(field.value.0.into()))
    };
    let mut query_types: Vec<&'static str> = block
        .query_types
        .iter()
        .flat_map(|field| &field.value.0)
        .map(|item| item.value.0)
        .collect();
    query_types.sort_unstable();
    query_types.dedup();
    let settings = DnsSettings {
        query_types,
        cache_ttl: span(&block.cache_ttl, standard.cache_ttl),
        negative_cache_ttl: span(&block.negative_cache_ttl, standard.negative_cache_ttl),
        min_ttl: span(&block.min_ttl, standard.min_ttl),
        max_ttl: span(&block.max_ttl, standard.max_ttl),
        grace: span(&block.grace, standard.grace),
        max_addresses: block
            .max_addresses
            .as_ref()
            .map_or(standard.max_addresses, |n| n.value.0),
    };
    if settings.min_ttl > settings.max_ttl
        && let Some(field) = block.max_ttl.as_ref().or(block.min_ttl.as_ref())
    {
        report.error(
            "invalid-value",
            field.span,
            format!(
                "`min_ttl` ({}s) is longer than `max_ttl` ({}s)",
                settings.min_ttl.as_secs(),
                settings.max_ttl.as_secs()
            ),
            "the defaults are `min_ttl: 30s` and `max_ttl: 1h`; write both",
        );
    }
    settings
}

/// What a reviewer must have seen before such a policy goes into force.
pub fn relaxations(policy: &Policy) -> Vec<String> {
    let mut words = Vec::new();
    if policy.mode == Mode::Shadow {
        words.push("shadow mode: what is not allowed passes, and is only recorded".to_owned());
    }
    for point in &policy.relaxed {
        words.push(format!("{point}: {}", point.gives_away()));
    }
    if !policy.dns.query_types.is_empty() {
        words.push(format!(
            "DNS record types that can carry data are answered: {}",
            policy.dns.query_types.join(", ")
        ));
    }
    for rule in &policy.rules {
        let mut say = |what: &str| {
            words.push(format!(
                "line {}: {} {what}",
                rule.origin.line, rule.origin.text
            ))
        };
        if rule
            .transports
            .iter()
            .any(|transport| transport.ports == PortRange::ANY)
        {
            say("is open on every port");
        }
        match &rule.subject {
            Subject::Domain(_) if rule.allow_private => say("may lead to private addresses"),
            Subject::Domain(_) if !rule.private_networks.is_empty() => {
                say("may lead to the private networks that it names");
            }
            Subject::Domain(_) => {}
            Subject::Networks(nets) => {
                match nets.first().and_then(around).map(|range| range.class) {
                    Some(Class::Loopback) => say("opens loopback listeners outside the sandbox"),
                    Some(Class::LinkLocal | Class::Metadata) => {
                        say("opens a link-local or cloud metadata address");
                    }
                    Some(Class::Private | Class::Never) | None => {}
                }
                if nets.iter().any(|net| net.prefix_len() == 0) {
                    say("opens the whole internet");
                }
                if rule.allow_private && nets.iter().any(has_private_inside) {
                    say("includes the private ranges inside it");
                }
            }
        }
    }
    words
}
