//! What a policy means, once everything about it has been checked.

use super::adopt::{Adoption, UnmetContract};
use super::compile::compile;
use super::diagnostic::{Diagnostic, Report, Source};
use super::glob::Glob;
use super::limits::{Limits, SeccompProfile};
use super::names::NameIndex;
use super::ranges::NetworkIndex;
use super::rule::{BlockEntry, BlockList, Rule};
use super::wire::{Document, Read};
use super::yaml::{self, Value};
use crate::model::{DomainName, NameLimits, Relaxation};
use egress_common::Mode;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A policy without a problem left in it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name, unique in a [`super::PolicySet`].
    pub name: String,
    /// The file that it was read from.
    pub file: Arc<PathBuf>,
    /// SHA-256 of the text, in hexadecimal: which version of the file this is.
    pub digest: String,
    /// What happens to what it does not allow.
    pub mode: Mode,
    /// Which sandboxes it is for, when nobody names a policy.
    pub applies_to: Vec<Glob>,
    /// Which cgroups of others it is for.
    pub adopts: Vec<Adoption>,
    /// What happens where those have more than a sandbox has.
    pub unmet_contract: UnmetContract,
    /// Which interfaces it is for.
    pub interfaces: Vec<Glob>,
    /// What passes at an interface beside connections.
    pub link: LinkSettings,
    /// What is allowed, in the order of the text.
    pub rules: Vec<Rule>,
    /// What is refused whatever the rules say.
    pub blocks: Vec<BlockEntry>,
    /// Lists of names that are refused whatever the rules say.
    pub block_lists: Vec<BlockList>,
    /// How names are resolved.
    pub dns: DnsSettings,
    /// Who the command runs as, if the policy says.
    pub user: Option<UserSetting>,
    /// How much of the machine a sandbox may use.
    pub limits: Limits,
    /// Which system calls the command cannot make.
    pub seccomp: SeccompProfile,
    /// The points of the fence that are open for its sandboxes, in order, each once.
    pub relaxed: Vec<Relaxation>,
    /// What this policy gives away beyond the usual, in plain words with the line.
    pub relaxations: Vec<String>,
    pub(super) allowed_names: NameIndex,
    /// Positions of the rules whose names are in lists.
    pub(super) listing_rules: Vec<usize>,
    pub(super) blocked_names: NameIndex,
    pub(super) blocked_networks: NetworkIndex,
}

/// What passes at an interface beside connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkSettings {
    /// DHCP with the host.
    pub dhcp: bool,
    /// The host's IPv6 router advertisements.
    pub router_advertisements: bool,
}

/// How names are resolved under a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsSettings {
    /// Record types answered beside addresses, `CNAME`, `HTTPS` and `SVCB`.
    pub query_types: Vec<&'static str>,
    /// The longest time to live in an answer.
    pub cache_ttl: Duration,
    /// The time to live of a refusal.
    pub negative_cache_ttl: Duration,
    /// A grant lasts at least so long, grace excluded.
    pub min_ttl: Duration,
    /// A grant lasts at most so long, grace excluded.
    pub max_ttl: Duration,
    /// Added to every grant.
    pub grace: Duration,
    /// Addresses taken from one answer.
    pub max_addresses: u16,
    /// How much may be said in names.
    pub limits: NameLimits,
    /// Whether names of live connections are asked for again before their grants lapse.
    pub keep_fresh: bool,
    /// The view whose upstreams are asked; `None` those that belong to none.
    pub view: Option<Arc<str>>,
    /// Addresses that the policy gives names itself, beside all upstreams.
    pub hosts: BTreeMap<DomainName, Vec<IpAddr>>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            query_types: Vec::new(),
            cache_ttl: Duration::from_secs(300),
            negative_cache_ttl: Duration::from_secs(60),
            min_ttl: Duration::from_secs(30),
            max_ttl: Duration::from_secs(3600),
            grace: Duration::from_secs(60),
            max_addresses: 32,
            limits: NameLimits::default(),
            keep_fresh: true,
            view: None,
            hosts: BTreeMap::new(),
        }
    }
}

/// Who a command runs as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UserSetting {
    /// By name, as the host's user database has it.
    Name(String),
    /// By number.
    Id(u32),
}

impl UserSetting {
    /// Whether this is the superuser.
    pub fn is_root(&self) -> bool {
        match self {
            Self::Name(name) => name == "root",
            Self::Id(id) => *id == 0,
        }
    }
}

impl Policy {
    /// Reads a policy from text. The warnings come with the policy; if anything
    /// is an error, everything that was found comes instead of it.
    ///
    /// `now` decides only which rules are warned about as expired.
    pub fn parse(
        file: impl AsRef<Path>,
        text: &str,
        now: Timestamp,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let source = Arc::new(Source::new(file.as_ref(), text));
        let mut report = Report::new(Arc::clone(&source));
        let policy = Self::read(&source, now, &mut report);
        match policy {
            Some(policy) if !report.has_errors() => Ok((policy, report.finish())),
            _ => Err(report.finish()),
        }
    }

    fn read(source: &Source, now: Timestamp, report: &mut Report) -> Option<Self> {
        let tree = yaml::parse(source, report)?;
        if tree.value == Value::Null {
            let help =
                "write a policy, or remove the file: an empty file allows nothing and says nothing";
            report.error("empty", tree.span, "the file holds no policy", help);
            return None;
        }
        let document = Document::read(&tree, "the policy", report)?;
        let mut policy = compile(&document, source, now, report)?;
        policy.digest = hexadecimal(&Sha256::digest(source.text.as_bytes()));
        Some(policy)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::Policy;
    use crate::policy::render::{Colour, diagnostics_json, diagnostics_text};
    use jiff::Timestamp;
    use proptest::prelude::*;

    const GOOD: &str = include_str!("../../tests/policy/accepted/everything.yaml");

    fn parse_and_render(text: &str) {
        let found = match Policy::parse("p.yaml", text, Timestamp::UNIX_EPOCH) {
            Ok((policy, warnings)) => {
                assert!(!policy.name.is_empty());
                warnings
            }
            Err(problems) => {
                assert!(problems.iter().any(|problem| problem.is_error()), "{text}");
                problems
            }
        };
        let rendered = diagnostics_text(&found, Colour::No);
        assert!(
            !rendered.contains('\u{1b}'),
            "a policy could write to the terminal: {rendered:?}"
        );
        assert_eq!(
            diagnostics_json(&found).as_array().map(Vec::len),
            Some(found.len())
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_a_policy_or_an_error(text in "\\PC{0,80}") {
            parse_and_render(&text);
        }

        #[test]
        fn any_damage_to_a_policy_gives_a_policy_or_an_error(
            at in 0..GOOD.len(), length in 0..40_usize, with in "[ \\-:{}\\[\\]\"*&!|>ü\u{1b}\t\n0a]{0,6}",
        ) {
            let end = (at + length).min(GOOD.len());
            if let (Some(head), Some(tail)) = (GOOD.get(..at), GOOD.get(end..)) {
                parse_and_render(&format!("{head}{with}{tail}"));
            }
        }
    }

    #[test]
    fn what_a_policy_says_cannot_steer_the_terminal() {
        parse_and_render(
            "allowlist: {\"\\e[2Ja\": [{\"\\e[31mx\": 1, domain: \"\\e]0;a\\a\", protocols: [\"\\e\"]}]}\n",
        );
    }

    #[test]
    fn the_largest_file_is_read_in_seconds() {
        let mut text = "apiVersion: egress/v1\nallowlist:\n  all:\n".to_owned();
        let mut rules = 0;
        while text.len() < 4_000_000 {
            text += &format!("    - {{ domain: h{rules}.example.com, protocols: [https] }}\n");
            text += &format!(
                "    - {{ cidr: \"2001:db8:{:x}::/48\", protocols: [https] }}\n",
                rules % 65_536
            );
            rules += 2;
        }
        let begin = std::time::Instant::now();
        let (policy, _) =
            Policy::parse("large.yaml", &text, Timestamp::UNIX_EPOCH).expect("a policy");
        assert_eq!(policy.rules.len(), rules);
        assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    }

    #[test]
    fn line_endings_of_other_systems_change_nothing() {
        let read = |text: &str| {
            Policy::parse("p.yaml", text, Timestamp::UNIX_EPOCH)
                .expect("a policy")
                .0
        };
        let (unix, other) = (read(GOOD), read(&GOOD.replace('\n', "\r\n")));
        assert_eq!(unix.rules, other.rules);
        assert_eq!(unix.blocks, other.blocks);
    }

    #[test]
    fn the_digest_is_that_of_the_text() {
        let digest = |text: &str| {
            Policy::parse("p.yaml", text, Timestamp::UNIX_EPOCH)
                .expect("a policy")
                .0
                .digest
        };
        // From `sha256sum`.
        assert_eq!(
            digest("apiVersion: egress/v1\n"),
            "675868ea7d4e4362b3781290b5246c29c0388e797c4d1f34c997a3c670f0c7cc"
        );
        assert_ne!(
            digest("apiVersion: egress/v1\n"),
            digest("apiVersion: egress/v1\n\n")
        );
    }
}
