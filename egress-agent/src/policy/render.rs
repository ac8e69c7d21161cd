//! What `egressctl policy check`, `explain` and `schema` print.

use super::diagnostic::{Diagnostic, Severity};
use super::explain::{Answer, Explanation};
use super::meaning::Policy;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use egress_common::Mode;
use serde_json::{Value, json};
use std::fmt::Write;

/// Whether text is for a terminal that shows colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// It is.
    Yes,
    /// It is for a file, a pipe or a test.
    No,
}

/// Diagnostics as a person reads them.
pub fn diagnostics_text(diagnostics: &[Diagnostic], colour: Colour) -> String {
    let renderer = match colour {
        Colour::Yes => Renderer::styled(),
        Colour::No => Renderer::plain(),
    };
    let rendered = diagnostics.iter().map(|diagnostic| {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let file = diagnostic.source.file.display().to_string();
        let title = level
            .primary_title(diagnostic.message.as_str())
            .id(diagnostic.code);
        let mut group = if diagnostic.source.text.is_empty() {
            Group::with_title(title).element(annotate_snippets::Origin::path(file))
        } else {
            title.element(
                Snippet::source(diagnostic.source.text.as_str())
                    .path(file)
                    .annotation(
                        AnnotationKind::Primary.span(diagnostic.span.start..diagnostic.span.end),
                    ),
            )
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        harmless(&renderer.render(&[group]))
    });
    rendered.map(|text| text + "\n").collect()
}

/// The renderer draws ASCII control characters of the source as pictures and
/// leaves those of Latin-1 (U+0080 to U+009F), which steer some terminals too.
fn harmless(rendered: &str) -> String {
    let is_latin_control = |c| ('\u{80}'..='\u{9f}').contains(&c);
    rendered.replace(is_latin_control, "\u{fffd}")
}

/// Diagnostics for `-o json`: an array of objects with `code`, `severity`,
/// `file`, `line`, `column`, `text`, `message` and `help`.
pub fn diagnostics_json(diagnostics: &[Diagnostic]) -> Value {
    let object = |diagnostic: &Diagnostic| {
        let (line, column) = diagnostic.position();
        json!({
            "code": diagnostic.code,
            "severity": diagnostic.severity.name(),
            "file": diagnostic.source.file.display().to_string(),
            "line": line,
            "column": column,
            "text": diagnostic.text(),
            "message": diagnostic.message,
            "help": diagnostic.help,
        })
    };
    diagnostics.iter().map(object).collect()
}

/// `policy check`: the policies that may be used, with what they give away.
pub fn check_text<'p>(
    policies: impl Iterator<Item = &'p Policy>,
    diagnostics: &[Diagnostic],
    colour: Colour,
) -> String {
    let mut text = diagnostics_text(diagnostics, colour);
    for policy in policies {
        let _ = writeln!(
            text,
            "{}: policy `{}` ({}), {}, {}",
            policy.file.display(),
            policy.name,
            mode(policy.mode),
            counted(policy.rules.len(), "rule", "rules"),
            counted(policy.blocks.len(), "blocklist entry", "blocklist entries"),
        );
        for relaxation in &policy.relaxations {
            let _ = writeln!(text, "  relaxation: {relaxation}");
        }
    }
    let errors = diagnostics.iter().filter(|found| found.is_error()).count();
    let warnings = diagnostics.len() - errors;
    if !diagnostics.is_empty() {
        let _ = writeln!(
            text,
            "{}, {}",
            counted(errors, "error", "errors"),
            counted(warnings, "warning", "warnings")
        );
    }
    text
}

/// `policy check -o json`: `ok`, `policies` and `diagnostics`.
pub fn check_json<'p>(
    policies: impl Iterator<Item = &'p Policy>,
    diagnostics: &[Diagnostic],
) -> Value {
    let object = |policy: &Policy| {
        json!({
            "name": policy.name,
            "file": policy.file.display().to_string(),
            "digest": policy.digest,
            "mode": mode(policy.mode),
            "rules": policy.rules.len(),
            "blocklist": policy.blocks.len(),
            "relaxations": policy.relaxations,
        })
    };
    json!({
        "ok": !diagnostics.iter().any(Diagnostic::is_error),
        "policies": policies.map(object).collect::<Vec<_>>(),
        "diagnostics": diagnostics_json(diagnostics),
    })
}

/// `policy explain`.
pub fn explanation_text(explanation: &Explanation) -> String {
    let mut text = format!("{} {}\n", explanation.answer.name(), explanation.query);
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {label:<8}{value}");
    };
    line("policy", &explanation.policy);
    if let Some(rule) = &explanation.rule {
        line("rule", &format!("{} ({rule})", rule.text));
    }
    match explanation.reason {
        Some(reason) => line(
            "reason",
            &format!("{} ({})", reason.sentence(), reason.name()),
        ),
        None if explanation.answer == Answer::Allow => line("reason", "the rule allows it"),
        None => {}
    }
    for note in &explanation.notes {
        line("note", note);
    }
    if let Some(help) = &explanation.help {
        line("help", help);
    }
    text
}

/// `policy explain -o json`.
pub fn explanation_json(explanation: &Explanation) -> Value {
    let rule = explanation.rule.as_ref().map(|rule| {
        json!({
            "file": rule.file.display().to_string(),
            "line": rule.line,
            "text": &*rule.text,
        })
    });
    json!({
        "to": explanation.query.to_string(),
        "policy": explanation.policy,
        "mode": mode(explanation.mode),
        "verdict": explanation.answer.name(),
        "outcome": explanation.outcome().name(),
        "reason": explanation.reason.map(|reason| reason.name()),
        "sentence": explanation.reason.map(|reason| reason.sentence()),
        "rule": rule,
        "help": explanation.help,
        "notes": explanation.notes,
    })
}

/// `policy schema`: the JSON Schema, as it is checked in.
pub fn schema_text() -> String {
    let mut text = serde_json::to_string_pretty(&super::json_schema()).unwrap_or_default();
    text.push('\n');
    text
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn control_characters_of_a_policy_do_not_reach_the_terminal() {
        for control in ('\u{0}'..='\u{9f}').filter(|c| c.is_control() && *c != '\n') {
            let text = format!("name: \"{control}\"\nnonsense{control}: 1\n");
            let problems = Policy::parse("p.yaml", &text, Timestamp::UNIX_EPOCH);
            let problems = problems.expect_err("it is no policy");
            let shown = diagnostics_text(&problems, Colour::No);
            assert!(
                !shown.chars().any(|c| c.is_control() && c != '\n'),
                "{control:?}: {shown:?}"
            );
        }
    }
}
