//! Finds what a person may have meant.

/// The candidate closest to `text`, if it is close enough to be a typing error.
pub fn closest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A key of the language is short; a long text is no typing error, and the
    // distance costs the product of both lengths.
    if text.len() > 40 {
        return None;
    }
    let bound = text.chars().count().div_ceil(3);
    candidates
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, remove, replace) that lead from one text to the other, case aside.
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.to_lowercase(), to.to_lowercase());
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            *cell = replaced.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("ports", "ports"), 0);
        assert_eq!(distance("port", "ports"), 1);
        assert_eq!(distance("prots", "ports"), 2);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn only_typing_errors_are_guessed() {
        let keys = || ["domain", "ports", "protocols"].into_iter();
        assert_eq!(closest("domian", keys()), Some("domain"));
        assert_eq!(closest("protocol", keys()), Some("protocols"));
        assert_eq!(closest("prots", keys()), Some("ports"));
        assert_eq!(closest("bananas", keys()), None);
    }
}
