//! What ops configured, over what the governance document says.

use super::condition::{Action, Condition, Severity};
use super::signature::Secret;
use crate::outbound::{Client, Url};
use jiff::SignedDuration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// One rule: at most one per condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// About what.
    pub condition: Condition,
    /// How bad.
    pub severity: Severity,
    /// What is done, each once.
    pub actions: Vec<Action>,
    /// How many of what the condition counts are still no alert, in a window.
    pub more_than: u64,
    /// The window.
    pub within: Duration,
    /// How long the same thing about the same sandbox is not told again.
    pub quiet: Duration,
}

/// The rules in force, in the order of their conditions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules(pub Vec<Rule>);

impl Rule {
    /// What the governance document says about a condition (its section 8.2);
    /// bounds that it leaves open are chosen so that ordinary work stays below.
    fn default_for(condition: Condition) -> Self {
        use Action::{Block, Log, Notify, Terminate};
        let (severity, actions, more_than) = match condition {
            Condition::BlockedDestination => (Severity::Warning, vec![Log, Notify], 0),
            Condition::RepeatedDenials => (Severity::High, vec![Log, Notify], 10),
            Condition::LimitExceeded => (Severity::Info, vec![Log], 0),
            Condition::UnusualTraffic => (Severity::Medium, vec![Log, Notify], 200),
            Condition::Exfiltration => {
                (Severity::Critical, vec![Log, Notify, Block, Terminate], 20)
            }
            Condition::EnforcementDisturbed => (Severity::High, vec![Log, Notify], 0),
        };
        Self {
            condition,
            severity,
            actions,
            more_than,
            within: Duration::from_secs(60),
            quiet: Duration::from_secs(300),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self(
            Condition::ALL
                .iter()
                .map(|it| Rule::default_for(*it))
                .collect(),
        )
    }
}

impl Rules {
    /// The rule about a condition, unless it is switched off.
    pub fn about(&self, condition: Condition) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.condition == condition)
    }
}

/// `[alerts]` as it stands in the file.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsWire {
    rules: BTreeMap<Condition, RuleWire>,
    webhook: Option<WebhookWire>,
    command: Option<Vec<String>>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct RuleWire {
    enabled: Option<bool>,
    severity: Option<Severity>,
    actions: Option<Vec<Action>>,
    more_than: Option<u64>,
    within: Option<String>,
    quiet: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct WebhookWire {
    url: String,
    secret_file: PathBuf,
    ca_file: Option<PathBuf>,
}

/// Alerts as they are to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AlertsConfig {
    /// When.
    pub rules: Rules,
    /// To whom, by webhook.
    pub webhook: Option<WebhookConfig>,
    /// To whom, by command: program and arguments.
    pub command: Option<Vec<String>>,
}

/// A webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookConfig {
    /// Where to.
    pub url: Url,
    /// The file that holds the secret; read when the agent starts.
    pub secret: Secret,
    /// Who is trusted to vouch for the receiver; the system's if absent.
    pub client: Client,
}

impl AlertsWire {
    /// What it means, or the key and what is wrong with it. Reads the files that
    /// are named.
    pub fn read(self) -> Result<AlertsConfig, (&'static str, String)> {
        let mut rules = Rules::default();
        for (condition, wire) in self.rules {
            if wire.enabled == Some(false) {
                rules.0.retain(|rule| rule.condition != condition);
                continue;
            }
            if let Some(rule) = rules.0.iter_mut().find(|rule| rule.condition == condition) {
                wire.apply(rule).map_err(|problem| {
                    ("alerts.rules", format!("{}: {problem}", condition.name()))
                })?;
            }
        }
        let webhook = self.webhook.map(WebhookWire::read).transpose()?;
        if let Some(command) = &self.command
            && !command
                .first()
                .is_some_and(|program| program.starts_with('/'))
        {
            return Err((
                "alerts.command",
                "the first word must be the absolute path of a program".to_owned(),
            ));
        }
        Ok(AlertsConfig {
            rules,
            webhook,
            command: self.command,
        })
    }
}

impl RuleWire {
    fn apply(self, rule: &mut Rule) -> Result<(), String> {
        if let Some(severity) = self.severity {
            rule.severity = severity;
        }
        if let Some(mut actions) = self.actions {
            if actions.is_empty() {
                return Err(
                    "`actions` is empty; to switch the rule off write `enabled = false`".to_owned(),
                );
            }
            actions.sort();
            actions.dedup();
            rule.actions = actions;
        }
        if let Some(more_than) = self.more_than {
            rule.more_than = more_than;
        }
        if let Some(within) = self.within {
            rule.within = duration("within", &within, 1, 3_600)?;
        }
        if let Some(quiet) = self.quiet {
            rule.quiet = duration("quiet", &quiet, 1, 86_400)?;
        }
        Ok(())
    }
}

/// A duration such as `60s`, within bounds in seconds.
fn duration(key: &str, text: &str, least: u64, most: u64) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| (least..=most).contains(&duration.as_secs()))
        .ok_or_else(|| {
            format!("`{key} = \"{text}\"` is no duration from {least} s to {most} s; write `60s`, `5m` or `1h`")
        })
}

impl WebhookWire {
    fn read(self) -> Result<WebhookConfig, (&'static str, String)> {
        let url =
            Url::parse(&self.url).map_err(|error| ("alerts.webhook.url", error.to_string()))?;
        let secret = Secret::read(&self.secret_file)
            .map_err(|error| ("alerts.webhook.secret_file", error.to_string()))?;
        let client = Client::new(self.ca_file.as_deref())
            .map_err(|error| ("alerts.webhook.ca_file", error.to_string()))?;
        Ok(WebhookConfig {
            url,
            secret,
            client,
        })
    }
}
