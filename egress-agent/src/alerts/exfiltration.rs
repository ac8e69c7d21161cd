//! What looks like data on its way out past the rules.

use crate::model::Record;
use egress_common::{Outcome, Reason};

/// What a record adds to the suspicion against its sandbox: 0 for ordinary
/// traffic, and for a sandbox that is only not allowed something.
pub(super) fn suspicion(record: &Record) -> Option<(&'static str, u64)> {
    if let Some(reason) = record.reason
        && record.outcome != Some(Outcome::Allowed)
        && let Some(what) = attack(reason)
    {
        return Some((what, record.count));
    }
    let name = record.name.as_deref()?;
    (record.query_type.is_some() && carries_data(name)).then_some((
        "names that carry data",
        // One query with such a name is one piece of data.
        record.count,
    ))
}

/// Refusals that no program meets by mistake. Others, such as an option that a
/// library tries or a name that leads into a private range, ordinary programs
/// meet too.
fn attack(reason: Reason) -> Option<&'static str> {
    const ATTACKS: [(Reason, &str); 3] = [
        (Reason::Unparsable, "packets that are not plain TCP or UDP"),
        (Reason::ForeignSocket, "sockets of another sandbox"),
        (Reason::Misrouted, "loopback addresses on a real device"),
    ];
    ATTACKS
        .iter()
        .find(|(known, _)| *known == reason)
        .map(|(_, what)| *what)
}

/// Whether a name looks like an encoding of something: a long label with the
/// variety of encoded bytes, or labels that are long together. Names of content
/// networks and of mail keys stay below.
pub fn carries_data(name: &str) -> bool {
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
    // The last two belong to whoever receives it.
    let Some(carrying) = labels
        .len()
        .checked_sub(2)
        .and_then(|end| labels.get(..end))
    else {
        return false;
    };
    let total: usize = carrying.iter().map(|label| label.len()).sum();
    total >= 100
        || carrying
            .iter()
            .any(|label| label.len() >= 30 && entropy(label) >= encoded(label))
}

/// The variety from which on a long label is taken for encoded bytes. Hexadecimal
/// digits have less of it than other encodings: four bits at most.
fn encoded(label: &str) -> f64 {
    if label.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        2.0
    } else {
        3.5
    }
}

/// Bits per character of a text.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        counts[usize::from(byte.to_ascii_lowercase())] += 1;
    }
    let length = text.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / length;
            -share * share.log2()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_data_in_names_is_told_from_names() {
        for name in [
            "mzxw6ytboi2gk3tfnzqxg5dsnfxgo4tfmfzxi.t.example.com",
            "4a6f686e20446f652c2034313131313131313131313131.x.example.com",
            &format!("{}.{}.example.com", "ab".repeat(30), "cd".repeat(30)),
        ] {
            assert!(carries_data(name), "{name}");
        }
        for name in [
            "example.com",
            "api.example.com",
            "d111111abcdef8.cloudfront.example.net",
            "ec2-203-0-113-25.compute-1.example.com",
            "selector1._domainkey.example.com",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example.com",
            "com",
            "",
        ] {
            assert!(!carries_data(name), "{name}");
        }
    }
}
