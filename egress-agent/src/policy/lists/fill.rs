//! From names to a table.

use super::error::WriteError;
use super::letters::{Letters, WORDS};
use super::table::Place;
use super::{BELOW, ITSELF, table};
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

/// How many keys are tried. One is enough: with a key that nobody could know, a cell
/// that is too full is less likely than a defect of the machine.
const KEYS: u8 = 16;

/// A name of a table.
pub(super) struct Name<'n> {
    /// See [`Letters`].
    pub(super) letters: &'n [u8],
    /// What is meant.
    pub(super) reach: u8,
}

/// Makes a table of distinct names in the order of their lengths; `labels` are the
/// numbers of labels of those that mean themselves and of those that mean names below
/// them.
///
/// The same names in the same order make the same table.
pub(super) fn table(
    names: &[Name<'_>],
    labels: (u128, u128),
    fullest: usize,
) -> Result<Vec<u8>, WriteError> {
    if u32::try_from(names.len()).is_err() {
        return Err(WriteError::TooMany);
    }
    let digest = digest(names);
    let (key, spread) = (0..KEYS)
        .find_map(|attempt| {
            let key = key(digest, attempt);
            Some((key, Spread::new(names, key, fullest)?))
        })
        .ok_or(WriteError::Crowded)?;
    let letters: usize = names.iter().map(|name| name.letters.len()).sum();
    let about = letters + names.len() * 3 + table::COUNTS_AT;
    let mut bytes = Vec::with_capacity(about);
    bytes.extend(key);
    bytes.extend(labels.0.to_le_bytes());
    bytes.extend(labels.1.to_le_bytes());
    // That all names are counted in 32 bits was asked first.
    for count in spread.counts {
        bytes.extend((count as u32).to_le_bytes());
    }
    for first in &spread.cells {
        bytes.extend((*first as u32).to_le_bytes());
    }
    bytes.extend(spread.names.iter().map(|(place, _)| place.print));
    for (_, name) in &spread.names {
        bytes.push(name.reach & (ITSELF | BELOW));
        bytes.extend(name.letters);
    }
    Ok(bytes)
}

/// Names in the order in which a table has them.
struct Spread<'n> {
    names: Vec<(Place, &'n Name<'n>)>,
    /// The first name of each cell, and how many names there are.
    cells: Vec<usize>,
    /// How many names there are of each length.
    counts: [usize; WORDS],
}

impl<'n> Spread<'n> {
    /// `None` if a cell would be too full.
    fn new(names: &'n [Name<'n>], key: [u8; 16], fullest: usize) -> Option<Self> {
        let sip = SipHasher13::new_with_key(&key);
        let mut spread = Self {
            names: Vec::with_capacity(names.len()),
            cells: Vec::with_capacity(table::cells(names.len()) + WORDS),
            counts: [0; WORDS],
        };
        for alike in names.chunk_by(|one, other| one.letters.len() == other.letters.len()) {
            let words = alike.first().map_or(0, |name| name.letters.len() / 2);
            if let Some(count) = spread.counts.get_mut(words.checked_sub(1)?) {
                *count = alike.len();
            }
            let cells = table::cells(alike.len());
            let begin = spread.names.len();
            spread.names.extend(alike.iter().map(|name| {
                let letters = Letters::from(name.letters);
                (Place::of(&letters, &sip, cells), name)
            }));
            let placed = spread.names.get_mut(begin..)?;
            // Stable, so that the order of the names alone decides about the table.
            placed.sort_by_key(|(place, _)| place.cell);
            let mut first = 0;
            for cell in 0..cells {
                spread.cells.push(begin + first);
                let here = placed.iter().skip(first);
                let count = here.take_while(|(place, _)| place.cell == cell).count();
                if count > fullest {
                    return None;
                }
                first += count;
            }
        }
        spread.cells.push(spread.names.len());
        Some(spread)
    }
}

/// A digest of all names.
fn digest(names: &[Name<'_>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for name in names {
        hash.update([name.letters.len() as u8]);
        hash.update(name.letters);
    }
    hash.finalize().into()
}

/// A key that follows from all names together: whoever chooses some of them so that
/// they meet in one cell has by that chosen another key.
fn key(digest: [u8; 32], attempt: u8) -> [u8; 16] {
    let hash = Sha256::new().chain_update(digest).chain_update([attempt]);
    let hash: [u8; 32] = hash.finalize().into();
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(hash) {
        *to = from;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::super::table::{FULLEST, Table};
    use super::*;

    #[test]
    fn a_cell_is_never_fuller_than_it_may_be() {
        let packed: Vec<Vec<u8>> = (0..1000)
            .map(|n| Letters::of(&format!("n{n:03}.example")).bytes().to_vec())
            .collect();
        let names: Vec<Name<'_>> = packed
            .iter()
            .map(|letters| Name {
                letters,
                reach: ITSELF,
            })
            .collect();
        let made = table(&names, (1 << 2, 0), FULLEST).expect("spread");
        assert_eq!(made, table(&names, (1 << 2, 0), FULLEST).expect("again"));
        let found = Table::new(made).expect("a table");
        assert_eq!(found.verified(), Some(1000));
        let crowded = table(&names, (1 << 2, 0), table::USUAL);
        assert!(matches!(crowded, Err(WriteError::Crowded)));
    }

    #[test]
    fn the_end_of_a_name_is_not_taken_for_a_shorter_one() {
        let end = "xexample.com";
        // Each list has a key of its own, so a print is met by chance in some of them.
        for number in 0..2000 {
            let longer = format!("{number:04}ab{end}");
            let packed = Letters::of(&longer).bytes().to_vec();
            let names = [Name {
                letters: &packed,
                reach: ITSELF,
            }];
            let made = table(&names, (1 << 2, 0), FULLEST).expect("spread");
            let found = Table::new(made).expect("a table");
            assert_eq!(found.find(&longer), Some(0));
            assert_eq!(found.find(end), None, "in the list of {longer}");
        }
    }

    #[test]
    fn each_set_of_names_and_each_attempt_has_a_key_of_its_own() {
        let one = digest(&[Name {
            letters: &[1, 2, 3, 4],
            reach: ITSELF,
        }]);
        let two = digest(&[
            Name {
                letters: &[1, 2],
                reach: ITSELF,
            },
            Name {
                letters: &[3, 4],
                reach: ITSELF,
            },
        ]);
        let keys = [key(one, 0), key(one, 1), key(two, 0), key(two, 1)];
        for (at, own) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(own), "{at}");
        }
    }
}
