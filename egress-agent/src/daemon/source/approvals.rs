//! Which approvals a load of policies brings into force, for whoever asks later
//! who opened what, and on whose word.

use super::content::Content;
use crate::model::RuleOrigin;
use crate::policy::{Policy, PolicySet};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// A rule that says who approved it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approval {
    /// The policy that it is in.
    pub policy: String,
    /// Where it stands.
    pub rule: RuleOrigin,
    /// Who approved it, in the words of the policy.
    pub by: Arc<str>,
    /// Why, in the words of the policy.
    pub why: Option<Arc<str>>,
    /// Until when.
    pub until: Option<Timestamp>,
}

/// What makes it the same approval, wherever it stands in the file.
type Essence = (
    String,
    Arc<str>,
    Arc<str>,
    Option<Arc<str>>,
    Option<Timestamp>,
);

impl Approval {
    fn all_of(policy: &Policy) -> impl Iterator<Item = Self> {
        policy.rules.iter().filter_map(|rule| {
            Some(Self {
                policy: policy.name.clone(),
                rule: rule.origin.clone(),
                by: rule.approved_by.clone()?,
                why: rule.justification.clone(),
                until: rule.expires,
            })
        })
    }

    fn essence(&self) -> Essence {
        (
            self.policy.clone(),
            Arc::clone(&self.rule.text),
            Arc::clone(&self.by),
            self.why.clone(),
            self.until,
        )
    }

    /// For the record.
    pub fn in_words(&self) -> String {
        let until = self
            .until
            .map_or_else(|| "without end".to_owned(), |end| format!("until {end}"));
        match &self.why {
            Some(why) => format!("approved by {}, {until}: {why}", self.by),
            None => format!("approved by {}, {until}", self.by),
        }
    }
}

/// The approvals of policies that come into force which were not in force before.
pub(super) fn new(before: Option<&Content>, after: &PolicySet, now: Timestamp) -> Vec<Approval> {
    let mut known: BTreeSet<Essence> = BTreeSet::new();
    for (path, text) in before.map(Content::files).into_iter().flatten() {
        // What was in force was understood once. If it is not any more, its
        // approvals are told once again, which hides nothing.
        if let Ok((policy, _)) = Policy::parse(Path::new(&path), &text, now) {
            known.extend(Approval::all_of(&policy).map(|approval| approval.essence()));
        }
    }
    after
        .iter()
        .flat_map(|policy| Approval::all_of(policy))
        .filter(|approval| !known.contains(&approval.essence()))
        .collect()
}
