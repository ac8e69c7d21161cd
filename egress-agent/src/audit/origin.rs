//! Which rules and which processes a query means.

use crate::audit::columns::{COMMAND, PROCESS, RULE_FILE, RULE_LINE, RULE_TEXT};
use crate::audit::query::matching;
use sqlx::{QueryBuilder, Sqlite};
use std::str::FromStr;

/// A rule by where it stands (`ci.yaml:7`, `ci.yaml`, or with the whole path), or
/// by its words (`domain *.example.com`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleFilter {
    /// In a file, and on a line of it where one is given.
    Place {
        /// The path, or its last parts.
        file: String,
        /// The line, from 1.
        line: Option<u32>,
    },
    /// By its words; `*` stands for any characters.
    Text(String),
}

/// Why text is no rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "an empty text is no rule; write where it stands (`ci.yaml:7` or `ci.yaml`) or its words (`domain *.example.com`)"
)]
pub struct RuleFilterError;

impl FromStr for RuleFilter {
    type Err = RuleFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RuleFilterError);
        }
        if let Some((file, line)) = text.rsplit_once(':')
            && let Ok(line) = line.parse()
            && !file.contains(' ')
        {
            let file = file.to_owned();
            return Ok(Self::Place {
                file,
                line: Some(line),
            });
        }
        let is_file = [".yaml", ".yml"].iter().any(|end| text.ends_with(end));
        if is_file && !text.contains(' ') {
            return Ok(Self::Place {
                file: text.to_owned(),
                line: None,
            });
        }
        Ok(Self::Text(text.to_owned()))
    }
}

impl RuleFilter {
    /// Adds the condition to a statement.
    pub(super) fn condition(&self, statement: &mut QueryBuilder<Sqlite>) {
        match self {
            Self::Place { file, line } => {
                statement
                    .push("(")
                    .push(RULE_FILE)
                    .push(" = ")
                    .push_bind(file.clone());
                if !file.starts_with('/') {
                    statement.push(" OR ");
                    matching(statement, RULE_FILE, &format!("*/{file}"));
                }
                statement.push(")");
                if let Some(line) = line {
                    statement
                        .push(" AND ")
                        .push(RULE_LINE)
                        .push(" = ")
                        .push_bind(i64::from(*line));
                }
            }
            Self::Text(text) => matching(statement, RULE_TEXT, text),
        }
    }
}

/// A process by its id, or by its command name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcessFilter {
    /// By process id, as the host sees it.
    Id(u32),
    /// By command name; `*` stands for any characters.
    Command(String),
}

/// Why text is no process.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an empty text is no process; write its id (`4242`) or its command (`curl`, `python*`)")]
pub struct ProcessFilterError;

impl FromStr for ProcessFilter {
    type Err = ProcessFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if text.is_empty() => Err(ProcessFilterError),
            Err(_) => Ok(Self::Command(text.to_owned())),
        }
    }
}

impl ProcessFilter {
    /// Adds the condition to a statement.
    pub(super) fn condition(&self, statement: &mut QueryBuilder<Sqlite>) {
        match self {
            Self::Id(id) => {
                statement
                    .push(PROCESS)
                    .push(" = ")
                    .push_bind(i64::from(*id));
            }
            Self::Command(command) => matching(statement, COMMAND, command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_place_or_words() {
        let place = |file: &str, line| {
            Ok(RuleFilter::Place {
                file: file.to_owned(),
                line,
            })
        };
        assert_eq!("ci.yaml:7".parse(), place("ci.yaml", Some(7)));
        assert_eq!("/etc/ci.yml".parse(), place("/etc/ci.yml", None));
        for words in [
            "domain api.example.com",
            "cidr 2001:db8::/32",
            "*.example.com",
        ] {
            assert_eq!(words.parse(), Ok(RuleFilter::Text(words.to_owned())));
        }
        assert_eq!(" ".parse::<RuleFilter>(), Err(RuleFilterError));
    }

    #[test]
    fn a_process_is_a_number_or_a_command() {
        assert_eq!("4242".parse(), Ok(ProcessFilter::Id(4242)));
        assert_eq!(
            "curl".parse(),
            Ok(ProcessFilter::Command("curl".to_owned()))
        );
        assert_eq!("".parse::<ProcessFilter>(), Err(ProcessFilterError));
    }
}
