//! On whose behalf a sandbox runs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Characters of a value at most.
const LONGEST_VALUE: usize = 256;
/// Labels of a sandbox at most.
const MOST_LABELS: usize = 32;

/// What whoever started a sandbox said about it: it stands in every record of the
/// sandbox, and nothing is decided by it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attribution {
    /// The task, such as a ticket or a job.
    pub task: Option<String>,
    /// The session that the task is part of.
    pub session: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The person or account; no user id of this host.
    pub on_behalf_of: Option<String>,
    /// Anything else, by key.
    pub labels: BTreeMap<String, String>,
}

/// Why an attribution is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttributionError {
    /// A value that no record should hold.
    #[error("the {0} must have 1 to {LONGEST_VALUE} characters, none of them a control character")]
    Value(String),
    /// A key that needs quoting somewhere.
    #[error("`{0}` is no label key: use 1 to 64 of a-z, A-Z, 0-9, `-`, `_`, `.` and `/`")]
    Key(String),
    /// Too many of them.
    #[error("a sandbox has at most {MOST_LABELS} labels, not {0}")]
    TooMany(usize),
}

impl Attribution {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what would be unreadable in a record, or more than one should hold.
    pub fn check(&self) -> Result<(), AttributionError> {
        let named = [
            ("task", &self.task),
            ("session", &self.session),
            ("project", &self.project),
            ("user", &self.on_behalf_of),
        ];
        for (what, value) in named {
            if value.as_deref().is_some_and(|value| !is_value(value)) {
                return Err(AttributionError::Value(what.to_owned()));
            }
        }
        if self.labels.len() > MOST_LABELS {
            return Err(AttributionError::TooMany(self.labels.len()));
        }
        for (key, value) in &self.labels {
            let fits = (1..=64).contains(&key.len())
                && key
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
            if !fits {
                return Err(AttributionError::Key(key.escape_default().to_string()));
            }
            if !is_value(value) {
                return Err(AttributionError::Value(format!("label `{key}`")));
            }
        }
        Ok(())
    }
}

fn is_value(text: &str) -> bool {
    (1..=LONGEST_VALUE).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::{Attribution, AttributionError};

    fn labelled(key: &str, value: &str) -> Attribution {
        Attribution {
            labels: [(key.to_owned(), value.to_owned())].into(),
            ..Attribution::default()
        }
    }

    #[test]
    fn what_cannot_be_read_in_a_record_is_refused() {
        assert_eq!(labelled("team/a.b-c_d", "blue whale").check(), Ok(()));
        for (key, value) in [("", "x"), ("a b", "x"), ("a", ""), ("a", "x\ny")] {
            assert!(labelled(key, value).check().is_err(), "{key:?}={value:?}");
        }
        let task = Attribution {
            task: Some("a\u{1b}[2J".to_owned()),
            ..Attribution::default()
        };
        assert_eq!(
            task.check(),
            Err(AttributionError::Value("task".to_owned()))
        );
    }

    #[test]
    fn there_are_only_so_many_labels() {
        let labels = (0..33).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        let many = Attribution {
            labels,
            ..Attribution::default()
        };
        assert_eq!(many.check(), Err(AttributionError::TooMany(33)));
    }
}
