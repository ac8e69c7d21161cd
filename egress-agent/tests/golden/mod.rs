//! Texts that are checked in, and compared.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// Compares with what is checked in, and names every file that differs.
#[track_caller]
pub fn same_as_checked_in(found: impl IntoIterator<Item = (PathBuf, String)>) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = String::new();
    for (path, text) in found {
        if update {
            fs::write(&path, &text).expect("the golden file is writable");
        } else if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            let _ = write!(differing, "--- {}\n{text}\n", path.display());
        }
    }
    assert!(
        differing.is_empty(),
        "these differ from what is checked in (UPDATE_GOLDEN=1 rewrites them):\n{differing}"
    );
}
