//! The table of a list: where it is asked, and what it looks like in a file.
//!
//! | bytes | hold |
//! |---|---|
//! | 0..16 | the key of the hash |
//! | 16..32 | how many labels the entries have that mean their own name: bit *n* for *n* labels |
//! | 32..48 | the same of entries that mean names below them |
//! | 48..388 | how many names there are of each length, from 1 to 85 words: 32 bits each |
//! | *b* | which name is the first of each cell, and how many names there are: 32 bits each |
//! | *p* | eight bits of each name's hash, its print |
//! | *r* | each name: what is meant, one byte, and its letters |
//!
//! A word is three letters in 16 bits (see [`Letters`]), and every number is little
//! endian. Names stand in the order of their lengths; those of one length are
//! divided by their hash into cells of [`USUAL`] names in the middle. So a name's
//! length and hash lead to a few prints, and a print to one record, which is found by
//! counting, since records of one length are equally long.
//!
//! What a question reads before it reads a record, a byte and a quarter for each
//! name, stays in a processor's cache. Beyond it a record is one step into memory,
//! and for most names that are in no list there is none.
//!
//! A name is asked for at most once for each number of labels that entries have.
//! A cell has at most [`FULLEST`] names, so whoever chooses names, in a list or in a
//! question, cannot make an answer slow. Letters are compared, so two names with one
//! hash are never taken for each other.

use super::letters::{BOUND, Letters, WORDS};
use super::{BELOW, ITSELF};
use siphasher::sip::SipHasher13;

/// Bytes before the numbers of names.
pub(super) const COUNTS_AT: usize = 48;
/// Bytes before the beginnings of the cells.
const CELLS_AT: usize = COUNTS_AT + WORDS * 4;
/// The most names of a cell.
pub(super) const FULLEST: usize = 128;
/// How many names a cell has in the middle.
pub(super) const USUAL: usize = 16;

/// Prints that are looked at together: those of a cell, but for one in thousands.
const BLOCK: usize = 32;

/// How many cells so many names of one length have.
pub(super) fn cells(names: usize) -> usize {
    names.div_ceil(USUAL)
}

/// Where a name belongs among those of its length.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Which cell.
    pub(super) cell: usize,
    /// Its print.
    pub(super) print: u8,
}

impl Place {
    /// Where these letters belong in so many cells.
    #[inline]
    pub(super) fn of(letters: &Letters, sip: &SipHasher13, cells: usize) -> Self {
        let hash = sip.hash(letters.padded());
        let cell = (u128::from(hash) * cells as u128) >> 64;
        Self {
            cell: cell as usize,
            // The upper bits chose the cell.
            print: hash as u8,
        }
    }
}

/// The names of one length.
#[derive(Clone, Copy, Default)]
struct Class {
    /// How many words they have.
    words: usize,
    first_cell: usize,
    cells: usize,
    first_name: usize,
    names: usize,
    /// Where their records begin.
    records_at: usize,
}

impl Class {
    fn record(&self) -> usize {
        self.words * 2 + 1
    }
}

/// A table in these bytes.
pub(super) struct Table<B> {
    bytes: B,
    sip: SipHasher13,
    itself: u128,
    below: u128,
    classes: Box<[Class; WORDS]>,
    /// Where the prints begin.
    prints_at: usize,
    names: usize,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Takes bytes for a table if they are as many as one has.
    pub(super) fn new(bytes: B) -> Option<Self> {
        let (key, rest) = bytes.as_ref().split_first_chunk::<16>()?;
        let (itself, rest) = rest.split_first_chunk::<16>()?;
        let (below, rest) = rest.split_first_chunk::<16>()?;
        let (counts, _) = rest.split_at_checked(WORDS * 4)?;
        let mut classes = Box::new([Class::default(); WORDS]);
        let (mut all_cells, mut names) = (0, 0);
        for ((class, count), words) in classes.iter_mut().zip(counts.as_chunks::<4>().0).zip(1..) {
            let count = u32::from_le_bytes(*count) as usize;
            *class = Class {
                words,
                first_cell: all_cells,
                cells: cells(count),
                first_name: names,
                names: count,
                records_at: 0,
            };
            all_cells += class.cells;
            names += count;
        }
        // Each of these numbers has 32 bits and there are 85, so nothing overflows.
        let prints_at = CELLS_AT + (all_cells + 1) * 4;
        let mut end = prints_at + names;
        for class in classes.iter_mut() {
            class.records_at = end;
            end += class.names * class.record();
        }
        let (key, itself, below) = (*key, *itself, *below);
        (end == bytes.as_ref().len()).then(|| Self {
            bytes,
            sip: SipHasher13::new_with_key(&key),
            itself: u128::from_le_bytes(itself),
            below: u128::from_le_bytes(below),
            classes,
            prints_at,
            names,
        })
    }

    /// How many names there are, if all cells and records are sound.
    pub(super) fn verified(&self) -> Option<u64> {
        let mut end = 0;
        for class in self.classes.iter() {
            if end != class.first_name {
                return None;
            }
            for cell in class.first_cell..class.first_cell + class.cells {
                if self.first_name(cell)? != end {
                    return None;
                }
                end = self.first_name(cell + 1)?;
                // Less than the beginning is more than the fullest.
                if end.wrapping_sub(self.first_name(cell)?) > FULLEST {
                    return None;
                }
            }
            let records = self.bytes.as_ref().get(class.records_at..)?;
            let records = records.get(..class.names * class.record())?;
            let is_sound = |record: &[u8]| {
                let Some((reach, letters)) = record.split_first() else {
                    return false;
                };
                let words = letters.as_chunks::<2>().0;
                matches!(*reach, 1..=3)
                    && words.iter().all(|word| u16::from_le_bytes(*word) < BOUND)
            };
            if !records.chunks_exact(class.record()).all(is_sound) {
                return None;
            }
        }
        let all_cells = (self.prints_at - CELLS_AT) / 4 - 1;
        let last = self.first_name(all_cells)?;
        (end == self.names && last == self.names).then_some(self.names as u64)
    }

    /// How many labels stand before the entry that means a name, in canonical text:
    /// its own entry before one above it, and of those the nearest.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let mut letters = Letters::of(name);
        let labels = 1 + name.bytes().filter(|letter| *letter == b'.').count();
        if letters.is_whole() && has(self.itself, labels) && self.reach(&letters) & ITSELF != 0 {
            return Some(0);
        }
        if self.below == 0 {
            return None;
        }
        let dots = name
            .bytes()
            .enumerate()
            .filter(|(_, letter)| *letter == b'.');
        for ((at, _), before) in dots.zip(1..) {
            let behind = name.len() - at - 1;
            if has(self.below, labels - before) && behind <= letters.count() {
                letters.keep(behind);
                if self.reach(&letters) & BELOW != 0 {
                    return Some(before);
                }
            }
        }
        None
    }

    /// What the entry of exactly these letters means; 0 if there is none.
    #[inline]
    fn reach(&self, letters: &Letters) -> u8 {
        self.entry(letters).unwrap_or(0)
    }

    #[inline]
    fn entry(&self, letters: &Letters) -> Option<u8> {
        let bytes = letters.bytes();
        let class = self.classes.get((bytes.len() / 2).checked_sub(1)?)?;
        // What stands where its cells would begin is of longer names.
        if class.cells == 0 {
            return None;
        }
        let place = Place::of(letters, &self.sip, class.cells);
        let cell = class.first_cell + place.cell;
        let (first, end) = (self.first_name(cell)?, self.first_name(cell + 1)?);
        let prints = self.bytes.as_ref().get(self.prints_at + first..)?;
        let count = end.checked_sub(first)?;
        match prints.first_chunk::<BLOCK>() {
            Some(block) if count <= BLOCK => {
                let mut alike = alike(block, place.print) & ((1_u64 << count) - 1);
                while alike != 0 {
                    let name = first + alike.trailing_zeros() as usize;
                    if let Some(reach) = self.record(class, name, bytes) {
                        return Some(reach);
                    }
                    alike &= alike - 1;
                }
                None
            }
            _ => {
                let names = prints.get(..count)?.iter().zip(first..);
                let mut alike = names.filter(|(print, _)| **print == place.print);
                alike.find_map(|(_, name)| self.record(class, name, bytes))
            }
        }
    }

    /// What a name means if these are its letters.
    #[inline]
    fn record(&self, class: &Class, name: usize, letters: &[u8]) -> Option<u8> {
        let at = class.records_at + name.checked_sub(class.first_name)? * class.record();
        let record = self.bytes.as_ref().get(at..at + class.record())?;
        let (reach, own) = record.split_first()?;
        (own == letters).then_some(*reach)
    }

    /// The first name of a cell.
    #[inline]
    fn first_name(&self, cell: usize) -> Option<usize> {
        let at = CELLS_AT + cell * 4;
        let number = self.bytes.as_ref().get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*number) as usize)
    }

    /// How many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.bytes.as_ref().len()
    }
}

/// Which bytes are a certain one, as bits. Without a branch: a processor that guesses
/// wrong here could not already work on what comes next while it waits for a record.
#[inline]
fn alike(prints: &[u8; BLOCK], print: u8) -> u64 {
    const UPPER: u64 = 0x8080_8080_8080_8080;
    let wanted = u64::from_le_bytes([print; 8]);
    let eights = prints.as_chunks::<8>().0.iter().rev();
    eights.fold(0, |all, eight| {
        let other = u64::from_le_bytes(*eight) ^ wanted;
        // The upper bit of each byte says whether any bit of it is set.
        let differs = ((other & !UPPER) + !UPPER) | other;
        let same = (!differs & UPPER) >> 7;
        // Brings the bit of each byte into the last byte, side by side.
        all << 8 | same.wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

/// Whether a set has names with that many labels.
fn has(set: u128, labels: usize) -> bool {
    // No name has more than 127.
    labels < 128 && set >> labels & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_byte_that_is_wanted_is_a_bit(
            prints in prop::array::uniform32(prop::sample::select(vec![0_u8, 1, 2, 127, 128, 129, 255])),
            print in prop::sample::select(vec![0_u8, 1, 127, 128, 255]),
        ) {
            let bits = alike(&prints, print);
            for (at, own) in prints.iter().enumerate() {
                prop_assert_eq!(bits >> at & 1 == 1, *own == print, "{}", at);
            }
            prop_assert_eq!(bits >> BLOCK, 0);
        }
    }
}
