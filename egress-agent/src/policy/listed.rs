//! Lists of names in policies: opened, asked, and told apart.

use super::diagnostic::Diagnostic;
use super::judge::Refusal;
use super::lists::{Found, ListError, NameList};
use super::meaning::Policy;
use super::rule::{BlockList, ListUse, Subject};
use crate::model::DomainName;
use egress_common::Reason;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Lists that are open, so that policies share them.
#[derive(Debug, Default)]
pub struct OpenLists(BTreeMap<PathBuf, NameList>);

impl OpenLists {
    fn open(&mut self, path: &Path) -> Result<NameList, ListError> {
        if let Some(list) = self.0.get(path) {
            return Ok(list.clone());
        }
        let list = NameList::open(path)?;
        self.0.insert(path.to_owned(), list.clone());
        Ok(list)
    }
}

impl ListUse {
    /// The entry that means a name.
    pub fn find(&self, name: &str) -> Option<Found> {
        self.names.as_ref()?.find(name)
    }
}

/// A list in differences between policies: its content, not only its file.
impl fmt::Display for ListUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "list {}", self.path.display())?;
        match &self.names {
            Some(names) => {
                let digest = names.digest();
                let (begin, _) = digest.split_at_checked(12).unwrap_or((&digest, ""));
                write!(f, " ({} names, {begin})", names.len())
            }
            None => f.write_str(" (not opened)"),
        }
    }
}

impl Policy {
    /// Opens the lists that the policy names. What cannot be opened is an error,
    /// and until all are nothing is allowed by name.
    pub fn open_lists(&mut self, open: &mut OpenLists) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        let mut problem = |code, origin: &crate::model::RuleOrigin, message: String, help: &str| {
            let message = format!("line {}: {message}", origin.line);
            problems.push(Diagnostic::about_file(code, origin.file.as_path(), message).help(help));
        };
        const HELP: &str = "make it with `egressctl names build`, or correct the path";
        for rule in &mut self.rules {
            let Subject::List(list) = &mut rule.subject else {
                continue;
            };
            match open.open(&list.path) {
                Ok(names) if names.public_suffixes() > 0 => {
                    let message = format!(
                        "{} of the names in `{}` cover a public suffix, below which anybody can have a name",
                        names.public_suffixes(),
                        list.path.display()
                    );
                    let help = "leave `*.` and `**.` before public suffixes out of the list";
                    problem("public-suffix", &rule.origin, message, help);
                }
                Ok(names) => list.names = Some(names),
                Err(error) => problem("list", &rule.origin, error.to_string(), HELP),
            }
        }
        for block in &mut self.block_lists {
            match open.open(&block.list.path) {
                Ok(names) => block.list.names = Some(names),
                Err(error) => problem("list", &block.origin, error.to_string(), HELP),
            }
        }
        problems
    }

    /// The lists that the policy uses.
    pub fn lists(&self) -> impl Iterator<Item = &ListUse> {
        let allowed = self.rules.iter().filter_map(|rule| match &rule.subject {
            Subject::List(list) => Some(list),
            Subject::Domain(_) | Subject::Networks(_) => None,
        });
        allowed.chain(self.block_lists.iter().map(|block| &block.list))
    }

    /// The block list that refuses a name, and the entry; one that is not open
    /// refuses every name.
    pub(super) fn blocking_list(&self, name: &str) -> Option<(&BlockList, Option<Found>)> {
        self.block_lists
            .iter()
            .find_map(|block| match &block.list.names {
                Some(names) => names.find(name).map(|found| (block, Some(found))),
                None => Some((block, None)),
            })
    }

    /// The refusal by a block list.
    pub(super) fn refused_by_lists(&self, name: &DomainName) -> Option<Refusal> {
        let (block, found) = self.blocking_list(name.as_str())?;
        let path = block.list.path.display();
        let help = match found {
            Some(found) => {
                let entry: Vec<&str> = name.labels().skip(found.below).collect();
                format!(
                    "the list `{path}` at {} holds `{}` and wins over every rule; build it without that entry to allow this",
                    block.origin,
                    entry.join(".")
                )
            }
            None => format!("the list `{path}` at {} is not open", block.origin),
        };
        Some(Refusal {
            reason: Reason::NameBlocked,
            rule: Some(block.origin.clone()),
            help,
        })
    }

    /// Positions of the rules whose lists hold a name.
    pub(super) fn allowed_by_lists(&self, name: &str) -> impl Iterator<Item = usize> {
        self.listing_rules.iter().copied().filter(move |at| {
            let subject = self.rules.get(*at).map(|rule| &rule.subject);
            matches!(subject, Some(Subject::List(list)) if list.find(name).is_some())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::lists::Builder;
    use super::super::load::{self, Text};
    use super::super::set::PolicySet;
    use super::*;
    use crate::model::DomainPattern;
    use crate::policy::NameVerdict;
    use jiff::Timestamp;

    fn build(path: &Path, patterns: &[&str]) {
        let mut builder = Builder::default();
        for pattern in patterns {
            builder.add(&DomainPattern::parse(pattern).expect("a pattern"));
        }
        builder.write(path).expect("written");
    }

    const POLICY: &str = "apiVersion: egress/v1\nname: lists\nallowlist:\n  a:\n    \
        - { domain_list: good.names, protocols: [https] }\n    \
        - { domain: \"**.example.com\", protocols: [https] }\n\
        dns: { block_lists: [bad.names] }\n";

    fn load(folder: &Path) -> Result<PolicySet, Vec<Diagnostic>> {
        let text = Text {
            path: folder.join("lists.yaml"),
            text: POLICY.to_owned(),
        };
        load::parse(&[text], Vec::new(), Timestamp::UNIX_EPOCH).map(|(set, _)| set)
    }

    fn judge(set: &PolicySet, name: &str) -> NameVerdict {
        let policy = set.get("lists").expect("the policy");
        let verdict = policy.judge_name(
            &DomainName::parse(name).expect("a name"),
            Timestamp::UNIX_EPOCH,
        );
        let quick = policy.refuses(name);
        match &verdict {
            NameVerdict::Allow(_) => assert_eq!(quick, None, "{name}"),
            NameVerdict::Refuse(refusal) => assert_eq!(quick, Some(refusal.reason), "{name}"),
        }
        verdict
    }

    #[test]
    fn lists_allow_and_block_and_say_which() {
        let folder = tempfile::tempdir().expect("a directory");
        build(
            &folder.path().join("good.names"),
            &["one.test", "**.two.test"],
        );
        build(
            &folder.path().join("bad.names"),
            &["**.evil.two.test", "ads.example.com"],
        );
        let set = load(folder.path()).expect("a set");
        for (name, wildcard) in [
            ("one.test", None),
            ("two.test", None),
            ("a.b.two.test", Some((0, 2))),
            ("www.example.com", Some((1, 1))),
        ] {
            let NameVerdict::Allow(permit) = judge(&set, name) else {
                panic!("{name} is refused");
            };
            assert_eq!(permit.wildcard, wildcard, "{name}");
        }
        for (name, reason, words) in [
            (
                "x.evil.two.test",
                Reason::NameBlocked,
                "holds `evil.two.test`",
            ),
            ("ads.example.com", Reason::NameBlocked, "bad.names"),
            ("x.one.test", Reason::NameNotAllowed, "to allow it"),
        ] {
            let NameVerdict::Refuse(refusal) = judge(&set, name) else {
                panic!("{name} is allowed");
            };
            assert_eq!(refusal.reason, reason, "{name}");
            assert!(refusal.help.contains(words), "{}", refusal.help);
        }
    }

    #[test]
    fn a_policy_whose_list_is_missing_or_damaged_is_an_error_and_allows_nothing() {
        let folder = tempfile::tempdir().expect("a directory");
        build(&folder.path().join("good.names"), &["one.test"]);
        let found = load(folder.path()).expect_err("one is missing");
        assert_eq!(found.iter().map(|f| f.code).collect::<Vec<_>>(), ["list"]);
        assert!(
            found[0].message.contains("bad.names"),
            "{}",
            found[0].message
        );
        std::fs::write(folder.path().join("bad.names"), [0; 99]).expect("written");
        let found = load(folder.path()).expect_err("one is no list");
        assert!(
            found[0].message.contains("no list of names"),
            "{}",
            found[0].message
        );
        build(&folder.path().join("bad.names"), &["ads.test"]);
        build(&folder.path().join("good.names"), &["*.com"]);
        let found = load(folder.path()).expect_err("it covers everybody");
        assert_eq!(found[0].code, "public-suffix");

        let file = folder.path().join("lists.yaml");
        let (unopened, _) = Policy::parse(file, POLICY, Timestamp::UNIX_EPOCH).expect("a policy");
        for name in ["one.test", "www.example.com"] {
            assert_eq!(unopened.refuses(name), Some(Reason::NameBlocked));
            let name = DomainName::parse(name).expect("a name");
            let verdict = unopened.judge_name(&name, Timestamp::UNIX_EPOCH);
            assert!(matches!(verdict, NameVerdict::Refuse(_)), "{verdict:?}");
        }
    }
}
