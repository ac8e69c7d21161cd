//! Names as they stand in a list: three letters in two bytes, from the last letter
//! to the first.
//!
//! What names above a name are made of is then a beginning of what the name is made
//! of, except for the two bytes in which they end: one pass over a name packs all
//! names above it.

/// Letters of the longest name.
const LONGEST: usize = 253;
/// Words of the longest name.
pub(super) const WORDS: usize = LONGEST.div_ceil(3);
/// Hashed are as many bytes as a multiple of this: most names have one length then,
/// which a processor foresees.
const STEP: usize = 16;
const BYTES: usize = (WORDS * 2).next_multiple_of(STEP);
/// How many letters there are, with the one that stands for none.
const ALPHABET: u16 = 40;
/// Two bytes hold less than this.
pub(super) const BOUND: u16 = ALPHABET * ALPHABET * ALPHABET;

/// The numbers of the letters that names have; 0 for what they do not have.
const NUMBERS: [u8; 256] = {
    let mut numbers = [0; 256];
    let letters = b".-_0123456789abcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    while at < letters.len() {
        numbers[letters[at] as usize] = at as u8 + 1;
        at += 1;
    }
    numbers
};

/// A name, packed. Of text that is no name, what stands behind the last letter that
/// no name has, and no more than the longest name has.
pub(super) struct Letters {
    bytes: [u8; BYTES],
    count: usize,
    is_whole: bool,
}

impl Letters {
    /// Packs a name in canonical text.
    #[inline]
    pub(super) fn of(name: &str) -> Self {
        let all = name.as_bytes();
        let end = all.get(all.len().saturating_sub(LONGEST)..);
        let end = end.unwrap_or_default();
        let mut packed = Self {
            bytes: [0; BYTES],
            count: end.len(),
            is_whole: end.len() == all.len(),
        };
        if packed.pack(end) {
            packed
        } else {
            Self::behind_foreign(end)
        }
    }

    #[cold]
    fn behind_foreign(text: &[u8]) -> Self {
        let foreign = text.iter().rposition(|letter| number(*letter) == 0);
        let behind = foreign.and_then(|at| text.get(at + 1..));
        let behind = behind.unwrap_or_default();
        let mut packed = Self {
            bytes: [0; BYTES],
            count: behind.len(),
            is_whole: false,
        };
        packed.pack(behind);
        packed
    }

    /// Whether they are letters of names; if not, what was packed means nothing.
    #[inline]
    fn pack(&mut self, letters: &[u8]) -> bool {
        let mut are_known = true;
        let (first, threes) = letters.as_rchunks::<3>();
        let mut places = self.bytes.as_chunks_mut::<2>().0.iter_mut();
        for ([third, second, first], place) in threes.iter().rev().zip(&mut places) {
            let (one, two, three) = (number(*first), number(*second), number(*third));
            are_known &= one != 0 && two != 0 && three != 0;
            let word = (one * ALPHABET + two) * ALPHABET + three;
            *place = word.to_le_bytes();
        }
        if let (Some(place), [rest @ .., last]) = (places.next(), first) {
            let (one, two) = (number(*last), rest.first().map(|letter| number(*letter)));
            are_known &= one != 0 && two != Some(0);
            let word = (one * ALPHABET + two.unwrap_or(0)) * ALPHABET;
            *place = word.to_le_bytes();
        }
        are_known
    }

    /// Whether nothing of the text is left out.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How many letters are packed.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The bytes of what is packed.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length()).unwrap_or_default()
    }

    /// What is hashed of it: the same with zeros behind it, which no name has.
    pub(super) fn padded(&self) -> &[u8] {
        let length = self.length().next_multiple_of(STEP);
        self.bytes.get(..length).unwrap_or_default()
    }

    fn length(&self) -> usize {
        self.count.div_ceil(3) * 2
    }

    /// Forgets all but the last letters.
    pub(super) fn keep(&mut self, count: usize) {
        let before = self.length();
        self.count = self.count.min(count);
        let after = self.length();
        if let Some(forgotten) = self.bytes.get_mut(after..before) {
            forgotten.fill(0);
        }
        let unit = match self.count % 3 {
            1 => ALPHABET * ALPHABET,
            2 => ALPHABET,
            _ => return,
        };
        let words = self.bytes.as_chunks_mut::<2>().0;
        if let Some(word) = words.get_mut(self.count / 3) {
            let number = u16::from_le_bytes(*word);
            *word = (number - number % unit).to_le_bytes();
        }
    }
}

/// What is packed, from a list.
impl From<&[u8]> for Letters {
    fn from(packed: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        for (to, from) in bytes.iter_mut().zip(packed) {
            *to = *from;
        }
        Self {
            bytes,
            // Where fewer stand in the last word there are as many bytes.
            count: packed.len() / 2 * 3,
            is_whole: true,
        }
    }
}

#[inline]
fn number(letter: u8) -> u16 {
    u16::from(NUMBERS.get(usize::from(letter)).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_above_is_packed_as_by_itself(name in "[a-z0-9_-]{1,9}(\\.[a-z0-9_-]{1,9}){0,5}") {
            let mut below = Letters::of(&name);
            prop_assert!(below.is_whole());
            for (at, _) in name.match_indices('.') {
                let above = &name[at + 1..];
                below.keep(above.len());
                let alone = Letters::of(above);
                prop_assert_eq!(below.bytes(), alone.bytes());
                prop_assert_eq!(below.padded(), alone.padded());
                let again = Letters::from(below.bytes());
                prop_assert_eq!(again.padded(), alone.padded());
            }
        }

        #[test]
        fn two_names_are_never_packed_alike(one in "[ab.]{1,7}", other in "[ab.]{1,7}") {
            prop_assert_eq!(one == other, Letters::of(&one).bytes() == Letters::of(&other).bytes());
        }
    }

    #[test]
    fn what_no_name_has_ends_it() {
        let longest = "a".repeat(LONGEST);
        assert!(Letters::of(&longest).is_whole());
        for (text, count) in [
            ("aB.c", 2),
            ("é.cd", 3),
            ("*", 0),
            (&*format!("b{longest}"), LONGEST),
            (&*format!("bbbbb{longest}"), LONGEST),
        ] {
            let packed = Letters::of(text);
            assert!(!packed.is_whole(), "{text}");
            assert_eq!(packed.count(), count, "{text}");
            let kept = Letters::of(&text[text.len() - count..]);
            assert_eq!(packed.padded(), kept.padded(), "{text}");
        }
        assert!(Letters::of("").bytes().is_empty());
    }
}
