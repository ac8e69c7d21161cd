//! From patterns to a list.

use super::error::WriteError;
use super::{BELOW, ITSELF, file};
use crate::model::DomainPattern;
use fst::raw;
use std::path::Path;

/// Collects patterns. What stands in it several times counts once.
#[derive(Debug, Default)]
pub struct Builder {
    /// Names from the last letter to the first, with what is meant.
    entries: Vec<(Box<[u8]>, u64)>,
}

impl Builder {
    /// Adds a pattern.
    pub fn add(&mut self, pattern: &DomainPattern) {
        let reach = match pattern {
            DomainPattern::Exact(_) => ITSELF,
            DomainPattern::Below(_) => BELOW,
            DomainPattern::Within(_) => ITSELF | BELOW,
        };
        let key = pattern.base().as_str().bytes().rev().collect();
        self.entries.push((key, reach));
    }

    /// How many patterns were added.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the list, whole or not at all; how many names it holds.
    pub fn write(mut self, path: &Path) -> Result<u64, WriteError> {
        if self.entries.is_empty() {
            return Err(WriteError::Empty);
        }
        self.entries.sort_unstable();
        let mut names = raw::Builder::memory();
        let (mut count, mut public) = (0, 0);
        for same in self.entries.chunk_by(|one, other| one.0 == other.0) {
            let reach = same.iter().fold(0, |all, (_, reach)| all | reach);
            let Some((key, _)) = same.first() else {
                continue;
            };
            names.insert(key, reach)?;
            count += 1;
            public += u64::from(reach & BELOW != 0 && is_public_suffix(key));
        }
        let names = names.into_inner()?;
        file::write(path, &names, (count, public))?;
        Ok(count)
    }
}

/// Whether anybody can have a name below this one.
fn is_public_suffix(reversed: &[u8]) -> bool {
    let name: Vec<u8> = reversed.iter().rev().copied().collect();
    psl::suffix(&name).is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name)
}
