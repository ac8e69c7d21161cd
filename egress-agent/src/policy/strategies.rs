//! Names and patterns for tests of whatever looks them up.

use crate::model::{DomainName, DomainPattern};
use proptest::prelude::*;

fn label() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "com"]).prop_map(str::to_owned)
}

/// A name of few labels, so that many are below each other.
pub(super) fn name() -> impl Strategy<Value = DomainName> {
    prop::collection::vec(label(), 1..5)
        .prop_map(|labels| DomainName::parse(&labels.join(".")).expect("a name"))
}

/// A pattern of any kind over such a name.
pub(super) fn pattern() -> impl Strategy<Value = DomainPattern> {
    (name(), 0..3_u8).prop_map(|(name, kind)| match kind {
        0 => DomainPattern::Exact(name),
        1 => DomainPattern::Below(name),
        _ => DomainPattern::Within(name),
    })
}
