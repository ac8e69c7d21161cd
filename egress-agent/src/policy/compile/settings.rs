//! Everything of a policy that is not a rule.

use super::checks::has_private_inside;
use crate::model::{AtBound, NameBudget, NameLimits, PortRange, Relaxation};
use crate::policy::Glob;
use crate::policy::adopt::{Adoption, CgroupKind, UnmetContract};
use crate::policy::diagnostic::Report;
use crate::policy::limits::SeccompProfile;
use crate::policy::meaning::{DnsSettings, LinkSettings, Policy, UserSetting};
use crate::policy::rule::Subject;
use crate::policy::special::{Class, around};
use crate::policy::wire::{
    Amount, ContractWord, Document, Field, NameLimitsBlock, SeccompWord, Seconds, User,
};
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

/// The sandboxes that the policy is for, and the cgroups of others.
pub fn applies_to(document: &Document, report: &mut Report) -> (Vec<Glob>, Vec<Adoption>) {
    let (mut globs, mut adopts) = (Vec::new(), Vec::new());
    let items = document.applies_to.iter().flat_map(|field| &field.value.0);
    for item in items {
        let matcher = &item.value;
        let cgroups = [
            (CgroupKind::Unit, &matcher.unit),
            (CgroupKind::Slice, &matcher.slice),
            (CgroupKind::Any, &matcher.cgroup),
        ];
        let written = cgroups.iter().filter(|(_, field)| field.is_some()).count()
            + usize::from(matcher.sandbox.is_some())
            + usize::from(matcher.interface.is_some());
        let keys = ["sandbox", "unit", "slice", "cgroup", "interface"];
        if written == 0
            && keys.iter().all(|key| matcher.written.lacks(key))
            && !matcher.written.has_later()
        {
            report.error(
                "missing-key",
                item.span,
                "the matcher names nothing",
                "write `sandbox:` with a name, such as `ci-*`, or `unit:`, `slice:`, `cgroup:` or `interface:`",
            );
        }
        if written > 1 {
            report.error(
                "conflicting-keys",
                item.span,
                "a matcher has one key",
                "write a list entry for each",
            );
        }
        if let Some(sandbox) = &matcher.sandbox {
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
        for (kind, field) in cgroups {
            let Some(field) = field else { continue };
            match Glob::parse_cgroup(&field.value.0) {
                Some(glob) => adopts.push(Adoption { kind, glob }),
                None => report.error(
                    "invalid-value",
                    field.span,
                    format!("no cgroup below the governed root can be called `{}`", field.value.0),
                    "write the directory's name, not its path, such as `web@*.service` or `docker-*.scope`",
                ),
            }
        }
    }
    (globs, adopts)
}

/// What happens where a cgroup of others has more than a sandbox has.
pub fn unmet_contract(document: &Document) -> UnmetContract {
    let word = document
        .sandbox
        .as_ref()
        .and_then(|field| field.value.unmet_contract.as_ref());
    match word.map(|field| field.value) {
        Some(ContractWord::Report) => UnmetContract::Report,
        Some(ContractWord::Refuse) | None => UnmetContract::Refuse,
    }
}

/// The interfaces that the policy is for.
pub fn interfaces(document: &Document, report: &mut Report) -> Vec<Glob> {
    let items = document.applies_to.iter().flat_map(|field| &field.value.0);
    let mut globs = Vec::new();
    for item in items {
        let Some(interface) = &item.value.interface else {
            continue;
        };
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

/// Which system calls the command cannot make. Making all of them needs a reason.
pub fn seccomp(document: &Document, report: &mut Report) -> SeccompProfile {
    let Some(block) = document.sandbox.as_ref().map(|field| &field.value) else {
        return SeccompProfile::default();
    };
    let profile = match block.seccomp.as_ref().map(|field| field.value) {
        None | Some(SeccompWord::Default) => SeccompProfile::Default,
        Some(SeccompWord::Strict) => SeccompProfile::Strict,
        Some(SeccompWord::None) => SeccompProfile::None,
    };
    match (&block.seccomp, &block.seccomp_reason) {
        (Some(field), None)
            if profile == SeccompProfile::None && block.written.lacks("seccomp_reason") =>
        {
            report.error(
                "missing-key",
                field.span,
                "without a system call filter there are ways round the fence; nobody says why that is right",
                "write `seccomp_reason:`, or use `default`",
            );
        }
        (_, Some(reason)) if profile != SeccompProfile::None => report.error(
            "no-effect",
            reason.key,
            "`seccomp_reason` is for `seccomp: none`",
            "remove it",
        ),
        _ => {}
    }
    profile
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
        limits: block
            .limits
            .as_ref()
            .map_or(standard.limits, |field| name_limits(&field.value, report)),
        keep_fresh: block
            .keep_fresh
            .as_ref()
            .map_or(standard.keep_fresh, |field| field.value),
        view: block
            .view
            .as_ref()
            .map(|field| field.value.0.as_str().into()),
        hosts: standard.hosts,
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

/// How much may be said in names, with the defaults for what is not written.
fn name_limits(block: &NameLimitsBlock, report: &mut Report) -> NameLimits {
    let standard = NameLimits::default();
    let amount = |field: &Option<Field<Amount>>, otherwise: u32| {
        field.as_ref().map_or(otherwise, |field| field.value.0)
    };
    let limits = NameLimits {
        sandbox: NameBudget {
            names: amount(&block.names, standard.sandbox.names),
            bytes: amount(&block.bytes, standard.sandbox.bytes),
            entropy: amount(&block.entropy, standard.sandbox.entropy),
        },
        wildcard: NameBudget {
            names: amount(&block.names_per_wildcard, standard.wildcard.names),
            bytes: amount(&block.bytes_per_wildcard, standard.wildcard.bytes),
            entropy: amount(&block.entropy_per_wildcard, standard.wildcard.entropy),
        },
        label_length: block
            .label_length
            .as_ref()
            .map_or(standard.label_length, |field| field.value.0),
        queries_per_second: block.queries_per_second.as_ref().map(|field| field.value.0),
        at_bound: block
            .at_bound
            .as_ref()
            .map_or(standard.at_bound, |field| field.value.into()),
        record: block
            .record
            .as_ref()
            .map_or(standard.record, |field| field.value.into()),
    };
    for (field, of_one, of_all, key) in [
        (
            &block.names_per_wildcard,
            limits.wildcard.names,
            limits.sandbox.names,
            "names",
        ),
        (
            &block.bytes_per_wildcard,
            limits.wildcard.bytes,
            limits.sandbox.bytes,
            "bytes",
        ),
        (
            &block.entropy_per_wildcard,
            limits.wildcard.entropy,
            limits.sandbox.entropy,
            "entropy",
        ),
    ] {
        // A bound that another one keeps from ever being met says nothing.
        if let Some(field) = field
            && of_one > of_all
        {
            report.error(
                "invalid-value",
                field.span,
                format!(
                    "`{key}_per_wildcard` ({of_one}) is more than `{key}` of the sandbox ({of_all})"
                ),
                format!("write both, or lower `{key}_per_wildcard`"),
            );
        }
    }
    limits
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
    if policy.seccomp == SeccompProfile::None {
        words.push(
            "the command can make every system call, also those that go round the kernel programs"
                .to_owned(),
        );
    }
    if policy.unmet_contract == UnmetContract::Report && !policy.adopts.is_empty() {
        words.push("what others start with more than a sandbox has is only reported".to_owned());
    }
    if policy.limits.best_effort {
        words.push("limits that the host cannot enforce are left out".to_owned());
    }
    if !policy.dns.query_types.is_empty() {
        words.push(format!(
            "DNS record types that can carry data are answered: {}",
            policy.dns.query_types.join(", ")
        ));
    }
    let (limits, standard) = (policy.dns.limits, NameLimits::default());
    if limits.at_bound != AtBound::Refuse {
        words.push(
            "data in names is not stopped at the bounds of `dns.limits`, only recorded".to_owned(),
        );
    } else if limits.sandbox.bytes > standard.sandbox.bytes
        || limits.sandbox.entropy > standard.sandbox.entropy
        || limits.sandbox.names > standard.sandbox.names
    {
        words.push(format!(
            "names below wildcards may carry {} bytes a minute out",
            limits.sandbox.bytes
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
            .any(|open| open.protocol.has_ports() && open.ports == PortRange::ANY)
        {
            say("is open on every port");
        }
        match &rule.subject {
            Subject::Domain(_) | Subject::List(_) if rule.allow_private => {
                say("may lead to private addresses")
            }
            Subject::Domain(_) | Subject::List(_) if !rule.private_networks.is_empty() => {
                say("may lead to the private networks that it names");
            }
            Subject::Domain(_) | Subject::List(_) => {}
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
