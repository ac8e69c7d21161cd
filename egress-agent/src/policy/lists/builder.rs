//! From patterns to a list.

use super::error::WriteError;
use super::fill::{self, Name};
use super::letters::Letters;
use super::{BELOW, ITSELF, file, table};
use crate::model::{DomainName, DomainPattern};
use siphasher::sip::SipHasher13;
use std::path::Path;

/// Marks a pattern that means names below a public suffix.
const PUBLIC: u8 = 4;

/// Collects patterns. What stands in it several times counts once.
#[derive(Debug, Default)]
pub struct Builder {
    entries: Vec<Entry>,
    /// The letters of all entries.
    letters: Vec<u8>,
    /// Numbers of labels, as a table has them.
    labels: (u128, u128),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where it comes in the order of all, whichever was added first.
    order: u64,
    /// Where its letters begin.
    at: usize,
    /// Bytes of its letters.
    length: u8,
    /// What is meant.
    reach: u8,
}

impl Entry {
    fn letters(self, all: &[u8]) -> &[u8] {
        all.get(self.at..self.at + usize::from(self.length))
            .unwrap_or_default()
    }
}

impl Builder {
    /// Adds a pattern.
    pub fn add(&mut self, pattern: &DomainPattern) {
        let base = pattern.base();
        let mut reach = match pattern {
            DomainPattern::Exact(_) => ITSELF,
            DomainPattern::Below(_) => BELOW,
            DomainPattern::Within(_) => ITSELF | BELOW,
        };
        let letters = Letters::of(base.as_str());
        let labels = 1 << base.labels().count();
        if reach & ITSELF != 0 {
            self.labels.0 |= labels;
        }
        if reach & BELOW != 0 {
            self.labels.1 |= labels;
            reach |= if is_public_suffix(base) { PUBLIC } else { 0 };
        }
        self.entries.push(Entry {
            order: SipHasher13::new().hash(letters.padded()),
            at: self.letters.len(),
            length: letters.bytes().len() as u8,
            reach,
        });
        self.letters.extend(letters.bytes());
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
    pub fn write(self, path: &Path) -> Result<u64, WriteError> {
        if self.entries.is_empty() {
            return Err(WriteError::Empty);
        }
        let Self {
            mut entries,
            letters,
            labels,
        } = self;
        entries.sort_unstable_by(|one, other| {
            let alike = || one.letters(&letters).cmp(other.letters(&letters));
            let lengths = one.length.cmp(&other.length);
            lengths.then(one.order.cmp(&other.order)).then_with(alike)
        });
        entries.dedup_by(|next, kept| {
            let is_same =
                next.order == kept.order && next.letters(&letters) == kept.letters(&letters);
            if is_same {
                kept.reach |= next.reach;
            }
            is_same
        });
        let names: Vec<Name<'_>> = entries
            .iter()
            .map(|entry| Name {
                letters: entry.letters(&letters),
                reach: entry.reach,
            })
            .collect();
        let table = fill::table(&names, labels, table::FULLEST)?;
        let public = entries.iter().filter(|entry| entry.reach & PUBLIC != 0);
        let count = entries.len() as u64;
        file::write(path, &table, (count, public.count() as u64))?;
        Ok(count)
    }
}

/// Whether anybody can have a name below this one.
fn is_public_suffix(name: &DomainName) -> bool {
    let name = name.as_str().as_bytes();
    psl::suffix(name).is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name)
}
