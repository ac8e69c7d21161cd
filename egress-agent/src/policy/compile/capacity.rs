//! Whether every network fits into its kernel entry.

use super::rules::Rules;
use crate::policy::diagnostic::Report;
use crate::policy::networks::flatten;
use crate::policy::rule::{PermittedService, covers, without_covered};
use egress_common::MAX_SERVICES;
use std::collections::BTreeSet;

/// Networks that are reported: where many rules meet, one mistake shows at many.
const MAX_TOLD: usize = 20;

/// Reports networks at which more port ranges meet than one entry holds.
pub fn check(read: &Rules, report: &mut Report) {
    let mut told = BTreeSet::new();
    for (net, services) in flatten(&read.rules, &read.blocks, |_| true) {
        let most = most_at_any_time(read, services);
        let rules: BTreeSet<usize> = most.iter().map(|service| service.rule).collect();
        let Some(last) = rules.last().copied() else {
            continue;
        };
        if most.len() <= MAX_SERVICES || !told.insert(rules.clone()) {
            continue;
        }
        let lines: Vec<String> = rules
            .iter()
            .filter_map(|rule| Some(read.rules.get(*rule)?.origin.line.to_string()))
            .collect();
        if told.len() > MAX_TOLD {
            return;
        }
        report.error(
            "too-many-services",
            read.places.get(last).copied().unwrap_or_default(),
            format!(
                "{} port ranges are open for `{net}`, and {MAX_SERVICES} fit (rules in lines {})",
                most.len(),
                lines.join(", ")
            ),
            "join ports into ranges, or write `any` in one of the rules",
        );
    }
}

/// A rule that covers others may expire before them, and they must fit then too.
/// So only what covers for good may hide anything.
fn most_at_any_time(read: &Rules, services: Vec<PermittedService>) -> Vec<PermittedService> {
    let lasts = |service: &PermittedService| {
        read.rules
            .get(service.rule)
            .is_some_and(|rule| rule.expires.is_none())
    };
    let (lasting, mut passing): (Vec<_>, Vec<_>) = services.into_iter().partition(lasts);
    let mut most = without_covered(lasting);
    if most.len() > MAX_SERVICES {
        return most;
    }
    passing.retain(|service| {
        !most
            .iter()
            .any(|wide| covers(&wide.transport, &service.transport))
    });
    passing.sort();
    passing.dedup_by_key(|service| service.transport);
    most.extend(passing);
    most
}
