//! `egressctl audit`: reads the store's file, with or without an agent.

use super::evidence;
use super::exit::{Exit, Problem};
use super::output::{Output, print};
use crate::audit::{
    AuditError, DestinationFilter, Order, Query, Reader, parse_time, render_json,
    render_json_lines, render_table,
};
use crate::model::RecordKind;
use clap::{Args, Subcommand};
use egress_common::{Outcome, Reason};
use jiff::Timestamp;
use std::io::ErrorKind;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Show decisions, the latest first.
    Query(QueryArguments),
    /// Verify that no record was altered, removed, reordered or inserted.
    Verify(evidence::VerifyArguments),
    /// Print a proof of a record, or of how checkpoints continue each other.
    Prove(evidence::ProveArguments),
    /// Print the public keys of the node.
    Key(evidence::KeyArguments),
    /// Have the node sign with a new key.
    RotateKey(evidence::KeyArguments),
}

#[derive(Args, Debug)]
pub struct QueryArguments {
    /// The audit file; only root may read it.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/egress/audit.db")]
    file: PathBuf,
    /// Not before: `15m`, `1 hour ago`, a date, or RFC 3339.
    #[arg(long, visible_alias = "from", value_name = "TIME")]
    since: Option<String>,
    /// Before this time, in the same forms.
    #[arg(long, visible_alias = "to", value_name = "TIME")]
    until: Option<String>,
    /// The sandbox's name; `*` stands for any characters.
    #[arg(long, value_name = "NAME")]
    sandbox: Option<String>,
    /// How it ended: allow, deny or would_deny.
    #[arg(long, value_parser = outcome)]
    verdict: Option<Outcome>,
    /// What it is about: flow, dns, sandbox, policy, agent or loss.
    #[arg(long, value_parser = kind)]
    kind: Option<RecordKind>,
    /// Where to: an address, a network, a name or a name pattern.
    #[arg(long, value_name = "ADDRESS|NAME")]
    destination: Option<DestinationFilter>,
    /// Why it was refused, such as no_rule.
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// The earliest first.
    #[arg(long)]
    oldest_first: bool,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Finds a value by its stable name, or lists the names.
fn by_name<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
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

pub fn run(command: AuditCommand) -> Result<Exit, Problem> {
    match command {
        AuditCommand::Query(arguments) => query(arguments),
        AuditCommand::Verify(arguments) => evidence::verify(arguments),
        AuditCommand::Prove(arguments) => evidence::prove(arguments),
        AuditCommand::Key(arguments) => evidence::key(&arguments),
        AuditCommand::RotateKey(arguments) => evidence::rotate_key(&arguments),
    }
}

fn query(arguments: QueryArguments) -> Result<Exit, Problem> {
    let now = Timestamp::now();
    let time = |text: Option<String>| {
        text.map(|text| parse_time(&text, now))
            .transpose()
            .map_err(Problem::usage)
    };
    let query = Query {
        since: time(arguments.since)?,
        until: time(arguments.until)?,
        sandbox: arguments.sandbox,
        verdict: arguments.verdict,
        kind: arguments.kind,
        destination: arguments.destination,
        reason: arguments.reason,
        limit: Some(arguments.limit),
        order: if arguments.oldest_first {
            Order::OldestFirst
        } else {
            Order::NewestFirst
        },
        ..Query::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Problem::failure)?;
    let records = runtime.block_on(async {
        let reader = Reader::open(&arguments.file).await?;
        let records = reader.query(&query).await;
        reader.close().await;
        records
    });
    let records = records.map_err(cannot_be_read)?;
    let text = match arguments.output {
        Output::Table if records.is_empty() => "no record matches\n".to_owned(),
        Output::Table => format!("{}\n", render_table(&records).trim_end()),
        Output::Json => render_json(&records)
            .map(|text| text + "\n")
            .map_err(Problem::failure)?,
        Output::Jsonl => render_json_lines(&records).map_err(Problem::failure)?,
    };
    print(&text)?;
    Ok(Exit::Ok)
}

/// The store's own words for a file that is closed to it are meant for the agent.
pub(super) fn cannot_be_read(error: AuditError) -> Problem {
    match &error {
        AuditError::Io { path, source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            Problem::new(
                Exit::NotPermitted,
                format!("only root may read {}; use sudo", path.display()),
            )
        }
        _ => Problem::failure(error),
    }
}
