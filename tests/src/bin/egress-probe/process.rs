//! Steps that look at the process itself.

use crate::{Result, parse};
use std::io;
use std::time::Duration;

pub fn sleep(milliseconds: &str) -> Result {
    std::thread::sleep(Duration::from_millis(parse(milliseconds)?));
    Ok(String::new())
}

pub fn status(field: &str) -> Result {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = value.ok_or_else(|| io::Error::other(format!("no field {field}")))?;
    Ok(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The open descriptors without the one that lists them.
pub fn descriptors() -> Result {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // The directory that is being read is gone when its link is followed
        // later, but not yet: it shows as a path below /proc.
        let target = std::fs::read_link(entry.path())?;
        if !target.starts_with("/proc") {
            open.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    open.sort();
    Ok(open.join(" "))
}

pub fn environment() -> String {
    let mut names: Vec<String> = std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.join(" ")
}
