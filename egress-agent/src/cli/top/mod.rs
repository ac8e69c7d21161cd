//! `egressctl top`: what runs, and what it was refused, live.

mod data;
mod view;

use super::exit::{Exit, Problem};
use super::output::{Output, print, print_json};
use clap::Args;
use data::{Picture, Source};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the picture is taken anew.
const EVERY: Duration = Duration::from_secs(2);
/// Between the two looks of `--once`: resource use is a difference.
const BETWEEN: Duration = Duration::from_millis(500);
/// The size that the picture has where there is no terminal.
const COLUMNS: u16 = 80;
const ROWS: u16 = 40;

#[derive(Args, Debug)]
pub struct TopArguments {
    /// Show one picture and end, for scripts.
    #[arg(long)]
    once: bool,
    /// How the picture looks; json and jsonl imply --once.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub fn run(socket: &Path, arguments: &TopArguments) -> Result<Exit, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Problem::failure)?;
    let mut source = Source::new(socket);
    let mut look = || runtime.block_on(source.look());
    if arguments.output == Output::Table && !arguments.once {
        if !std::io::stdout().is_terminal() {
            return Err(Problem::usage(
                "there is no terminal to draw on; use --once, or -o json",
            ));
        }
        return live(look);
    }
    look()?;
    std::thread::sleep(BETWEEN);
    let picture = look()?;
    match arguments.output {
        Output::Table => print(&plain(&picture)?)?,
        Output::Json | Output::Jsonl => print_json(&picture)?,
    }
    Ok(Exit::Ok)
}

/// The same picture as text, without colours.
fn plain(picture: &Picture) -> Result<String, Problem> {
    let mut terminal = Terminal::new(TestBackend::new(COLUMNS, ROWS)).map_err(Problem::failure)?;
    terminal
        .draw(|frame| view::draw(frame, picture))
        .map_err(Problem::failure)?;
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(COLUMNS)) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(format!("{}\n", text.trim_end()))
}

/// Draws until somebody types `q`, Escape or Control-C. The terminal is put back
/// whatever happens.
fn live(mut look: impl FnMut() -> Result<Picture, Problem>) -> Result<Exit, Problem> {
    // Before the screen is taken over: that nobody answers is told on it.
    let mut picture = look()?;
    let mut terminal = ratatui::try_init().map_err(Problem::failure)?;
    let result = loop {
        if let Err(error) = terminal.draw(|frame| view::draw(frame, &picture)) {
            break Err(Problem::failure(error));
        }
        match left(EVERY) {
            Ok(true) => break Ok(Exit::Ok),
            Ok(false) => {}
            Err(error) => break Err(Problem::failure(error)),
        }
        match look() {
            Ok(next) => picture = next,
            // An agent that is being replaced is back in a moment.
            Err(problem) if problem.exit() == Exit::NotReachable => picture.set_unreachable(),
            Err(problem) => break Err(problem),
        }
    };
    ratatui::restore();
    result
}

/// Waits, and says whether somebody wants to leave.
fn left(wait: Duration) -> std::io::Result<bool> {
    let until = Instant::now() + wait;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        if !event::poll(rest)? {
            return Ok(false);
        }
        match event::read()? {
            Event::Key(key) => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(true);
                }
                _ => {}
            },
            // Drawn anew at once.
            Event::Resize(..) => return Ok(false),
            _ => {}
        }
        if rest.is_zero() {
            return Ok(false);
        }
    }
}
