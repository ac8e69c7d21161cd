//! The last good policies on disk: one file, so that it is never half of one
//! set and half of another.

use super::content::Content;
use super::replace;
use crate::policy::Diagnostic;
use std::io;
use std::path::Path;

const FILE: &str = "last-good-policies.json";

/// Keeps policies in a state directory.
pub(super) fn write(directory: &Path, content: &Content) -> io::Result<()> {
    let text = serde_json::to_vec(content).map_err(io::Error::other)?;
    let path = directory.join(FILE);
    if std::fs::read(&path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    replace(&path, &text)
}

/// What was kept; `None` if nothing was yet.
pub(super) fn read(directory: &Path) -> Result<Option<Content>, Diagnostic> {
    let path = directory.join(FILE);
    let problem = |error: String| {
        Diagnostic::about_file(
            "last-good",
            path.as_path(),
            format!("cannot read `{}`: {error}", path.display()),
        )
        .help("mend the policies; the file is written again when they are in force")
    };
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| problem(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(problem(error.to_string())),
    }
}
