//! `egressctl audit export`.

use super::filter::{Filter, by_name};
use super::{cannot_be_read, open};
use crate::audit::{Order, Query};
use crate::cli::exit::{Exit, Problem};
use crate::cli::interruption::Interruption;
use crate::cli::output::print_to_reader;
use crate::export::Format;
use clap::Args;
use jiff::Timestamp;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub struct ExportArguments {
    #[command(flatten)]
    filter: Filter,
    /// For which system: jsonl, csv, ocsf, ecs or cef.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Format,
    /// At most so many records.
    #[arg(long)]
    limit: Option<u32>,
}

fn format(text: &str) -> Result<Format, String> {
    by_name(text, &Format::ALL, Format::name)
}

/// Writes whole records only: a signal ends the export after the part that is
/// being written, never inside a line.
pub async fn run(arguments: ExportArguments) -> Result<Exit, Problem> {
    let mut interruption = Interruption::hold_back().map_err(Problem::failure)?;
    let (file, query) = arguments.filter.query(Timestamp::now())?;
    let reader = open(&file).await?;
    let format = arguments.format;
    let mut parts = reader.parts(Query {
        order: Order::OldestFirst,
        limit: arguments.limit,
        ..query
    });
    let mut progress = Progress::new();
    let mut text = format.heading();
    while let Some(part) = parts.recv().await {
        let part = part.map_err(cannot_be_read)?;
        for record in &part {
            format.write(record, &mut text).map_err(Problem::failure)?;
        }
        if !print_to_reader(&text)? {
            return Ok(Exit::Ok);
        }
        text.clear();
        progress.tell(part.len());
        if let Some(code) = interruption.exit_code().await {
            progress.end();
            return Ok(Exit::Command(code));
        }
    }
    // A heading stands there also where no record matches.
    print_to_reader(&text)?;
    progress.end();
    Ok(Exit::Ok)
}

/// Tells a person on standard error how far it is.
struct Progress {
    shown: bool,
    begun: Instant,
    told: Instant,
    records: u64,
}

/// How often.
const EVERY: Duration = Duration::from_millis(500);

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            // Where records go to the same terminal, it would stand among them.
            shown: std::io::stderr().is_terminal() && !std::io::stdout().is_terminal(),
            begun: now,
            told: now,
            records: 0,
        }
    }

    fn tell(&mut self, more: usize) {
        self.records += more as u64;
        if self.shown && self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            let seconds = self.begun.elapsed().as_secs_f64();
            let rate = self.records as f64 / seconds.max(0.001);
            // Whoever closed standard error wants to hear nothing.
            let _ = write!(
                std::io::stderr(),
                "\r{} records, {rate:.0} a second\x1b[K",
                self.records
            );
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = writeln!(std::io::stderr(), "\r{} records\x1b[K", self.records);
        }
    }
}
