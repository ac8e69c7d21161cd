//! `egressctl audit export`.

use super::filter::{Filter, by_name};
use super::{cannot_be_read, open};
use crate::audit::{Linked, Order, Parts, Query, Reader, StoredRecord};
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
    let interruption = Interruption::hold_back().map_err(Problem::failure)?;
    let (file, query) = arguments.filter.query(Timestamp::now())?;
    let reader = open(&file).await?;
    let query = Query {
        order: Order::OldestFirst,
        limit: arguments.limit,
        ..query
    };
    let mut writing = Writing {
        interruption,
        progress: Progress::new(),
    };
    match arguments.format {
        Format::Jsonl => linked(&reader, query, &mut writing).await,
        format => {
            let parts = reader.parts(query);
            let heading = format.heading();
            let line = |record: &StoredRecord, to: &mut String| {
                format.write(record, to).map_err(Problem::failure)
            };
            writing
                .write_all(parts, heading, line)
                .await
                .map(Exit::from)
        }
    }
}

/// Lines that carry their place in the chain, and after them what proves it.
async fn linked(reader: &Reader, query: Query, writing: &mut Writing) -> Result<Exit, Problem> {
    let origin = reader.chain_origin().await.map_err(cannot_be_read)?;
    let (mut first, mut last) = (i64::MAX, 0);
    let parts = reader.linked_parts(query.clone());
    let line = |linked: &Linked, to: &mut String| {
        first = first.min(linked.record.sequence);
        last = last.max(linked.record.sequence);
        linked.write_line(&origin, to).map_err(Problem::failure)
    };
    let written = writing.write_all(parts, String::new(), line).await?;
    if written == Written::All {
        let proof = reader.proof_lines(&query, &origin, first, last);
        print_to_reader(&proof.await.map_err(cannot_be_read)?)?;
    }
    Ok(written.into())
}

/// How an export ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    All,
    /// Whoever read it wants no more.
    Enough,
    /// A signal came; the exit code says which.
    Interrupted(u8),
}

impl From<Written> for Exit {
    fn from(written: Written) -> Self {
        match written {
            Written::All | Written::Enough => Self::Ok,
            Written::Interrupted(code) => Self::Command(code),
        }
    }
}

struct Writing {
    interruption: Interruption,
    progress: Progress,
}

impl Writing {
    async fn write_all<T>(
        &mut self,
        mut parts: Parts<T>,
        heading: String,
        mut line: impl FnMut(&T, &mut String) -> Result<(), Problem>,
    ) -> Result<Written, Problem> {
        let mut text = heading;
        while let Some(part) = parts.recv().await {
            let part = part.map_err(cannot_be_read)?;
            for record in &part {
                line(record, &mut text)?;
            }
            if !print_to_reader(&text)? {
                return Ok(Written::Enough);
            }
            text.clear();
            self.progress.tell(part.len());
            if let Some(code) = self.interruption.exit_code().await {
                self.progress.end();
                return Ok(Written::Interrupted(code));
            }
        }
        // A heading stands there also where no record matches.
        print_to_reader(&text)?;
        self.progress.end();
        Ok(Written::All)
    }
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
