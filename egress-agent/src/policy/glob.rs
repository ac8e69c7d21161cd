//! Patterns over sandbox names.

use std::fmt;

/// A sandbox name in which `*` stands for any text, also none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Glob(Box<str>);

impl Glob {
    /// Reads a pattern that a sandbox name can match.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '*')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*'));
        fits.then(|| Self(text.into()))
    }

    /// Reads a pattern that the name of a cgroup's directory can match, as systemd and
    /// container engines write such names.
    pub fn parse_cgroup(text: &str) -> Option<Self> {
        let fits = (1..=255).contains(&text.len())
            && !text.starts_with('.')
            && text.chars().all(|c| {
                c.is_ascii_alphanumeric()
                    || matches!(c, '-' | '_' | '.' | '*' | '@' | ':' | '+' | '\\')
            });
        fits.then(|| Self(text.into()))
    }

    /// Whether it is a name and no pattern.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// How much of a name it says: the longer pattern wins.
    pub fn weight(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        // Whether the pattern so far matches each prefix of the name.
        let mut row = vec![false; name.len() + 1];
        row[0] = true;
        for wanted in self.0.bytes() {
            let mut next = vec![false; row.len()];
            for end in 0..row.len() {
                let before = end.checked_sub(1);
                next[end] = if wanted == b'*' {
                    row[end] || before.is_some_and(|before| next[before])
                } else {
                    before.is_some_and(|b| row[b] && name.as_bytes()[b] == wanted)
                };
            }
            row = next;
        }
        row[name.len()]
    }

    /// Whether some name matches both.
    pub fn meets(&self, other: &Self) -> bool {
        let (own, others) = (self.0.as_bytes(), other.0.as_bytes());
        // `met[i][j]`: some text matches the first `i` and the first `j` bytes.
        let mut met = vec![vec![false; others.len() + 1]; own.len() + 1];
        for i in 0..=own.len() {
            for j in 0..=others.len() {
                let (a, b) = (i.checked_sub(1), j.checked_sub(1));
                let (star_a, star_b) = (
                    a.is_some_and(|a| own[a] == b'*'),
                    b.is_some_and(|b| others[b] == b'*'),
                );
                met[i][j] = (i, j) == (0, 0)
                    || (star_a && (met[i - 1][j] || (j > 0 && met[i][j - 1])))
                    || (star_b && (met[i][j - 1] || (i > 0 && met[i - 1][j])))
                    || a.zip(b)
                        .is_some_and(|(a, b)| own[a] == others[b] && met[a][b]);
            }
        }
        met[own.len()][others.len()]
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;
    use proptest::prelude::*;

    fn glob(text: &str) -> Glob {
        Glob::parse(text).expect("a pattern")
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, matches) in [
            ("ci-*", "ci-build", true),
            ("ci-*", "ci-", true),
            ("ci-*", "xci-a", false),
            ("*-build", "ci-build", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ci", "ci-build", false),
        ] {
            assert_eq!(glob(pattern).matches(name), matches, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn patterns_that_share_a_name_meet(a in "[ab*]{1,5}", b in "[ab*]{1,5}", name in "[ab]{1,6}") {
            let (a, b) = (glob(&a), glob(&b));
            prop_assert_eq!(a.meets(&b), b.meets(&a));
            prop_assert!(!(a.matches(&name) && b.matches(&name)) || a.meets(&b));
        }

        #[test]
        fn a_name_meets_exactly_the_patterns_that_match_it(a in "[ab*]{1,5}", name in "[ab]{1,6}") {
            prop_assert_eq!(glob(&a).meets(&glob(&name)), glob(&a).matches(&name));
        }
    }
}
