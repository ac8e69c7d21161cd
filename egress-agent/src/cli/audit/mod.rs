//! `egressctl audit`: reads the store's file, with or without an agent.

mod export;
mod filter;
mod query;

use super::exit::{Exit, Problem};
use crate::audit::{AuditError, Reader};
use clap::Subcommand;
use std::io::ErrorKind;
use std::path::Path;

#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Show decisions, the latest first; count them; or watch them come.
    Query(query::QueryArguments),
    /// Write decisions for another system, the earliest first.
    Export(export::ExportArguments),
}

pub fn run(command: AuditCommand) -> Result<Exit, Problem> {
    match command {
        AuditCommand::Query(arguments) => block_on(query::run(arguments)),
        AuditCommand::Export(arguments) => block_on(export::run(arguments)),
    }
}

/// Runs to the end, reading on a thread beside the one that prints.
fn block_on(answer: impl Future<Output = Result<Exit, Problem>>) -> Result<Exit, Problem> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Problem::failure)?
        .block_on(answer)
}

async fn open(file: &Path) -> Result<Reader, Problem> {
    Reader::open(file).await.map_err(cannot_be_read)
}

/// The store's own words for a file that is closed to it are meant for the agent.
fn cannot_be_read(error: AuditError) -> Problem {
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
