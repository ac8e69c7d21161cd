//! The picture on a screen of 80 columns or more.

use super::data::{Denial, Picture, Row as Sandbox};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

/// Sandboxes that are shown at most; the rest is a number.
const SANDBOXES: usize = 12;

pub fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let shown = picture.sandboxes.len().min(SANDBOXES);
    let hidden = u16::from(picture.sandboxes.len() > shown);
    // One row for the heading of the table.
    let table = u16::try_from(shown).unwrap_or(0) + 1;
    let warnings = u16::try_from(picture.warnings.len().min(3)).unwrap_or(0);
    let [head, warned, sandboxes, more, _gap, title, denials] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(warnings),
        Constraint::Length(table),
        Constraint::Length(hidden),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(frame.area());
    frame.render_widget(heading(picture), head);
    let lines: Vec<Line<'_>> = picture
        .warnings
        .iter()
        .take(3)
        .map(|warning| Line::styled(warning.as_str(), Color::Red))
        .collect();
    frame.render_widget(Paragraph::new(lines), warned);
    frame.render_widget(table_of(&picture.sandboxes[..shown]), sandboxes);
    if hidden > 0 {
        let rest = picture.sandboxes.len() - shown;
        frame.render_widget(Paragraph::new(format!("and {rest} more")), more);
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let name = if picture.denials.is_empty() {
        "NOTHING WAS REFUSED"
    } else {
        "NEWEST DENIALS, with the line that would allow them"
    };
    frame.render_widget(Paragraph::new(Span::styled(name, bold)), title);
    let lines: Vec<Line<'_>> = picture.denials.iter().flat_map(lines_of).collect();
    frame.render_widget(Paragraph::new(lines), denials);
}

fn heading(picture: &Picture) -> Paragraph<'_> {
    let state = if picture.state == "enforcing" {
        Style::new().fg(Color::Green)
    } else {
        Style::new().fg(Color::Red)
    };
    Paragraph::new(vec![
        Line::from(vec![
            Span::raw(format!("egress {:.0}  ", picture.time)),
            Span::styled(picture.state.as_str(), state),
            Span::raw(format!("  {} sandboxes", picture.sandboxes.len())),
        ]),
        Line::from(format!(
            "last minute: {} allowed, {} denied; audit: {} waiting, {} lost; q leaves",
            picture.allowed, picture.denied, picture.audit_queued, picture.audit_lost
        )),
    ])
}

fn table_of(sandboxes: &[Sandbox]) -> Table<'_> {
    let header = [
        "SANDBOX", "MODE", "ALLOW/m", "DENY/m", "PROCS", "MEMORY", "CPU",
    ];
    let rows = sandboxes.iter().map(|sandbox| {
        let denied = if sandbox.denied > 0 {
            Style::new().fg(Color::Red)
        } else {
            Style::new()
        };
        Row::new([
            Cell::from(sandbox.name.as_str()),
            Cell::from(sandbox.mode.as_str()),
            Cell::from(sandbox.allowed.to_string()),
            Cell::from(sandbox.denied.to_string()).style(denied),
            Cell::from(sandbox.processes.to_string()),
            Cell::from(sandbox.memory.map_or("-".to_owned(), bytes)),
            Cell::from(sandbox.cpu.map_or("-".to_owned(), |cpu| format!("{cpu} %"))),
        ])
    });
    let widths = [
        Constraint::Min(20),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(6),
    ];
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Table::new(rows, widths).header(Row::new(header).style(bold))
}

fn lines_of(denial: &Denial) -> Vec<Line<'_>> {
    let time = denial.time.strftime("%H:%M:%S").to_string();
    let times = if denial.count > 1 {
        format!(" ×{}", denial.count)
    } else {
        String::new()
    };
    let shadow = if denial.verdict == "would_deny" {
        " (shadow)"
    } else {
        ""
    };
    let dim = Style::new().add_modifier(Modifier::DIM);
    let mut lines = vec![
        Line::from(vec![
            Span::raw(format!("{time} ")),
            Span::styled(denial.sandbox.as_str(), Color::Yellow),
            Span::raw(format!(" {}{times}{shadow}", denial.destination)),
        ]),
        Line::styled(format!("  {}", denial.why), dim),
    ];
    if let Some(line) = &denial.line {
        lines.push(Line::styled(format!("  {line}"), Color::Cyan));
    }
    lines
}

/// `12.3 MiB`.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}
