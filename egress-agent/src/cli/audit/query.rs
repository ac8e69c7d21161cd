//! `egressctl audit query`.

use super::filter::{Filter, by_name};
use super::{cannot_be_read, open};
use crate::audit::{
    API_VERSION, Group, GroupField, Order, Query, Reader, StoredRecord, inert, render_json,
    render_json_lines, render_table, to_terminal,
};
use crate::cli::exit::{Exit, Problem};
use crate::cli::output::{Output, print, print_to_reader, table};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a follower looks for what is new.
const LOOK: Duration = Duration::from_millis(200);
/// Records that a follower takes at once.
const AT_ONCE: u32 = 1_000;

#[derive(Args, Debug)]
pub struct QueryArguments {
    #[command(flatten)]
    filter: Filter,
    /// Count instead of listing, by these fields, the largest counts first:
    /// sandbox, policy, session, task, project, kind, verdict, reason, name, address, port, protocol,
    /// destination, rule, command, hook, hour, day.
    #[arg(
        long,
        value_name = "FIELD,...",
        value_delimiter = ',',
        value_parser = field,
        conflicts_with_all = ["follow", "oldest_first"]
    )]
    group_by: Vec<GroupField>,
    /// At most so many records, or groups.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// The earliest first.
    #[arg(long)]
    oldest_first: bool,
    /// Show the latest, then go on with what comes, until a signal.
    #[arg(short, long, conflicts_with = "oldest_first")]
    follow: bool,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn field(text: &str) -> Result<GroupField, String> {
    by_name(text, GroupField::ALL, GroupField::name)
}

pub async fn run(arguments: QueryArguments) -> Result<Exit, Problem> {
    let (file, query) = arguments.filter.query(Timestamp::now())?;
    let query = Query {
        limit: Some(arguments.limit),
        order: if arguments.oldest_first {
            Order::OldestFirst
        } else {
            Order::NewestFirst
        },
        ..query
    };
    if arguments.follow && arguments.output == Output::Json {
        return Err(Problem::usage(
            "one JSON document has an end, and --follow has none; use `-o jsonl`",
        ));
    }
    let by: BTreeSet<_> = arguments.group_by.iter().collect();
    if by.len() < arguments.group_by.len() {
        return Err(Problem::usage("--group-by names a field twice"));
    }
    let reader = open(&file).await?;
    if arguments.follow {
        follow(&reader, query, arguments.output).await
    } else if arguments.group_by.is_empty() {
        let records = reader.query(&query).await.map_err(cannot_be_read)?;
        print_records(&records, arguments.output)?;
        Ok(Exit::Ok)
    } else {
        let groups = reader
            .groups(&query, &arguments.group_by)
            .await
            .map_err(cannot_be_read)?;
        print_groups(&arguments.group_by, &groups, arguments.output)?;
        Ok(Exit::Ok)
    }
}

fn print_records(records: &[StoredRecord], output: Output) -> Result<(), Problem> {
    let text = match output {
        Output::Table if records.is_empty() => "no record matches\n".to_owned(),
        Output::Table => format!("{}\n", render_table(records).trim_end()),
        Output::Json => render_json(records)
            .map(|text| text + "\n")
            .map_err(Problem::failure)?,
        Output::Jsonl => render_json_lines(records).map_err(Problem::failure)?,
    };
    print(&text)
}

/// Shows the latest records in the order in which they were stored, then what
/// is stored from then on. Ends when its reader is gone, or with a signal.
async fn follow(reader: &Reader, query: Query, output: Output) -> Result<Exit, Problem> {
    // Asked first: what is stored while the latest are read is told afterwards.
    let mut after = reader.last_sequence().await.map_err(cannot_be_read)?;
    let mut latest = reader.query(&query).await.map_err(cannot_be_read)?;
    latest.retain(|record| record.sequence <= after);
    latest.sort_by_key(|record| record.sequence);
    let mut headed = false;
    let mut next = latest;
    loop {
        if !next.is_empty() {
            let text = match output {
                Output::Table => {
                    let table = render_table(&next);
                    // One heading is enough for a table that grows.
                    let rows = table.split_once('\n').map_or("", |(_, rows)| rows);
                    let shown = if headed { rows } else { table.as_str() };
                    headed = true;
                    format!("{}\n", shown.trim_end())
                }
                Output::Json | Output::Jsonl => {
                    render_json_lines(&next).map_err(Problem::failure)?
                }
            };
            if !print_to_reader(&text)? {
                return Ok(Exit::Ok);
            }
        } else {
            tokio::time::sleep(LOOK).await;
        }
        let more = Query {
            after: Some(after),
            order: Order::Stored,
            limit: Some(AT_ONCE),
            ..query.clone()
        };
        next = reader.query(&more).await.map_err(cannot_be_read)?;
        after = next.last().map_or(after, |record| record.sequence);
    }
}

fn print_groups(by: &[GroupField], groups: &[Group], output: Output) -> Result<(), Problem> {
    match output {
        Output::Table if groups.is_empty() => print("no record matches\n"),
        Output::Table => {
            let mut header: Vec<String> = by
                .iter()
                .map(|field| field.name().to_ascii_uppercase())
                .collect();
            header.extend(["COUNT", "RECORDS", "FIRST", "LAST"].map(str::to_owned));
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            let rows = groups.iter().map(|group| {
                let mut row: Vec<String> = group
                    .values
                    .iter()
                    .map(|value| value.as_deref().map_or("-".to_owned(), to_terminal))
                    .collect();
                row.extend([
                    group.count.to_string(),
                    group.records.to_string(),
                    format!("{:.0}", group.first),
                    format!("{:.0}", group.last),
                ]);
                row
            });
            print(&table(&header, rows))
        }
        Output::Json => {
            let document = json!({
                "apiVersion": API_VERSION,
                "kind": "AuditGroups",
                "groups": groups.iter().map(|group| as_json(by, group)).collect::<Vec<_>>(),
            });
            let text = serde_json::to_string_pretty(&document).map_err(Problem::failure)?;
            print(&format!("{}\n", inert(&text)))
        }
        Output::Jsonl => {
            for group in groups {
                let mut line = as_json(by, group);
                line["apiVersion"] = API_VERSION.into();
                print(&format!("{}\n", inert(&line.to_string())))?;
            }
            Ok(())
        }
    }
}

fn as_json(by: &[GroupField], group: &Group) -> Value {
    let values: serde_json::Map<String, Value> = by
        .iter()
        .zip(&group.values)
        .map(|(field, value)| (field.name().to_owned(), json!(value)))
        .collect();
    json!({
        "by": values,
        "count": group.count,
        "records": group.records,
        "first": group.first,
        "last": group.last,
    })
}
