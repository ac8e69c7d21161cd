//! Finds every pattern that means a name, however many patterns there are.

use crate::model::{DomainName, DomainPattern};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Patterns by the name that they are built on.
///
/// A name is looked up once per label that some pattern is long enough to
/// reach, so the cost does not grow with the number of patterns. Only who writes
/// policies puts names in, so the hash need not withstand chosen collisions.
#[derive(Clone, Debug, Default)]
pub struct NameIndex {
    by_base: HashMap<Box<str>, Vec<Entry>, RandomState>,
    /// Labels of the longest base.
    depth: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    reach: Reach,
    /// Position in the list that the index was made for.
    position: u32,
}

/// How far a pattern reaches from its base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    Exact,
    Below,
    Within,
}

impl NameIndex {
    /// Indexes patterns with their positions in somebody's list.
    pub fn new<'p>(patterns: impl Iterator<Item = (usize, &'p DomainPattern)>) -> Self {
        let mut index = Self {
            by_base: HashMap::with_capacity_and_hasher(
                patterns.size_hint().0,
                RandomState::default(),
            ),
            depth: 0,
        };
        for (position, pattern) in patterns {
            let reach = match pattern {
                DomainPattern::Exact(_) => Reach::Exact,
                DomainPattern::Below(_) => Reach::Below,
                DomainPattern::Within(_) => Reach::Within,
            };
            let base = pattern.base();
            index.depth = index.depth.max(base.labels().count());
            // Files are bounded far below this many rules.
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            let entry = Entry { reach, position };
            match index.by_base.get_mut(base.as_str()) {
                Some(entries) => entries.push(entry),
                None => {
                    index.by_base.insert(base.as_str().into(), vec![entry]);
                }
            }
        }
        index
    }

    /// Positions of the patterns that mean `name`, in ascending order.
    pub fn matching(&self, name: &DomainName) -> Vec<usize> {
        self.find(name, |reach, own| match reach {
            Reach::Exact => own,
            Reach::Below => !own,
            Reach::Within => true,
        })
    }

    /// Whether any pattern means `name`, which must be canonical text. Allocates nothing.
    pub fn means(&self, name: &str) -> bool {
        self.entries(name).any(|(own, entry)| match entry.reach {
            Reach::Exact => own,
            Reach::Below => !own,
            Reach::Within => true,
        })
    }

    /// Positions of the patterns that mean every name that `pattern` means.
    pub fn covering(&self, pattern: &DomainPattern) -> Vec<usize> {
        match pattern {
            DomainPattern::Exact(name) => self.matching(name),
            DomainPattern::Below(name) => self.find(name, |reach, _| reach != Reach::Exact),
            DomainPattern::Within(name) => self.find(name, |reach, own| match reach {
                Reach::Exact => false,
                Reach::Below => !own,
                Reach::Within => true,
            }),
        }
    }

    /// Positions of patterns that just miss `name`: `*.name`, or one that means
    /// only a name above it.
    pub fn near(&self, name: &DomainName) -> Vec<usize> {
        self.find(name, |reach, own| match reach {
            Reach::Exact => !own,
            Reach::Below => own,
            Reach::Within => false,
        })
    }

    /// `wanted` is told how far a pattern reaches, and whether its base is the
    /// name itself and not one above it.
    fn find(&self, name: &DomainName, wanted: impl Fn(Reach, bool) -> bool) -> Vec<usize> {
        let mut found: Vec<usize> = self
            .entries(name.as_str())
            .filter(|(own, entry)| wanted(entry.reach, *own))
            .map(|(_, entry)| entry.position as usize)
            .collect();
        found.sort_unstable();
        found
    }

    /// The entries whose base is the name or above it; whether it is the name itself.
    fn entries<'i>(&'i self, name: &'i str) -> impl Iterator<Item = (bool, &'i Entry)> {
        let letters = name.bytes().enumerate().rev();
        let dots = letters.filter(|(_, letter)| *letter == b'.');
        // From the end, so that labels that no base reaches are not even read.
        dots.map(|(at, _)| at + 1)
            .chain([0])
            .take(self.depth)
            .filter_map(|begin| Some((begin == 0, self.by_base.get(name.get(begin..)?)?)))
            .flat_map(|(own, entries)| entries.iter().map(move |entry| (own, entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::NameIndex;
    use crate::model::{DomainName, DomainPattern};
    use crate::policy::strategies::{name, pattern};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_exactly_what_asking_every_pattern_finds(
            patterns in prop::collection::vec(pattern(), 0..20),
            name in name(),
        ) {
            let index = NameIndex::new(patterns.iter().enumerate());
            let slow: Vec<usize> = patterns.iter().enumerate()
                .filter(|(_, pattern)| pattern.matches(&name)).map(|(at, _)| at).collect();
            prop_assert_eq!(index.matching(&name), slow);
        }

        #[test]
        fn what_covers_a_pattern_means_every_name_of_it(
            patterns in prop::collection::vec(pattern(), 0..20),
            inner in pattern(),
            names in prop::collection::vec(name(), 20),
        ) {
            let index = NameIndex::new(patterns.iter().enumerate());
            for outer in index.covering(&inner) {
                for name in &names {
                    prop_assert!(!inner.matches(name) || patterns[outer].matches(name));
                }
            }
        }
    }

    #[test]
    fn a_million_names_are_indexed_in_seconds() {
        let patterns: Vec<DomainPattern> = (0..1_000_000)
            .map(|n| DomainPattern::parse(&format!("*.h{n}.example.com")).expect("a pattern"))
            .collect();
        let begin = std::time::Instant::now();
        let index = NameIndex::new(patterns.iter().enumerate());
        assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
        let name = DomainName::parse("x.h777777.example.com").expect("a name");
        assert_eq!(index.matching(&name), [777_777]);
    }
}
