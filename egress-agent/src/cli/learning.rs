//! `egressctl policy learn`, `replay` and `diff`.

use super::audit::{Filter, block_on, cannot_be_read, open};
use super::exit::{Exit, Problem};
use super::output::{Output, print, print_json, table};
use crate::audit::{Order, Query, StoredRecord, inert, to_terminal};
use crate::learn::{Draft, Replay};
use crate::policy::diff::{Difference, diff};
use crate::policy::render::{Colour, diagnostics_text};
use crate::policy::{Policy, PolicySet, load};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct LearnArguments {
    #[command(flatten)]
    filter: Filter,
    /// The name of the policy that is drafted.
    #[arg(long = "as", value_name = "NAME", default_value = "learned")]
    drafted: String,
    /// The sandboxes that it is to be for, as `applies_to` has them.
    #[arg(long, value_name = "PATTERN")]
    applies_to: Option<String>,
}

#[derive(Args, Debug)]
pub struct ReplayArguments {
    #[command(flatten)]
    filter: Filter,
    /// The policy file to ask.
    #[arg(long, value_name = "FILE")]
    candidate: PathBuf,
    /// At most so many changes.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct DiffArguments {
    /// A policy file, or a directory of them: what was.
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The same: what is to be.
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Reads every record that the filter means, the earliest first.
async fn each(filter: Filter, mut take: impl FnMut(&StoredRecord)) -> Result<(), Problem> {
    let (file, query) = filter.query(Timestamp::now())?;
    let reader = open(&file).await?;
    let mut parts = reader.parts(Query {
        order: Order::OldestFirst,
        ..query
    });
    while let Some(part) = parts.recv().await {
        part.map_err(cannot_be_read)?.iter().for_each(&mut take);
    }
    Ok(())
}

pub fn learn(arguments: LearnArguments) -> Result<Exit, Problem> {
    let LearnArguments {
        filter,
        drafted,
        applies_to,
    } = arguments;
    let mut draft = Draft::default();
    block_on(async {
        each(filter, |record| draft.take(record)).await?;
        Ok(Exit::Ok)
    })?;
    let text = draft.policy(&drafted, applies_to.as_deref());
    // What is handed out has to pass; only the name and the pattern can fail.
    match Policy::parse("learned.yaml", &text, Timestamp::now()) {
        Ok(_) => print(&text).map(|()| Exit::Ok),
        Err(problems) => Err(Problem::usage(format!(
            "the draft would be no policy:\n{}",
            diagnostics_text(&problems, Colour::No)
        ))),
    }
}

pub fn replay(arguments: ReplayArguments) -> Result<Exit, Problem> {
    let now = Timestamp::now();
    let candidate = match load::file(&arguments.candidate, now) {
        Ok((policy, _)) => policy,
        Err(problems) => {
            return Err(Problem::new(
                Exit::BadConfiguration,
                diagnostics_text(&problems, Colour::No),
            ));
        }
    };
    let mut replay = Replay::new(&candidate, now);
    block_on(async {
        each(arguments.filter, |record| replay.take(record)).await?;
        Ok(Exit::Ok)
    })?;
    let mut changes = replay.changes();
    let all = changes.len();
    changes.truncate(arguments.limit);
    match arguments.output {
        Output::Json => print_json(&json!({
            "apiVersion": "egress/v1",
            "kind": "PolicyReplay",
            "policy": candidate.name,
            "asked": replay.asked,
            "same": replay.same,
            "not_policy": replay.not_policy,
            "beyond": replay.beyond,
            "changes": changes,
        }))?,
        Output::Jsonl => {
            for change in changes {
                let line = serde_json::to_string(change).map_err(Problem::failure)?;
                print(&format!("{}\n", inert(&line)))?;
            }
        }
        Output::Table => {
            let rows = changes.iter().map(|change| {
                let place = match (change.port, change.protocol) {
                    (Some(port), Some(protocol)) => {
                        format!("{}:{port}/{protocol}", change.destination)
                    }
                    (None, Some(protocol)) => format!("{}/{protocol}", change.destination),
                    _ => change.destination.clone(),
                };
                vec![
                    format!("{} → {}", change.was, change.would_be),
                    change.count.to_string(),
                    to_terminal(&place),
                    change
                        .sandboxes
                        .iter()
                        .cloned()
                        .collect::<Vec<_>>()
                        .join(" "),
                    change
                        .rule
                        .clone()
                        .or(change.reason.map(str::to_owned))
                        .unwrap_or_default(),
                ]
            });
            if !changes.is_empty() {
                print(&table(
                    &["CHANGE", "COUNT", "DESTINATION", "SANDBOXES", "BY"],
                    rows,
                ))?;
            }
            if all > changes.len() {
                print(&format!("and {} more; see --limit\n", all - changes.len()))?;
            }
            print(&format!(
                "{} decisions were asked about, {} stay as they were; {} are no matter of policy\n",
                replay.asked, replay.same, replay.not_policy
            ))?;
            if replay.beyond > 0 {
                print(&format!(
                    "{} more would change, of too many kinds to be kept\n",
                    replay.beyond
                ))?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn set(path: &Path) -> Result<PolicySet, Problem> {
    PolicySet::load(&[path.to_owned()], Timestamp::now())
        .map(|(set, _)| set)
        .map_err(|problems| {
            Problem::new(
                Exit::BadConfiguration,
                diagnostics_text(&problems, Colour::No),
            )
        })
}

/// Policies of the same name are compared; two files with one policy each are,
/// whatever their names.
pub fn compare(arguments: &DiffArguments) -> Result<Exit, Problem> {
    let (before, after) = (set(&arguments.before)?, set(&arguments.after)?);
    let by_name =
        |set: &PolicySet, name: &str| set.iter().find(|policy| policy.name == name).cloned();
    let names: BTreeSet<String> = before
        .iter()
        .chain(after.iter())
        .map(|policy| policy.name.clone())
        .collect();
    let single = arguments.before.is_file() && arguments.after.is_file();
    let differences: Vec<(String, Difference)> = if single {
        let (a, b) = (before.iter().next(), after.iter().next());
        let name = b.or(a).map_or(String::new(), |policy| policy.name.clone());
        vec![(name, diff(a.map(AsRef::as_ref), b.map(AsRef::as_ref)))]
    } else {
        names
            .into_iter()
            .map(|name| {
                let (a, b) = (by_name(&before, &name), by_name(&after, &name));
                let difference = diff(a.as_deref(), b.as_deref());
                (name, difference)
            })
            .collect()
    };
    let differences: Vec<_> = differences
        .into_iter()
        .filter(|(_, difference)| !difference.is_empty())
        .collect();
    match arguments.output {
        Output::Json | Output::Jsonl => {
            let policies: Vec<_> = differences
                .iter()
                .map(|(name, difference)| json!({"policy": name, "difference": difference}))
                .collect();
            print_json(
                &json!({"apiVersion": "egress/v1", "kind": "PolicyDiff", "policies": policies}),
            )?;
        }
        Output::Table if differences.is_empty() => print("no difference in meaning\n")?,
        Output::Table => {
            for (name, difference) in &differences {
                print(&format!("policy {name}\n"))?;
                for (sign, what, lines) in [
                    ("-", "no longer opens ", &difference.closes),
                    ("+", "opens ", &difference.opens),
                    ("-", "no longer blocks ", &difference.unblocks),
                    ("+", "blocks ", &difference.blocks),
                    ("~", "", &difference.settings),
                ] {
                    for line in lines {
                        print(&format!("  {sign} {what}{}\n", to_terminal(line)))?;
                    }
                }
            }
        }
    }
    Ok(Exit::Ok)
}
