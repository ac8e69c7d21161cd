//! `egressctl report`.

use super::audit::{block_on, cannot_be_read, open};
use super::exit::{Exit, Problem};
use super::output::print;
use crate::audit::{KeyFiles, inert, parse_time, read_public};
use crate::report::{Collection, render_html};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use std::path::PathBuf;

/// The arguments of `egressctl report`.
#[derive(Args, Debug)]
pub struct ReportArguments {
    /// The audit file; only root may read it.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/egress/audit.db")]
    file: PathBuf,
    /// From this time on: `30d`, `1 hour ago`, a date, or RFC 3339.
    #[arg(
        long,
        visible_alias = "from",
        value_name = "TIME",
        default_value = "30d"
    )]
    since: String,
    /// Up to this time, in the same forms; it is not included.
    #[arg(long, visible_alias = "to", value_name = "TIME", default_value = "now")]
    until: String,
    /// Public keys that are trusted, one a line, as `audit key` prints them;
    /// otherwise those that lie beside the audit file.
    #[arg(long, value_name = "PATH")]
    public_key: Option<PathBuf>,
    /// One JSON document, or one HTML page that needs nothing else.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug, Default)]
enum Form {
    #[default]
    Html,
    Json,
}

/// Verifies the whole chain and tells what it says of the period. Where it was
/// altered the report says so, and so does the exit code.
pub fn run(arguments: ReportArguments) -> Result<Exit, Problem> {
    let now = Timestamp::now();
    let since = parse_time(&arguments.since, now).map_err(Problem::usage)?;
    let until = parse_time(&arguments.until, now).map_err(Problem::usage)?;
    if since >= until {
        return Err(Problem::usage(format!(
            "the period from {since} to {until} has no time in it"
        )));
    }
    let keys_given = arguments.public_key.is_some();
    let keys = match &arguments.public_key {
        Some(path) => read_public(path).map_err(Problem::failure)?,
        None => KeyFiles::beside(&arguments.file)
            .public()
            .map_err(cannot_be_read)?,
    };
    block_on(async {
        let reader = open(&arguments.file).await?;
        let mut collection = Collection::new(since, until);
        let verification = reader
            .verify_and_see(&keys, &mut |link| collection.see(link))
            .await
            .map_err(cannot_be_read)?;
        reader.close().await;
        let report = collection.report(&verification, keys_given, now);
        let text = match arguments.output {
            Form::Html => render_html(&report).map_err(Problem::failure)?,
            Form::Json => {
                let text = serde_json::to_string_pretty(&report).map_err(Problem::failure)?;
                format!("{}\n", inert(&text))
            }
        };
        print(&text)?;
        Ok(if report.verification.good {
            Exit::Ok
        } else {
            Exit::Unverified
        })
    })
}
