//! Rules and blocklist entries.

use super::checks;
use crate::model::{RuleOrigin, Transport};
use crate::policy::diagnostic::{Report, Source, Span};
use crate::policy::rule::{BlockEntry, BlockList, ListUse, Rule, Subject, joined};
use crate::policy::special::canonical;
use crate::policy::wire::{Allow, At, Block, Cidr, Document, Domain, Field, ProtocolWord, Text};
use jiff::Timestamp;
use std::sync::Arc;

/// All rules and blocklist entries with the places of their subjects.
pub struct Rules {
    /// What is allowed.
    pub rules: Vec<Rule>,
    /// Where each rule's subject stands.
    pub places: Vec<Span>,
    /// What is refused.
    pub blocks: Vec<BlockEntry>,
    /// Lists of what is refused.
    pub block_lists: Vec<BlockList>,
    /// Where `icmp` is written first.
    pub echo: Option<Span>,
}

/// What reading a rule needs to know about its surroundings.
struct Reader<'s, 'r> {
    source: &'s Source,
    now: Timestamp,
    report: &'r mut Report,
}

impl Rules {
    /// Reads every list of the document.
    pub fn read(document: &Document, source: &Source, now: Timestamp, report: &mut Report) -> Self {
        let mut reader = Reader {
            source,
            now,
            report,
        };
        let groups = document.allowlist.iter().flat_map(|groups| &groups.value.0);
        let groups = groups.map(|(name, items)| (name.as_str(), items)).chain(
            document
                .project_allowlist
                .iter()
                .map(|field| ("project_allowlist", &field.value)),
        );
        let mut read = Self {
            rules: Vec::new(),
            places: Vec::new(),
            blocks: Vec::new(),
            block_lists: Vec::new(),
            echo: None,
        };
        for (group, items) in groups {
            let group: Arc<str> = group.into();
            for entry in &items.0 {
                read.echo = read.echo.or_else(|| echo(&entry.value));
                if let Some((rule, place)) = reader.rule(entry, &group) {
                    read.rules.push(rule);
                    read.places.push(place);
                }
            }
        }
        for field in [&document.blocklist, &document.project_blocklist]
            .into_iter()
            .flatten()
        {
            read.blocks
                .extend(field.value.0.iter().filter_map(|entry| reader.block(entry)));
        }
        let patterns = document
            .dns
            .iter()
            .filter_map(|dns| dns.value.block_patterns.as_ref());
        for item in patterns.flat_map(|field| &field.value.0) {
            read.blocks.push(BlockEntry {
                origin: reader.origin(item.span, format!("block pattern {}", item.value.0)),
                subject: Subject::Domain(item.value.0.clone()),
                reason: None,
            });
        }
        let lists = document
            .dns
            .iter()
            .filter_map(|dns| dns.value.block_lists.as_ref());
        for item in lists.flat_map(|field| &field.value.0) {
            read.block_lists.push(BlockList {
                origin: reader.origin(item.span, format!("block list {}", one_line(&item.value.0))),
                list: reader.list(&item.value.0),
            });
        }
        read
    }
}

impl Reader<'_, '_> {
    fn rule(&mut self, entry: &At<Allow>, group: &Arc<str>) -> Option<(Rule, Span)> {
        let allow = &entry.value;
        let transports = self.transports(entry);
        let subject = self.subject(
            entry.span,
            allow.domain.as_ref(),
            allow.cidr.as_ref(),
            allow.domain_list.as_ref(),
            ["domain", "cidr", "domain_list"]
                .iter()
                .all(|key| allow.written.lacks(key)),
        );
        if let Some(expires) = &allow.expires
            && expires.value.0 <= self.now
        {
            self.report.warn(
                "expired",
                expires.span,
                format!("the rule expired at {} and allows nothing", expires.value.0),
                "renew `expires`, or remove the rule",
            );
        }
        let (subject, place) = subject?;
        match &subject {
            Subject::Domain(pattern) => {
                checks::domain(allow, pattern, place, &transports, self.report)
            }
            Subject::Networks(nets) => checks::networks(allow, nets, place, self.report),
            Subject::List(_) => checks::ports_and_networks(allow, place, &transports, self.report),
        }
        let private_networks = allow.allow_private_networks.as_ref();
        let rule = Rule {
            origin: self.origin(
                place,
                words(
                    allow.domain.as_ref(),
                    allow.cidr.as_ref(),
                    allow.domain_list.as_ref(),
                ),
            ),
            group: Arc::clone(group),
            subject,
            transports,
            expires: allow.expires.as_ref().map(|field| field.value.0),
            allow_private: allow
                .allow_private
                .as_ref()
                .is_some_and(|field| field.value),
            private_networks: private_networks
                .map(|field| {
                    field
                        .value
                        .0
                        .iter()
                        .map(|item| canonical(&item.value.0))
                        .collect()
                })
                .unwrap_or_default(),
            approved_by: said(allow.approved_by.as_ref()),
            justification: said(allow.justification.as_ref().or(allow.reason.as_ref())),
        };
        Some((rule, place))
    }

    fn block(&mut self, entry: &At<Block>) -> Option<BlockEntry> {
        let block = &entry.value;
        let (subject, place) = self.subject(
            entry.span,
            block.domain.as_ref(),
            block.cidr.as_ref(),
            None,
            block.written.lacks("domain") && block.written.lacks("cidr"),
        )?;
        let text = words(block.domain.as_ref(), block.cidr.as_ref(), None);
        Some(BlockEntry {
            origin: self.origin(place, format!("block {text}")),
            subject,
            reason: said(block.reason.as_ref()),
        })
    }

    fn origin(&self, place: Span, text: String) -> RuleOrigin {
        RuleOrigin {
            file: Arc::clone(&self.source.file),
            line: self.source.position(place.start).0,
            text: text.into(),
        }
    }

    /// A list as the policy names it: from the directory of the policy file.
    fn list(&self, path: &str) -> ListUse {
        let above = self.source.file.parent();
        ListUse {
            path: above.map_or_else(|| path.into(), |above| above.join(path)),
            names: None,
        }
    }

    /// The destination of an entry, from exactly one of its keys.
    fn subject(
        &mut self,
        entry: Span,
        domain: Option<&Field<Domain>>,
        cidr: Option<&Field<Cidr>>,
        list: Option<&Field<Text>>,
        missing: bool,
    ) -> Option<(Subject, Span)> {
        if let Some(list) = list {
            if domain.is_some() || cidr.is_some() {
                self.report.error(
                    "conflicting-keys",
                    list.key,
                    "an entry has one of `domain`, `cidr` and `domain_list`",
                    "write an entry for each",
                );
            }
            return Some((Subject::List(self.list(&list.value.0)), list.span));
        }
        match (domain, cidr) {
            (Some(domain), Some(cidr)) => {
                self.report.error(
                    "conflicting-keys",
                    cidr.key,
                    "an entry has either `domain` or `cidr`, not both",
                    "write two entries",
                );
                Some((Subject::Domain(domain.value.0.clone()), domain.span))
            }
            (Some(domain), None) => {
                let localhost = domain.value.0.to_string() == "localhost";
                let subject = if localhost {
                    loopback()
                } else {
                    Subject::Domain(domain.value.0.clone())
                };
                Some((subject, domain.span))
            }
            (None, Some(cidr)) => {
                Some((Subject::Networks(vec![canonical(&cidr.value.0)]), cidr.span))
            }
            (None, None) => {
                if missing {
                    self.report.error(
                        "missing-key",
                        entry,
                        "the entry names no destination",
                        "write `domain:` or `cidr:`",
                    );
                }
                None
            }
        }
    }

    fn transports(&mut self, entry: &At<Allow>) -> Vec<Transport> {
        let allow = &entry.value;
        let Some(protocols) = &allow.protocols else {
            if allow.written.lacks("protocols") {
                self.report.error(
                    "missing-key",
                    entry.span,
                    "the rule names no protocol",
                    "write `protocols:` with one of: https, http, tcp, udp, icmp",
                );
            }
            return Vec::new();
        };
        if let Some(ports) = &allow.ports {
            checks::ports(ports, &protocols.value, self.report);
        }
        let mut transports = Vec::new();
        for protocol in &protocols.value.0 {
            let transport = |ports| Transport {
                protocol: protocol.value.transport(),
                ports,
            };
            // The ports of a rule belong to its protocols that have some.
            let ports = allow
                .ports
                .as_ref()
                .filter(|_| protocol.value.transport().has_ports());
            match (ports, protocol.value.default_ports()) {
                (Some(ports), _) => {
                    transports.extend(ports.value.0.iter().map(|item| transport(item.value.0)));
                }
                (None, Some(ports)) => transports.push(transport(ports)),
                (None, None) if allow.written.lacks("ports") => self.report.error(
                    "missing-key",
                    protocol.span,
                    format!("`{}` needs `ports`", self.source.under(protocol.span)),
                    "write the ports; `ports: [any]` if every port is meant",
                ),
                (None, None) => {}
            }
        }
        joined(transports)
    }
}

/// Where a rule says `icmp`.
fn echo(allow: &Allow) -> Option<Span> {
    let words = &allow.protocols.as_ref()?.value.0;
    let echo = words.iter().find(|word| word.value == ProtocolWord::Icmp);
    echo.map(|word| word.span)
}

fn loopback() -> Subject {
    let nets = ["127.0.0.0/8", "::1/128"];
    Subject::Networks(nets.iter().filter_map(|net| net.parse().ok()).collect())
}

fn words(
    domain: Option<&Field<Domain>>,
    cidr: Option<&Field<Cidr>>,
    list: Option<&Field<Text>>,
) -> String {
    match (domain, cidr, list) {
        (Some(domain), ..) => format!("domain {}", domain.value.0),
        (None, Some(cidr), _) => format!("cidr {}", cidr.value.0),
        (None, None, Some(list)) => format!("domain list {}", one_line(&list.value.0)),
        (None, None, None) => String::new(),
    }
}

/// What a person wrote, on one line.
fn said(text: Option<&Field<Text>>) -> Option<Arc<str>> {
    text.map(|text| one_line(&text.value.0).into())
}

/// Text that a person may have written over several lines, on one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
