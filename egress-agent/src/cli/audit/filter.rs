//! Which records: what `query` and `export` both understand.

use crate::audit::{DestinationFilter, ProcessFilter, Query, RuleFilter, parse_time};
use crate::cli::exit::Problem;
use crate::model::RecordKind;
use clap::Args;
use egress_common::{Outcome, Reason};
use jiff::Timestamp;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Filter {
    /// The audit file; only root may read it.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/egress/audit.db")]
    pub file: PathBuf,
    /// Not before: `15m`, `1 hour ago`, a date, or RFC 3339.
    #[arg(long, visible_alias = "from", value_name = "TIME")]
    since: Option<String>,
    /// Before this time, in the same forms.
    #[arg(long, visible_alias = "to", value_name = "TIME")]
    until: Option<String>,
    /// The sandbox's name; `*` stands for any characters.
    #[arg(long, value_name = "NAME")]
    sandbox: Option<String>,
    /// The policy's name; `*` stands for any characters.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// The task that the sandbox was started for; `*` stands for any characters.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// The project that it was started for; `*` stands for any characters.
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// How it ended: allow, deny or would_deny.
    #[arg(long, value_parser = outcome)]
    verdict: Option<Outcome>,
    /// What it is about: flow, dns, sandbox, policy, agent, loss, limit, alert,
    /// approval, emergency or evidence.
    #[arg(long, value_parser = kind)]
    kind: Option<RecordKind>,
    /// Where to: an address, a network, a name or a name pattern.
    #[arg(long, value_name = "ADDRESS|NAME")]
    destination: Option<DestinationFilter>,
    /// The domain name as recorded; `*` stands for any characters.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// By which rule: `ci.yaml:7`, `ci.yaml`, or its words.
    #[arg(long, value_name = "FILE[:LINE]|TEXT")]
    rule: Option<RuleFilter>,
    /// Why it was refused, such as no_rule.
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// By which process: an id, or a command with `*` for any characters.
    #[arg(long, value_name = "ID|COMMAND")]
    process: Option<ProcessFilter>,
}

impl Filter {
    /// The question, without a limit.
    pub fn query(self, now: Timestamp) -> Result<(PathBuf, Query), Problem> {
        let time = |text: Option<String>| {
            text.map(|text| parse_time(&text, now))
                .transpose()
                .map_err(Problem::usage)
        };
        let query = Query {
            since: time(self.since)?,
            until: time(self.until)?,
            sandbox: self.sandbox,
            policy: self.policy,
            task: self.task,
            project: self.project,
            verdict: self.verdict,
            kind: self.kind,
            destination: self.destination,
            name: self.name,
            rule: self.rule,
            reason: self.reason,
            process: self.process,
            ..Query::default()
        };
        Ok((self.file, query))
    }
}

/// Finds a value by its stable name, or lists the names.
pub fn by_name<T: Copy>(
    text: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    all.iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
            format!("write one of: {}", names.join(", "))
        })
}

fn outcome(text: &str) -> Result<Outcome, String> {
    by_name(text, Outcome::ALL, Outcome::name)
}

fn kind(text: &str) -> Result<RecordKind, String> {
    by_name(text, &RecordKind::ALL, RecordKind::name)
}

fn reason(text: &str) -> Result<Reason, String> {
    by_name(text, Reason::ALL, Reason::name)
}
