//! `egressctl policy`: works with no agent and no root.

use super::exit::{Exit, Problem};
use super::learning;
use super::output::{self, Output, print};
use crate::policy::explain::Answer;
use crate::policy::render::{
    Colour, check_json, check_text, diagnostics_json, diagnostics_text, explanation_json,
    explanation_text, schema_text,
};
use crate::policy::{PolicySet, Query, explain, load};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Check policy files, as the agent does before it uses them.
    Check(CheckArguments),
    /// Say what a policy does with a destination, and which line decides.
    Explain(ExplainArguments),
    /// Draft a policy from what was recorded, for people to review.
    Learn(learning::LearnArguments),
    /// Say which recorded decisions another policy would change.
    Replay(learning::ReplayArguments),
    /// Say how two policies differ in meaning.
    Diff(learning::DiffArguments),
    /// Print the JSON Schema of policy files, for editors.
    Schema,
}

#[derive(Args, Debug)]
pub struct CheckArguments {
    /// Policy files, and directories of them; together they must form one set.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct ExplainArguments {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The destination: a name or an address, a port, and tcp or udp; HOST/icmp for echo.
    #[arg(long, value_name = "HOST:PORT[/PROTO]")]
    to: String,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub fn run(command: PolicyCommand) -> Result<Exit, Problem> {
    match command {
        PolicyCommand::Check(arguments) => check(&arguments),
        PolicyCommand::Explain(arguments) => explain_one(&arguments),
        PolicyCommand::Learn(arguments) => learning::learn(arguments),
        PolicyCommand::Replay(arguments) => learning::replay(arguments),
        PolicyCommand::Diff(arguments) => learning::compare(&arguments),
        PolicyCommand::Schema => print(&schema_text()).map(|()| Exit::Ok),
    }
}

fn colour() -> Colour {
    if output::colour_on_stderr() {
        Colour::Yes
    } else {
        Colour::No
    }
}

fn check(arguments: &CheckArguments) -> Result<Exit, Problem> {
    let loaded = PolicySet::load(&arguments.paths, Timestamp::now());
    let (set, diagnostics) = match &loaded {
        Ok((set, warnings)) => (Some(set), warnings),
        Err(problems) => (None, problems),
    };
    let policies = || set.iter().flat_map(|set| set.iter()).map(AsRef::as_ref);
    match arguments.output {
        Output::Table => {
            let text = check_text(policies(), diagnostics, colour());
            if loaded.is_ok() {
                print(&text)?
            } else {
                eprint!("{text}")
            }
        }
        Output::Json | Output::Jsonl => output::print_json(&check_json(policies(), diagnostics))?,
    }
    Ok(if loaded.is_ok() {
        Exit::Ok
    } else {
        Exit::BadConfiguration
    })
}

fn explain_one(arguments: &ExplainArguments) -> Result<Exit, Problem> {
    let query = Query::parse(&arguments.to).map_err(Problem::usage)?;
    let now = Timestamp::now();
    let policy = match load::file(&arguments.policy, now) {
        Ok((policy, _)) => policy,
        Err(problems) => {
            match arguments.output {
                Output::Table => eprint!("{}", diagnostics_text(&problems, colour())),
                Output::Json | Output::Jsonl => output::print_json(&diagnostics_json(&problems))?,
            }
            return Ok(Exit::BadConfiguration);
        }
    };
    let explanation = explain(&policy, &query, now);
    match arguments.output {
        Output::Table => print(&explanation_text(&explanation))?,
        Output::Json | Output::Jsonl => output::print_json(&explanation_json(&explanation))?,
    }
    Ok(match explanation.answer {
        Answer::Allow | Answer::Redirect => Exit::Ok,
        Answer::Deny => Exit::Denied,
    })
}
