//! `[audit]` in the agent's configuration.

use super::sinks::SinkWire;
use crate::audit::{AuditError, CheckpointRule, Class, Hider, Options, Retention};
use crate::export::checkpoints::Sink;
use jiff::SignedDuration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What stands in the file; every key is optional.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EvidenceWire {
    node: Option<String>,
    retention: BTreeMap<String, String>,
    hide_with_key: Option<PathBuf>,
    checkpoint_records: Option<u64>,
    checkpoint_seconds: Option<u64>,
    postgres: Option<PostgresWire>,
    checkpoint_sinks: Vec<SinkWire>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct PostgresWire {
    url: Option<String>,
    url_file: Option<PathBuf>,
}

/// How the evidence is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EvidenceConfig {
    /// The node's name, if it is not that of the host.
    pub node: Option<String>,
    /// How long records are kept.
    pub retention: Retention,
    /// The key that names and addresses are hashed with, if they are hidden.
    pub hide_with_key: Option<PathBuf>,
    /// When the node signs.
    pub checkpoints: CheckpointRule,
    /// The PostgreSQL server that records are shipped to.
    pub postgres: Option<String>,
    /// Where checkpoints are sent.
    pub sinks: Vec<Sink>,
}

impl EvidenceWire {
    /// The meaning, or the key and what is wrong with it.
    pub fn check(self) -> Result<EvidenceConfig, String> {
        let mut config = EvidenceConfig::default();
        if let Some(node) = self.node {
            let fits = (1..=64).contains(&node.len())
                && node
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            if !fits {
                return Err(format!(
                    "node: `{node}` is no name; use 1 to 64 letters, digits, `.`, `-` and `_`"
                ));
            }
            config.node = Some(node);
        }
        for (name, text) in &self.retention {
            let class = Class::ALL
                .into_iter()
                .find(|class| class.name() == name && *class != Class::Evidence)
                .ok_or_else(|| {
                    format!(
                        "retention: `{name}` is none of allowed, denied, rate_limit, alert, operation"
                    )
                })?;
            config.retention.set(class, keep(text)?);
        }
        if self.checkpoint_records == Some(0) || self.checkpoint_seconds == Some(0) {
            return Err("checkpoint_records and checkpoint_seconds are at least 1".to_owned());
        }
        let default = CheckpointRule::default();
        config.checkpoints = CheckpointRule {
            records: self.checkpoint_records.unwrap_or(default.records),
            interval: self
                .checkpoint_seconds
                .map_or(default.interval, Duration::from_secs),
        };
        config.hide_with_key = self.hide_with_key;
        config.sinks = self
            .checkpoint_sinks
            .into_iter()
            .map(SinkWire::read)
            .collect::<Result<_, _>>()
            .map_err(|problem| format!("checkpoint_sinks: {problem}"))?;
        config.postgres = self.postgres.map(PostgresWire::url).transpose()?;
        Ok(config)
    }
}

impl PostgresWire {
    fn url(self) -> Result<String, String> {
        match (self.url, self.url_file) {
            (Some(url), None) => Ok(url),
            // A file keeps the password out of the configuration.
            (None, Some(path)) => std::fs::read_to_string(&path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| {
                    format!("postgres.url_file: cannot read {}: {error}", path.display())
                }),
            (Some(_), Some(_)) | (None, None) => {
                Err("postgres: write either url or url_file".to_owned())
            }
        }
    }
}

/// `30d`, `2y` (365 days each), `forever`.
fn keep(text: &str) -> Result<Option<SignedDuration>, String> {
    if text == "forever" {
        return Ok(None);
    }
    let days = |suffix, each: i64| {
        let number: i64 = text.strip_suffix(suffix)?.parse().ok()?;
        (1..=36_500 / each)
            .contains(&number)
            .then_some(number * each)
    };
    days('d', 1)
        .or_else(|| days('y', 365))
        .map(|days| Some(SignedDuration::from_hours(days * 24)))
        .ok_or_else(|| format!("retention: `{text}` is no time; write 30d, 2y or forever"))
}

impl EvidenceConfig {
    /// The options of the store.
    pub fn options(&self) -> Result<Options, AuditError> {
        let mut options = Options {
            hider: self.hide_with_key.as_deref().map(Hider::read).transpose()?,
            checkpoints: self.checkpoints,
            retention: self.retention.clone(),
            postgres: self.postgres.clone(),
            ..Options::default()
        };
        if let Some(node) = &self.node {
            options.node.clone_from(node);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EvidenceConfig, String> {
        let wire: EvidenceWire = toml::from_str(text).map_err(|error| error.to_string())?;
        wire.check()
    }

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(parse(""), Ok(EvidenceConfig::default()));
    }

    #[test]
    fn each_class_is_kept_as_long_as_it_says() {
        let config = parse("[retention]\nallowed = \"7d\"\nalert = \"forever\"").expect("a config");
        let mut expected = Retention::default();
        expected.set(Class::Allowed, Some(SignedDuration::from_hours(7 * 24)));
        expected.set(Class::Alert, None);
        assert_eq!(config.retention, expected);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        for (text, named) in [
            ("node = \"a b\"", "node"),
            ("[retention]\nflows = \"1d\"", "flows"),
            ("[retention]\nallowed = \"0d\"", "0d"),
            ("[retention]\nevidence = \"1d\"", "evidence"),
            ("checkpoint_seconds = 0", "checkpoint_seconds"),
            ("[postgres]\n", "url_file"),
            ("nodes = 1", "nodes"),
            ("[[checkpoint_sinks]]\nkind = \"smoke\"", "smoke"),
            (
                "[[checkpoint_sinks]]\nkind = \"file\"\npath = \"here\"",
                "here",
            ),
            (
                "[[checkpoint_sinks]]\nkind = \"http\"\nurl = \"http://example.com/\"",
                "unencrypted",
            ),
            (
                "[[checkpoint_sinks]]\nkind = \"syslog\"\nhost = \"a\"\ntransport = \"udp\"\nfacility = 24",
                "facility",
            ),
            (
                "[[checkpoint_sinks]]\nkind = \"file\"\npath = \"/a\"\nport = 1",
                "port",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
