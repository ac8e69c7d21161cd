//! Facts about an answer, kept as they are until somebody has time to put them in words.

use egress_common::Reason;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One fact, for the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Note {
    /// In words already.
    Text(Cow<'static, str>),
    /// What was opened.
    Granted(Vec<IpAddr>),
    /// What was taken out of the answer.
    Removed(IpAddr, Reason),
    /// The answer was known for so long.
    Cached(Duration),
    /// Who gave the answer, and in what time.
    Fresh(Arc<str>, Duration),
    /// Who had given it when there still was an answer.
    Stale(Arc<str>),
}

impl From<String> for Note {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&'static str> for Note {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Granted(addresses) => {
                for (at, address) in addresses.iter().enumerate() {
                    let before = if at == 0 { "granted " } else { ", " };
                    write!(f, "{before}{address}")?;
                }
                Ok(())
            }
            Self::Removed(address, reason) => write!(f, "removed {address}: {}", reason.name()),
            Self::Cached(age) => write!(f, "from the cache, {} s old", age.as_secs()),
            Self::Fresh(upstream, took) => {
                write!(f, "from upstream {upstream} in {} ms", took.as_millis())
            }
            Self::Stale(upstream) => write!(
                f,
                "no upstream answers; what {upstream} had said, past its time"
            ),
        }
    }
}

/// All of them, as a record has them; `None` if there are none.
pub(super) fn in_words(notes: &[Note]) -> Option<String> {
    let (first, others) = notes.split_first()?;
    let mut words = first.to_string();
    for note in others {
        words.push_str("; ");
        words.push_str(&note.to_string());
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_told_in_their_order() {
        let address = |text: &str| text.parse().expect("an address");
        let notes = [
            Note::Granted(vec![address("203.0.113.7"), address("2001:db8::1")]),
            Note::Removed(address("10.0.0.1"), Reason::Rebinding),
            Note::Fresh("192.0.2.1:53".into(), Duration::from_micros(2_900)),
            "and nothing else".into(),
        ];
        let words = format!(
            "granted 203.0.113.7, 2001:db8::1; removed 10.0.0.1: {}; from upstream 192.0.2.1:53 in 2 ms; and nothing else",
            Reason::Rebinding.name()
        );
        assert_eq!(in_words(&notes), Some(words));
        assert_eq!(in_words(&[]), None);
        let old = [
            Note::Cached(Duration::from_secs(61)),
            Note::Stale("192.0.2.1:53".into()),
        ];
        assert_eq!(
            in_words(&old).as_deref(),
            Some(
                "from the cache, 61 s old; no upstream answers; what 192.0.2.1:53 had said, past its time"
            )
        );
    }
}
