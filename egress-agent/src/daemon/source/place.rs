//! Putting a bundle to where the agent looks for it.

use super::replace;
use crate::bundle::suffixes;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What was there before a bundle was placed.
#[must_use]
pub struct Before(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Before {
    /// Puts it back.
    pub fn restore(self) -> io::Result<()> {
        self.0
            .into_iter()
            .try_for_each(|(path, content)| put(&path, content.as_deref()))
    }
}

/// Writes a bundle and its signatures (by suffix), and takes away signatures of
/// another bundle. Between two of these writes nothing there is signed, so an
/// agent that reads just then refuses it and stays as it is.
pub fn place_bundle(
    target: &Path,
    archive: &[u8],
    signatures: &[(&'static str, String)],
) -> io::Result<Before> {
    if let Some(directory) = target.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let beside = suffixes().map(|suffix| {
        let mut path = target.as_os_str().to_owned();
        path.push(suffix);
        let found = signatures.iter().find(|(of, _)| *of == suffix);
        (PathBuf::from(path), found.map(|(_, text)| text.as_bytes()))
    });
    let files = beside
        .into_iter()
        .chain([(target.to_owned(), Some(archive))]);
    let mut before = Vec::new();
    for (path, content) in files {
        let old = match std::fs::read(&path) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        before.push((path.clone(), old));
        if let Err(error) = put(&path, content) {
            // The first failure is the one to tell.
            let _ = Before(before).restore();
            return Err(error);
        }
    }
    Ok(Before(before))
}

fn put(path: &Path, content: Option<&[u8]>) -> io::Result<()> {
    match content {
        Some(content) => replace(path, content),
        None => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}
