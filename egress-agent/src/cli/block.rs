//! `egressctl sandbox block` and `unblock`.

use super::exit::{Exit, Problem};
use super::operate::ask;
use super::output::print;
use crate::api::Client;
use clap::Args;
use std::path::Path;

#[derive(Args, Debug)]
pub struct BlockArguments {
    /// The sandbox's name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Why; it stands in the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub fn run(socket: &Path, arguments: &BlockArguments, blocked: bool) -> Result<Exit, Problem> {
    let BlockArguments { name, reason } = arguments;
    ask(Client::new(socket).set_blocked(name, blocked, reason))?;
    print(&if blocked {
        format!("sandbox `{name}` is refused everything\n")
    } else {
        format!("sandbox `{name}` is under its policy again; it has to resolve names anew\n")
    })?;
    Ok(Exit::Ok)
}
