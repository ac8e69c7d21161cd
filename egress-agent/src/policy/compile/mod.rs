//! From the document to the policy: what the keys mean together.

mod capacity;
mod checks;
mod hosts;
mod limits;
mod rules;
mod settings;

use super::diagnostic::{Report, Source, Span};
use super::meaning::Policy;
use super::names::NameIndex;
use super::ranges::NetworkIndex;
use super::rule::{BlockEntry, Rule, Subject};
use super::wire::{Document, PolicyName};
use jiff::Timestamp;
use std::sync::Arc;

/// Checks the document and gives its meaning. Whether it may be used is for the
/// report to say: this goes on after errors to find all of them.
pub fn compile(
    document: &Document,
    source: &Source,
    now: Timestamp,
    report: &mut Report,
) -> Option<Policy> {
    if document.written.lacks("api_version") {
        report.warn(
            "api-version",
            Span::default(),
            "`apiVersion` is missing; `egress/v1` is assumed",
            "write `apiVersion: egress/v1` as the first line",
        );
    }
    let read = rules::Rules::read(document, source, now, report);
    let allowed_names = index(read.rules.iter().map(|rule| &rule.subject));
    let blocked_names = index(read.blocks.iter().map(|block| &block.subject));
    let blocked_networks = index_networks(&read.blocks);
    let is_list =
        |(at, rule): (usize, &Rule)| matches!(rule.subject, Subject::List(_)).then_some(at);
    let listing_rules = read.rules.iter().enumerate().filter_map(is_list).collect();
    checks::warn_about_blocked(&read, &blocked_names, &blocked_networks, report);
    capacity::check(&read, report);

    // All of it is read before anything is missed, so that all problems show.
    let name = name(document, source, report);
    let (applies_to, adopts) = settings::applies_to(document, report);
    let interfaces = settings::interfaces(document, report);
    let others_too = interfaces.is_empty() || !applies_to.is_empty() || !adopts.is_empty();
    if let Some(place) = read.echo.filter(|_| others_too) {
        report.warn(
            "interfaces-only",
            place,
            "`icmp` opens echo for sandboxes behind interfaces only; for all others ICMP stays refused",
            "",
        );
    }
    let mut dns = settings::dns(document, report);
    dns.hosts = hosts::read(document, report);
    let limits = limits::read(document, report);
    let relaxed = settings::relaxed(document, report);
    let mut policy = Policy {
        name: name?,
        file: Arc::clone(&source.file),
        digest: String::new(),
        mode: settings::mode(document),
        applies_to,
        adopts,
        unmet_contract: settings::unmet_contract(document),
        interfaces,
        link: settings::link(document),
        rules: read.rules,
        blocks: read.blocks,
        block_lists: read.block_lists,
        dns,
        user: settings::user(document),
        limits,
        seccomp: settings::seccomp(document, report),
        relaxed,
        relaxations: Vec::new(),
        allowed_names,
        listing_rules,
        blocked_names,
        blocked_networks,
    };
    policy.relaxations = settings::relaxations(&policy);
    hosts::check(&policy, document, now, report);
    Some(policy)
}

fn name(document: &Document, source: &Source, report: &mut Report) -> Option<String> {
    if let Some(name) = &document.name {
        return Some(name.value.0.clone());
    }
    if !document.written.lacks("name") {
        return None;
    }
    let stem = source
        .file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let name = PolicyName::parse(&stem);
    if name.is_none() {
        report.error(
            "missing-key",
            Span::default(),
            format!("the policy has no `name`, and the file's name `{stem}` cannot be one"),
            "write `name:` with 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`",
        );
    }
    name.map(|name| name.0)
}

fn index<'s>(subjects: impl Iterator<Item = &'s Subject>) -> NameIndex {
    NameIndex::new(
        subjects
            .enumerate()
            .filter_map(|(position, subject)| match subject {
                Subject::Domain(pattern) => Some((position, pattern)),
                Subject::Networks(_) | Subject::List(_) => None,
            }),
    )
}

fn index_networks(blocks: &[BlockEntry]) -> NetworkIndex {
    let nets = blocks
        .iter()
        .enumerate()
        .flat_map(|(position, block)| match &block.subject {
            Subject::Networks(nets) => nets.iter().map(|net| (position, net)).collect(),
            Subject::Domain(_) | Subject::List(_) => Vec::new(),
        });
    NetworkIndex::new(nets)
}
