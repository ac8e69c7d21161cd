//! All policies of a host, and which one a sandbox is under.

use super::Policy;
use super::diagnostic::Diagnostic;
use super::glob::Glob;
use super::load;
use crate::model::SandboxName;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// Policies with distinct names and matchers that never tie.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    by_name: BTreeMap<String, Arc<Policy>>,
}

/// Why no policy can be chosen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectError {
    /// The named policy is not there.
    #[error("there is no policy `{name}`; the policies are: {known}")]
    UnknownPolicy {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No policy is for this sandbox.
    #[error(
        "no policy applies to the sandbox `{sandbox}`; name one with `--policy`, or add `applies_to: [{{ sandbox: \"{sandbox}\" }}]` to a policy"
    )]
    NoPolicy {
        /// The sandbox.
        sandbox: String,
    },
}

impl PolicySet {
    /// Reads files and directories: see [`load::set`].
    pub fn load(
        paths: &[PathBuf],
        now: Timestamp,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        load::set(paths, now)
    }

    /// Joins policies. Two of one name and two that could apply to one sandbox
    /// with the same right are errors.
    pub fn new(policies: Vec<Policy>) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = ties(&policies);
        let mut by_name: BTreeMap<String, Arc<Policy>> = BTreeMap::new();
        for policy in policies {
            if let Some(first) = by_name.get(&policy.name) {
                let message = format!(
                    "the policy name `{}` is taken by `{}`",
                    policy.name,
                    first.file.display()
                );
                problems.push(
                    Diagnostic::about_file("duplicate-policy", policy.file.as_path(), message)
                        .help("give one of them another `name`"),
                );
                continue;
            }
            by_name.insert(policy.name.clone(), Arc::new(policy));
        }
        if problems.is_empty() {
            Ok(Self { by_name })
        } else {
            Err(problems)
        }
    }

    /// The policies in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_name.values()
    }

    /// The policy of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Policy>> {
        self.by_name.get(name)
    }

    /// The policy for a sandbox: the one that a person named, else the one whose
    /// `applies_to` has the exact name, else the one with the longest pattern.
    pub fn select(
        &self,
        sandbox: &SandboxName,
        explicit: Option<&str>,
    ) -> Result<Arc<Policy>, SelectError> {
        if let Some(name) = explicit {
            return self
                .get(name)
                .cloned()
                .ok_or_else(|| SelectError::UnknownPolicy {
                    name: name.to_owned(),
                    known: self.names(),
                });
        }
        self.iter()
            .flat_map(|policy| policy.applies_to.iter().map(move |glob| (glob, policy)))
            .filter(|(glob, _)| glob.matches(sandbox.as_str()))
            .max_by_key(|(glob, _)| rank(glob))
            .map(|(_, policy)| Arc::clone(policy))
            .ok_or_else(|| SelectError::NoPolicy {
                sandbox: sandbox.to_string(),
            })
    }

    /// The policy for a cgroup that somebody else made directly below the governed
    /// root: the exact name before patterns, then the longest.
    pub fn select_cgroup(&self, directory: &str) -> Option<Arc<Policy>> {
        self.iter()
            .flat_map(|policy| policy.adopts.iter().map(move |one| (one, policy)))
            .filter(|(one, _)| one.matches(directory))
            .max_by_key(|(one, _)| rank(&one.glob))
            .map(|(_, policy)| Arc::clone(policy))
    }

    /// The policy whose pattern fits an interface best.
    pub fn for_interface(&self, name: &str) -> Option<&Arc<Policy>> {
        self.iter()
            .flat_map(|policy| policy.interfaces.iter().map(move |glob| (glob, policy)))
            .filter(|(glob, _)| glob.matches(name))
            .max_by_key(|(glob, _)| rank(glob))
            .map(|(_, policy)| policy)
    }

    fn names(&self) -> String {
        if self.by_name.is_empty() {
            return "none".to_owned();
        }
        self.by_name
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Which matcher wins: exact before pattern, then the longer.
fn rank(glob: &Glob) -> (bool, usize) {
    (glob.is_exact(), glob.weight())
}

/// Pairs of policies that could apply to one sandbox with the same right.
fn ties(policies: &[Policy]) -> Vec<Diagnostic> {
    let sandboxes = ties_among(policies, "sandbox", |policy| {
        policy.applies_to.iter().collect()
    });
    // Which kind of cgroup a name is does not matter here: it can be several.
    let cgroups = ties_among(policies, "cgroup", |policy| {
        policy.adopts.iter().map(|one| &one.glob).collect()
    });
    let interfaces = ties_among(policies, "interface", |policy| {
        policy.interfaces.iter().collect()
    });
    [sandboxes, cgroups, interfaces].concat()
}

fn ties_among(
    policies: &[Policy],
    what: &str,
    globs: impl Fn(&Policy) -> Vec<&Glob>,
) -> Vec<Diagnostic> {
    // Only matchers of one rank can tie.
    type Rival<'p> = (&'p Glob, &'p Policy);
    let mut ranks: HashMap<(bool, usize), Vec<Rival<'_>>> = HashMap::new();
    let mut problems = Vec::new();
    for policy in policies {
        for glob in globs(policy) {
            let rivals = ranks.entry(rank(glob)).or_default();
            let rival = rivals
                .iter()
                .find(|(other, owner)| owner.file != policy.file && other.meets(glob));
            if let Some((other, owner)) = rival {
                let message = format!(
                    "`{what}: {glob}` and `{what}: {other}` of `{}` are equally specific and can match one {what}",
                    owner.file.display()
                );
                problems.push(
                    Diagnostic::about_file("ambiguous-match", policy.file.as_path(), message)
                        .help("make one of the patterns longer, or write the exact name"),
                );
            }
            rivals.push((glob, policy));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{PolicySet, SelectError};
    use crate::model::SandboxName;
    use crate::policy::{Diagnostic, Policy};
    use jiff::Timestamp;

    fn policy(file: &str, sandboxes: &[&str]) -> Policy {
        let mut text = "apiVersion: egress/v1\n".to_owned();
        if !sandboxes.is_empty() {
            text += "applies_to:\n";
        }
        for sandbox in sandboxes {
            text += &format!("  - sandbox: \"{sandbox}\"\n");
        }
        let parsed = Policy::parse(file, &text, Timestamp::UNIX_EPOCH);
        parsed.expect("a policy").0
    }

    fn set(policies: &[(&str, &[&str])]) -> Result<PolicySet, Vec<Diagnostic>> {
        PolicySet::new(
            policies
                .iter()
                .map(|(file, sandboxes)| policy(file, sandboxes))
                .collect(),
        )
    }

    fn chosen(
        set: &PolicySet,
        sandbox: &str,
        explicit: Option<&str>,
    ) -> Result<String, SelectError> {
        let sandbox = SandboxName::parse(sandbox).expect("a sandbox name");
        set.select(&sandbox, explicit)
            .map(|policy| policy.name.clone())
    }

    #[test]
    fn the_named_then_the_exact_then_the_longest_pattern_wins() {
        let set = set(&[
            ("any.yaml", &["*"]),
            ("ci.yaml", &["ci-*"]),
            ("long.yaml", &["ci-build-*"]),
            ("exact.yaml", &["ci-build-1"]),
            ("none.yaml", &[]),
        ])
        .expect("no tie");
        for (sandbox, explicit, policy) in [
            ("ci-build-1", Some("none"), "none"),
            ("ci-build-1", None, "exact"),
            ("ci-build-2", None, "long"),
            ("ci-x", None, "ci"),
            ("other", None, "any"),
        ] {
            assert_eq!(
                chosen(&set, sandbox, explicit).as_deref(),
                Ok(policy),
                "{sandbox}"
            );
        }
    }

    #[test]
    fn no_policy_and_an_unknown_policy_are_told_apart() {
        let set = set(&[("ci.yaml", &["ci-*"])]).expect("no tie");
        let error = chosen(&set, "other", None)
            .expect_err("nothing applies")
            .to_string();
        assert!(
            error.contains("no policy applies to the sandbox `other`"),
            "{error}"
        );
        let error = chosen(&set, "ci-1", Some("cd"))
            .expect_err("no such policy")
            .to_string();
        assert_eq!(error, "there is no policy `cd`; the policies are: ci");
        let error = chosen(&PolicySet::default(), "ci-1", Some("cd")).expect_err("no policy");
        assert!(error.to_string().ends_with("the policies are: none"));
    }

    #[test]
    fn a_tie_and_a_name_twice_are_errors() {
        for (policies, code) in [
            (
                [("a.yaml", &["ci-*"][..]), ("b.yaml", &["*-ci"][..])],
                "ambiguous-match",
            ),
            (
                [("a.yaml", &["x"][..]), ("b.yaml", &["x"][..])],
                "ambiguous-match",
            ),
            (
                [("d1/a.yaml", &[][..]), ("d2/a.yaml", &[][..])],
                "duplicate-policy",
            ),
        ] {
            let problems = set(&policies).expect_err("it is refused");
            assert_eq!(
                problems.iter().map(|found| found.code).collect::<Vec<_>>(),
                [code]
            );
        }
        // Equally long, but nothing matches both.
        assert!(set(&[("a.yaml", &["ci-*"]), ("b.yaml", &["cd-*"])]).is_ok());
    }
}
