//! What a load of policies changed, for whoever asks later who opened what.

use super::approvals::Approval;
use super::content::Content;
use crate::policy::PolicySet;
use sha2::{Digest, Sha256};
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most text of both sides that is compared, in bytes: lists of a million
/// names are told by their digests.
const MOST_COMPARED: usize = 4 << 20;
/// The longest diff that a record holds, in bytes.
const LONGEST_DIFF: usize = 64 << 10;
/// How long the lines of one file may be compared before a coarser diff is good enough.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the record of a load says beside its words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// SHA-256 of the lines `NAME DIGEST` of the policies in force, in the order of
    /// their names, in hexadecimal.
    pub digest: String,
    /// The unified diff of the files to those that were in force before; `None` if
    /// they are the same, or nothing is known of the earlier ones.
    pub diff: Option<String>,
    /// Approvals that were not in force before.
    pub approvals: Vec<Approval>,
    /// Who signed the bundle; `None` for loose files.
    pub signer: Option<String>,
}

/// The digest of policies in force.
pub(super) fn digest(policies: &PolicySet) -> String {
    let mut lines: Vec<String> = policies
        .iter()
        .map(|policy| format!("{} {}\n", policy.name, policy.digest))
        .collect();
    lines.sort_unstable();
    Sha256::digest(lines.concat().as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The diff between what was in force and what is now.
pub(super) fn diff(before: &Content, after: &Content) -> Option<String> {
    let (before, after) = (before.files(), after.files());
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let size = |files: &BTreeMap<String, String>| files.values().map(String::len).sum::<usize>();
    if size(&before) + size(&after) > MOST_COMPARED {
        return (before != after).then(|| {
            let changed = paths
                .iter()
                .filter(|path| before.get(**path) != after.get(**path));
            let lines: String = changed.map(|path| format!("~ {path}\n")).collect();
            bounded(format!(
                "too large to be compared line by line; these files differ:\n{lines}"
            ))
        });
    }
    let mut text = String::new();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let name = |side: Option<&String>| side.map_or("/dev/null", |_| path.as_str()).to_owned();
        let compared = TextDiff::configure().timeout(PATIENCE).diff_lines(
            old.map_or("", String::as_str),
            new.map_or("", String::as_str),
        );
        text.push_str(
            &compared
                .unified_diff()
                .context_radius(3)
                .header(&name(old), &name(new))
                .to_string(),
        );
    }
    (!text.is_empty()).then(|| bounded(text))
}

/// Cuts at a whole line, and says how many are left out.
fn bounded(mut text: String) -> String {
    if text.len() <= LONGEST_DIFF {
        return text;
    }
    let mut end = LONGEST_DIFF;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let end = text[..end].rfind('\n').map_or(end, |line| line + 1);
    let left_out = text[end..].lines().count();
    text.truncate(end);
    text.push_str(&format!("({left_out} more lines)\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_diff_ends_at_a_whole_line_and_says_how_many_are_missing() {
        let text = bounded("é+0123456789\n".repeat(10_000));
        assert!(text.len() <= LONGEST_DIFF + 40, "{}", text.len());
        let (lines, rest) = text.trim_end().rsplit_once('\n').expect("lines");
        let kept = lines.lines().count();
        assert_eq!(rest, format!("({} more lines)", 10_000 - kept));
        assert!(lines.lines().all(|line| line == "é+0123456789"));
        assert_eq!(bounded("a\n".to_owned()), "a\n");
    }
}
