//! Domain names in their one canonical form, and patterns over them.

use std::fmt;

/// The longest name in text form without the final dot (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A domain name in canonical form: lower-case A-labels, no trailing dot.
///
/// Two spellings of one name are equal here, and nothing else is: every
/// decision about names compares values of this type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DomainName(Box<str>);

/// Why text is not a domain name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Nothing was given, or only a dot.
    #[error("the name is empty")]
    Empty,
    /// Longer than DNS can carry.
    #[error("the name is {0} bytes long; DNS allows {MAX_NAME}")]
    TooLong(usize),
    /// Two dots in a row, or a dot at the start.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// One label is longer than DNS can carry.
    #[error("the label `{0}` is longer than {MAX_LABEL} bytes")]
    LabelTooLong(String),
    /// A character that no host name has.
    #[error("`{character}` cannot stand in a domain name")]
    Character {
        /// The first offending character.
        character: char,
    },
    /// An international name that IDNA (UTS 46) does not accept.
    #[error("`{0}` is not a valid international domain name")]
    International(String),
    /// An address where a name is wanted.
    #[error("`{0}` is an address, not a name; use `cidr:` for addresses")]
    Address(String),
    /// A `*` that is not a whole first label.
    #[error("`*` may only stand as the first label: `*.example.com` or `**.example.com`")]
    Wildcard,
}

impl DomainName {
    /// Reads a name that a person wrote or a client asked for. Upper case, one
    /// trailing dot and international letters are brought to canonical form;
    /// what could be an address in any spelling that resolvers accept is not a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() {
            return Err(NameError::Empty);
        }
        let ascii = if bare.is_ascii() {
            bare.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(bare)
                .map_err(|_| NameError::International(bare.to_owned()))?
        };
        Self::from_lowercase(ascii)
    }

    /// Reads a name that is in ASCII and in lower case already, without a trailing dot.
    /// Anything else is an error.
    pub fn from_lowercase(text: String) -> Result<Self, NameError> {
        if is_ordinary(text.as_bytes()) {
            return Ok(Self(text.into_boxed_str()));
        }
        Self::from_unusual(text)
    }

    /// As [`DomainName::from_lowercase`], and says what is wrong.
    fn from_unusual(text: String) -> Result<Self, NameError> {
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong(text.len()));
        }
        for label in text.split('.') {
            if label.is_empty() {
                return Err(NameError::EmptyLabel);
            }
            if label.len() > MAX_LABEL {
                return Err(NameError::LabelTooLong(label.to_owned()));
            }
            if let Some(character) = label.chars().find(|c| !is_name_character(*c)) {
                return Err(if character == '*' {
                    NameError::Wildcard
                } else {
                    NameError::Character { character }
                });
            }
        }
        if text.rsplit('.').next().is_some_and(looks_numeric) {
            return Err(NameError::Address(text));
        }
        Ok(Self(text.into_boxed_str()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, first to last.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('.')
    }

    /// This name and each name above it, longest first:
    /// `a.b.c` gives `a.b.c`, `b.c`, `c`.
    pub fn suffixes(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(&*self.0), |rest| {
            rest.split_once('.').map(|(_, up)| up)
        })
    }

    /// Whether this is `above` or a name below it; label boundaries count.
    pub fn is_within(&self, above: &Self) -> bool {
        self.0
            .strip_suffix(above.as_str())
            .is_some_and(|head| head.is_empty() || head.ends_with('.'))
    }
}

/// Whether text can name a view: a set of upstreams that some policies ask.
pub fn is_view_name(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.len()) && text.chars().all(is_fit)
}

/// Whether it is a name whose last label begins with a letter other than those that numbers
/// begin with: nearly every name, found out in one pass.
fn is_ordinary(text: &[u8]) -> bool {
    let mut length = 0;
    for byte in text {
        if *byte == b'.' {
            if length == 0 {
                return false;
            }
            length = 0;
        } else if length < MAX_LABEL && is_name_character(char::from(*byte)) {
            length += 1;
        } else {
            return false;
        }
    }
    let last = text.len().checked_sub(length).and_then(|at| text.get(at));
    text.len() <= MAX_NAME && length > 0 && last.is_some_and(u8::is_ascii_lowercase)
}

/// Letters, digits, hyphen (RFC 952, RFC 1123) and underscore, which service
/// names use (RFC 8552).
fn is_name_character(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '_')
}

/// A last label that `inet_aton` would read as a number makes the whole name an
/// address for some clients (WHATWG URL, "ends in a number").
fn looks_numeric(label: &str) -> bool {
    let digits = label
        .strip_prefix("0x")
        .map(|hex| (hex, 16))
        .unwrap_or((label, 10));
    match digits {
        (hex, 16) => hex.chars().all(|c| c.is_ascii_hexdigit()),
        (decimal, _) => decimal.chars().all(|c| c.is_ascii_digit()),
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which names a rule means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DomainPattern {
    /// `example.com`: that name only.
    Exact(DomainName),
    /// `*.example.com`: every name below it at any depth, not itself.
    Below(DomainName),
    /// `**.example.com`: itself and every name below it.
    Within(DomainName),
}

impl DomainPattern {
    /// Reads one of the three spellings.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Some(rest) = text.strip_prefix("**.") {
            DomainName::parse(rest).map(Self::Within)
        } else if let Some(rest) = text.strip_prefix("*.") {
            DomainName::parse(rest).map(Self::Below)
        } else {
            DomainName::parse(text).map(Self::Exact)
        }
    }

    /// Whether the pattern means `name`.
    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Below(own) => own != name && name.is_within(own),
            Self::Within(own) => name.is_within(own),
        }
    }

    /// The name without the wildcard.
    pub fn base(&self) -> &DomainName {
        match self {
            Self::Exact(name) | Self::Below(name) | Self::Within(name) => name,
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Within(name) => write!(f, "**.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect("a name")
    }

    #[test]
    fn spellings_of_one_name_are_equal() {
        assert_eq!(name("Example.COM."), name("example.com"));
        assert_eq!(name("bücher.example"), name("xn--bcher-kva.example"));
    }

    #[test]
    fn addresses_in_any_spelling_are_not_names() {
        for text in [
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "0x7f000001",
            "127.1",
            "0177.0.0.01.",
        ] {
            assert!(
                matches!(DomainName::parse(text), Err(NameError::Address(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_dns_cannot_carry_or_hides_something_is_refused() {
        for text in [
            "", ".", "a..b", ".a", "a b", "a\0b", "a%2eb", "[::1]", "a/b", "a\\.b",
        ] {
            assert!(DomainName::parse(text).is_err(), "{text:?}");
        }
        assert!(DomainName::parse(&"a".repeat(64)).is_err());
        assert!(DomainName::parse(&["a"; 130].join(".")).is_err());
    }

    #[test]
    fn the_three_spellings_differ_at_the_apex_and_at_label_boundaries() {
        let pattern = |text: &str| DomainPattern::parse(text).expect("a pattern");
        let (apex, below, deep, other) = (
            name("example.com"),
            name("a.example.com"),
            name("b.a.example.com"),
            name("badexample.com"),
        );
        let verdicts =
            |text: &str| [&apex, &below, &deep, &other].map(|n| pattern(text).matches(n));
        assert_eq!(verdicts("example.com"), [true, false, false, false]);
        assert_eq!(verdicts("*.example.com"), [false, true, true, false]);
        assert_eq!(verdicts("**.example.com"), [true, true, true, false]);
    }

    #[test]
    fn a_star_inside_a_name_is_refused() {
        for text in ["a.*.com", "*", "**", "*a.com", "*.*.com", "***.a.com"] {
            assert!(DomainPattern::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_for_ordinary_is_what_every_check_lets_pass(
            text in "([a-z0-9_-]{1,4}\\.){0,3}(0x|[a-zA-Z0-9._*-]){0,66}|([a-z]{62,64}\\.){3}[a-z]{59,64}"
        ) {
            let checked = DomainName::from_unusual(text.clone());
            if is_ordinary(text.as_bytes()) {
                prop_assert_eq!(checked, Ok(DomainName(text.into())));
            } else if let Ok(name) = checked {
                let last = name.labels().next_back().unwrap_or_default();
                prop_assert!(!last.starts_with(|c: char| c.is_ascii_lowercase()), "{}", text);
            }
        }
    }
}
