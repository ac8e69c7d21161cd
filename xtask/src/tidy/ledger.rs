//! Ledgers of promises and past failures: each row names a test that exists.

use super::Finding;
use super::source::{code_of, words};
use std::collections::{BTreeMap, BTreeSet};

/// How a row begins its last column that cannot be tested.
const NO_TEST: &str = "not tested: ";
/// Fewer words are no reason.
const FEWEST_WORDS: usize = 4;

/// Collects the names of the test functions of a Rust file: every function
/// behind an attribute that ends in `test`, or in a `proptest!` block.
pub fn tests_of(source: &str) -> BTreeSet<String> {
    let code = code_of(source);
    let mut tests = BTreeSet::new();
    let mut announced = false;
    let mut previous = "";
    for (word, end) in words(&code) {
        let is_attribute = word == "test" && code[end..].trim_start().starts_with([']', '(']);
        announced |= is_attribute;
        if previous == "fn" && announced {
            tests.insert(word.to_owned());
            announced = false;
        }
        previous = word;
    }
    tests
}

/// Checks a ledger: in each row of each table, the last column holds the names
/// of tests between backticks, with or without the path of their module, or
/// in the ledger of bypasses, `not tested: ` and the reason: a promise always
/// has a test.
pub fn check(path: &str, text: &str, tests: &BTreeSet<String>) -> Vec<Finding> {
    let may_have_none = path.ends_with("bypasses.md");
    let mut findings = Vec::new();
    let mut in_rows = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !line.starts_with('|') {
            in_rows = false;
            continue;
        }
        if line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' ')) {
            in_rows = true;
            continue;
        }
        if in_rows {
            findings.extend(
                check_row(line, tests, may_have_none).map(|it| Finding::new(path, number, it)),
            );
        }
    }
    findings
}

/// Checks the numbers of a ledger whose rows begin with one (`B-07`): of each
/// letter every number from 1 on stands there, once. A row that is lost would
/// otherwise be missed by nobody.
pub fn check_numbers(path: &str, text: &str) -> Vec<Finding> {
    let mut seen: BTreeMap<(&str, u32), usize> = BTreeMap::new();
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let id = line
            .strip_prefix("| ")
            .and_then(|rest| rest.split(' ').next()?.split_once('-'));
        let Some((letter, digits)) = id else { continue };
        let Ok(own) = digits.parse::<u32>() else {
            continue;
        };
        if seen.insert((letter, own), number).is_some() {
            let message = format!("{letter}-{digits} stands there twice");
            findings.push(Finding::new(path, number, message));
        }
    }
    let mut next: BTreeMap<&str, u32> = BTreeMap::new();
    for ((letter, own), line) in seen {
        let expected = next.entry(letter).or_insert(1);
        if own != *expected {
            let message = format!("{letter}-{expected:02} is missing before this row's number");
            findings.push(Finding::new(path, line, message));
        }
        *expected = own + 1;
    }
    findings
}

fn check_row(row: &str, tests: &BTreeSet<String>, may_have_none: bool) -> Option<String> {
    let column = row.trim_end_matches('|').rsplit('|').next()?;
    let named: Vec<&str> = column.split('`').skip(1).step_by(2).collect();
    if named.is_empty() && !may_have_none {
        return Some("the row names no test in its last column".to_owned());
    }
    if named.is_empty() {
        return match column.trim().strip_prefix(NO_TEST) {
            Some(reason) if reason.split_whitespace().count() >= FEWEST_WORDS => None,
            Some(_) => Some("the row says no reason why it is not tested".to_owned()),
            None => Some(format!(
                "the row names no test in its last column; name one, or write `{NO_TEST}` and why"
            )),
        };
    }
    let missing = named.iter().find(|name| {
        let function = name.rsplit("::").next().unwrap_or(name);
        !tests.contains(function)
    })?;
    Some(format!("there is no test `{missing}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#[test]\nfn one() {}\nfn no_test() {}\n\
                          #[tokio::test(flavor = \"x\")]\nasync fn two() {}\n// #[test]\nfn neither() {}";

    #[test]
    fn a_number_that_is_missing_or_stands_twice_is_found() {
        let messages = |text: &str| -> Vec<String> {
            let found = check_numbers("l.md", text).into_iter();
            found.map(|finding| finding.message).collect()
        };
        assert_eq!(
            messages("| B-02 | x |\n| B-01 | y |\n| A-01 | z |\n"),
            [""; 0]
        );
        let missing = messages("| B-01 | x |\n| B-03 | y |\n");
        assert_eq!(missing, ["B-02 is missing before this row's number"]);
        let twice = messages("| B-01 | x |\n| B-01 | y |\n");
        assert_eq!(twice, ["B-01 stands there twice"]);
        assert_eq!(messages("| a row of another kind | y |\n"), [""; 0]);
    }

    #[test]
    fn functions_behind_a_test_attribute_are_tests() {
        assert_eq!(tests_of(SOURCE), ["one", "two"].map(String::from).into());
    }

    #[test]
    fn rows_without_an_existing_test_are_found() {
        let ledger = "| promise | test |\n|---|---|\n| a | `x::one`, `two` |\n\
                      | b | |\n| c | `three` |\n| d | not tested: no such device here |\n\
                      | e | not tested: hard |\n\ntext";
        let lines = |path| -> Vec<usize> {
            let findings = check(path, ledger, &tests_of(SOURCE));
            findings.iter().map(|finding| finding.line).collect()
        };
        assert_eq!(lines("docs/guarantees.md"), [4, 5, 6, 7]);
        assert_eq!(lines("docs/bypasses.md"), [4, 5, 7]);
    }
}
