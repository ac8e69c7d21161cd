//! How a task says that it did not succeed.

use std::fmt;
use std::process::ExitCode;

/// A task that did not succeed, with words for whoever runs it.
#[derive(Debug)]
pub struct Failure {
    words: String,
    status: u8,
}

impl Failure {
    /// A failure with these words.
    pub fn new(words: impl Into<String>) -> Self {
        Self::with_status(1, words)
    }

    /// A failure that whoever runs the task can tell from others by its status.
    pub fn with_status(status: u8, words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            status,
        }
    }

    /// The status that the task ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
