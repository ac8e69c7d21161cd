//! What is wrong with a policy, where, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a source text, end excluded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// A policy file: its name and what stands in it.
#[derive(PartialEq, Eq, Debug)]
pub struct Source {
    /// The file, as the person named it.
    pub file: Arc<PathBuf>,
    /// Its text; empty if it could not be read.
    pub text: String,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
}

impl Source {
    /// Keeps `text` together with the name of its file.
    pub fn new(file: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            file: Arc::new(file.into()),
            text,
            lines,
        }
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    pub fn position(&self, byte: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|start| *start <= byte).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self
            .text
            .get(start..byte)
            .map_or(0, |head| head.chars().count());
        (small(line), small(column + 1))
    }

    /// The text under `span`, without what follows its first line.
    pub fn under(&self, span: Span) -> &str {
        let text = self.text.get(span.start..span.end).unwrap_or("");
        text.lines().next().unwrap_or("").trim_end()
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// The policy is not loaded.
    Error,
    /// The policy is loaded; a person should look.
    Warning,
}

impl Severity {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// The stable name of the kind of problem, such as `unknown-key`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where: the file and its text.
    pub source: Arc<Source>,
    /// Which bytes of it; empty at 0 if the whole file is meant.
    pub span: Span,
    /// What is wrong, in one sentence that names the offending thing.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem with a whole file, whose text may be unknown.
    pub fn about_file(
        code: &'static str,
        file: impl Into<PathBuf>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: Severity::Error,
            source: Arc::new(Source::new(file, "")),
            span: Span::default(),
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Line and column, both from 1.
    pub fn position(&self) -> (u32, u32) {
        self.source.position(self.span.start)
    }

    /// The offending text.
    pub fn text(&self) -> &str {
        self.source.under(self.span)
    }

    /// Whether the policy is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Collects every problem of one source, so that a person sees all at once.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    found: Vec<Diagnostic>,
}

/// Problems beyond this many are counted and not listed: a generated file that
/// is wrong everywhere must not fill the terminal or the memory.
const MAX_LISTED: usize = 200;

impl Report {
    /// An empty report about `source`.
    pub fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            found: Vec::new(),
        }
    }

    /// What is reported about.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Reports what refuses the policy.
    pub fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, code, span, message.into(), help.into());
    }

    /// Reports what a person should look at.
    pub fn warn(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, code, span, message.into(), help.into());
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
        help: String,
    ) {
        self.found.push(Diagnostic {
            code,
            severity,
            source: Arc::clone(&self.source),
            span,
            message,
            help: (!help.is_empty()).then_some(help),
        });
    }

    /// Whether something refuses the policy.
    pub fn has_errors(&self) -> bool {
        self.found.iter().any(Diagnostic::is_error)
    }

    /// Everything, in the order of the text.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|found| (found.span, found.severity));
        if self.found.len() > MAX_LISTED {
            // Errors stay in preference to warnings: they are what refuses.
            self.found.sort_by_key(|found| (found.severity, found.span));
            let more = self.found.len() - MAX_LISTED;
            self.found.truncate(MAX_LISTED);
            let mut last = Diagnostic::about_file(
                "more-problems",
                self.source.file.as_path(),
                format!("{more} more problems in this file are not listed"),
            );
            if !self.has_errors() {
                last.severity = Severity::Warning;
            }
            self.found.push(last);
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, Span};

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("p.yaml", "a: b\nü: c\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(3), (1, 4));
        assert_eq!(source.position(5), (2, 1));
        assert_eq!(source.position(9), (2, 4));
        assert_eq!(source.under(Span { start: 9, end: 10 }), "c");
    }
}
