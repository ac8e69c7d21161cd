//! Text inside a JSON document, borrowed from it where it can be.

use serde::de::{Deserialize, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// A JSON string. Unlike `Option<Cow<str>>`, which serde always copies, an
/// `Option<Text>` borrows what has no escape in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_escape_is_borrowed_and_what_has_one_is_read() {
        let both: [Option<Text<'_>>; 3] =
            serde_json::from_str(r#"["plain é", "an \"escape\"", null]"#).expect("JSON");
        let [Some(plain), Some(escaped), None] = both else {
            panic!("{both:?}");
        };
        assert!(matches!(plain.0, Cow::Borrowed("plain é")));
        assert_eq!(&*escaped, "an \"escape\"");
        assert!(serde_json::from_str::<Text<'_>>("1").is_err());
    }
}
