//! Rules and blocklist entries.

use super::is_blocked;
use crate::model::{DomainPattern, PortRange, RuleOrigin, Transport};
use crate::policy::diagnostic::{Report, Source, Span};
use crate::policy::names::NameIndex;
use crate::policy::rule::{BlockEntry, Rule, Subject, joined, single_ports};
use crate::policy::special::{self, Class, Special, canonical};
use crate::policy::wire::{Allow, At, Block, Cidr, Document, Domain, Field, Items};
use ipnet::IpNet;
use jiff::Timestamp;
use std::sync::Arc;

/// Ports that a rule for names may open one by one. Each costs a map entry for
/// each address, so a wide range must be written as `any`.
const MAX_DOMAIN_PORTS: u32 = 64;

/// All rules and blocklist entries with the places of their subjects.
pub struct Rules {
    pub rules: Vec<Rule>,
    /// Where each rule's subject stands.
    pub places: Vec<Span>,
    pub blocks: Vec<BlockEntry>,
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
        };
        for (group, items) in groups {
            let group: Arc<str> = group.into();
            for entry in &items.0 {
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
            allow.written.lacks("domain") && allow.written.lacks("cidr"),
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
            Subject::Domain(pattern) => self.check_domain(allow, pattern, place, &transports),
            Subject::Networks(_) => self.check_networks(allow, &subject, place),
        }
        let private_networks = allow.allow_private_networks.as_ref();
        let rule = Rule {
            origin: self.origin(place, words(allow.domain.as_ref(), allow.cidr.as_ref())),
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
        };
        Some((rule, place))
    }

    fn block(&mut self, entry: &At<Block>) -> Option<BlockEntry> {
        let block = &entry.value;
        let (subject, place) = self.subject(
            entry.span,
            block.domain.as_ref(),
            block.cidr.as_ref(),
            block.written.lacks("domain") && block.written.lacks("cidr"),
        )?;
        let text = words(block.domain.as_ref(), block.cidr.as_ref());
        Some(BlockEntry {
            origin: self.origin(place, format!("block {text}")),
            subject,
            reason: block
                .reason
                .as_ref()
                .map(|reason| reason.value.0.as_str().into()),
        })
    }

    fn origin(&self, place: Span, text: String) -> RuleOrigin {
        RuleOrigin {
            file: Arc::clone(&self.source.file),
            line: self.source.position(place.start).0,
            text: text.into(),
        }
    }

    /// The destination of an entry, from exactly one of `domain` and `cidr`.
    fn subject(
        &mut self,
        entry: Span,
        domain: Option<&Field<Domain>>,
        cidr: Option<&Field<Cidr>>,
        missing: bool,
    ) -> Option<(Subject, Span)> {
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
                    "write `protocols:` with one of: https, http, tcp, udp",
                );
            }
            return Vec::new();
        };
        if let Some(ports) = &allow.ports {
            self.check_ports(ports);
        }
        let mut transports = Vec::new();
        for protocol in &protocols.value.0 {
            let transport = |ports| Transport {
                protocol: protocol.value.transport(),
                ports,
            };
            match (&allow.ports, protocol.value.default_port()) {
                (Some(ports), _) => {
                    transports.extend(ports.value.0.iter().map(|item| transport(item.value.0)));
                }
                (None, Some(port)) => transports.push(transport(PortRange::one(port))),
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

    fn check_ports(&mut self, ports: &Field<Items<crate::policy::wire::PortItem>>) {
        let items = &ports.value.0;
        let any = items.iter().any(|item| item.value.0 == PortRange::ANY);
        for item in items {
            let range = item.value.0;
            if range == PortRange::ANY {
                continue;
            }
            if any {
                self.report.error(
                    "no-effect",
                    item.span,
                    format!(
                        "`{}` has no effect beside `any`",
                        self.source.under(item.span)
                    ),
                    "remove it, or remove `any`",
                );
            }
            if range == PortRange::one(53) {
                self.report.error(
                    "dns-port",
                    item.span,
                    "port 53 in a rule has no effect: all DNS is brought to the agent's resolver",
                    "remove it; names are resolved without a rule for port 53",
                );
            } else if range.holds(53) {
                self.report.warn(
                    "dns-port",
                    item.span,
                    "port 53 in this range has no effect: all DNS is brought to the agent's resolver",
                    "",
                );
            }
        }
    }

    fn check_domain(
        &mut self,
        allow: &Allow,
        pattern: &DomainPattern,
        place: Span,
        transports: &[Transport],
    ) {
        let base = pattern.base().as_str();
        let public = psl::suffix(base.as_bytes())
            .is_some_and(|s| s.is_known() && s.as_bytes() == base.as_bytes());
        if public && !matches!(pattern, DomainPattern::Exact(_)) {
            self.report.error(
                "public-suffix",
                place,
                format!("`{pattern}` covers the public suffix `{base}`, below which anybody can have a name"),
                format!("name the domain that is yours, such as `*.example.{base}`"),
            );
        }
        if base == "localhost" {
            self.report.error(
                "invalid-name",
                place,
                format!("`{pattern}` means nothing: `localhost` has no names below it"),
                "write `domain: localhost` for loopback listeners",
            );
        }
        if single_ports(transports) > MAX_DOMAIN_PORTS {
            let span = allow.ports.as_ref().map_or(place, |ports| ports.span);
            self.report.error(
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
            self.check_private_network(&canonical(&item.value.0), item.span);
        }
    }

    fn check_private_network(&mut self, net: &IpNet, span: Span) {
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
        self.report.error(code, span, message, help);
    }

    fn check_networks(&mut self, allow: &Allow, subject: &Subject, place: Span) {
        if let Some(networks) = &allow.allow_private_networks {
            self.report.error(
                "no-effect",
                networks.key,
                "`allow_private_networks` is for names that lead to private addresses; this rule names networks",
                "write one rule with `cidr:` for each network",
            );
        }
        let Subject::Networks(nets) = subject else {
            return;
        };
        for net in nets {
            let around = special::around(net);
            if let Some(Special {
                class: Class::Never,
                name,
                ..
            }) = around
            {
                self.report.error(
                    "never-allowed",
                    place,
                    format!("no policy can open `{net}`: it is {name}"),
                    "remove the rule",
                );
            }
            let private_inside = special::all().iter().any(|range| {
                range.class == Class::Private && net.contains(&range.net) && *net != range.net
            });
            if let Some(field) = allow.allow_private.as_ref().filter(|field| field.value)
                && !private_inside
            {
                self.report.warn(
                    "no-effect",
                    field.key,
                    "`allow_private` has no effect: the rule names its networks itself",
                    "remove it",
                );
                return;
            }
        }
    }
}

/// Warns about rules that the blocklist leaves nothing of.
pub fn warn_about_blocked(read: &Rules, blocked: &NameIndex, report: &mut Report) {
    for (rule, place) in read.rules.iter().zip(&read.places) {
        let by = match &rule.subject {
            Subject::Domain(pattern) => blocked.covering(pattern).first().copied(),
            Subject::Networks(nets) => {
                let all = nets.iter().all(|net| is_blocked(net, &read.blocks));
                let first = || {
                    let any = |block: &BlockEntry| {
                        nets.iter()
                            .any(|net| is_blocked(net, std::slice::from_ref(block)))
                    };
                    read.blocks.iter().position(any)
                };
                all.then(first).flatten()
            }
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

fn loopback() -> Subject {
    let nets = ["127.0.0.0/8", "::1/128"];
    Subject::Networks(nets.iter().filter_map(|net| net.parse().ok()).collect())
}

fn words(domain: Option<&Field<Domain>>, cidr: Option<&Field<Cidr>>) -> String {
    match (domain, cidr) {
        (Some(domain), _) => format!("domain {}", domain.value.0),
        (None, Some(cidr)) => format!("cidr {}", cidr.value.0),
        (None, None) => String::new(),
    }
}
