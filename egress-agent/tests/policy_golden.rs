//! What a person sees of a policy, word for word: diagnostics, explanations, schema.
//!
//! Each fixture below `tests/policy/` has its expected text beside it.
//! `UPDATE_GOLDEN=1 cargo test -p egress-agent --test policy_golden` rewrites them.

mod golden;

use egress_agent::policy::render::{self, Colour};
use egress_agent::policy::{Diagnostic, Policy, Query, explain, json_schema};
use golden::same_as_checked_in;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The day on which all golden texts are written.
fn today() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().expect("a time")
}

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/policy")
        .join(folder);
    let entries = fs::read_dir(&folder).expect("the fixtures are there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension() == Some(OsStr::new("yaml")))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no fixture", folder.display());
    files
}

/// The outcome for a fixture, under its bare file name, so that golden texts do
/// not depend on where the checkout is.
fn parse(path: &Path) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let text = fs::read_to_string(path).expect("a fixture");
    Policy::parse(path.file_name().expect("a name"), &text, today())
}

fn check(path: &Path) -> String {
    match parse(path) {
        Ok((policy, warnings)) => {
            render::check_text(std::iter::once(&policy), &warnings, Colour::No)
        }
        Err(problems) => render::check_text(std::iter::empty(), &problems, Colour::No),
    }
}

fn checked(folder: &str) -> Vec<(PathBuf, String)> {
    let texts = fixtures(folder).into_iter();
    texts
        .map(|path| (path.with_extension("txt"), check(&path)))
        .collect()
}

#[test]
fn refused_policies_say_exactly_why() {
    for path in fixtures("refused") {
        assert!(parse(&path).is_err(), "{} was accepted", path.display());
    }
    same_as_checked_in(checked("refused"));
}

#[test]
fn accepted_policies_say_what_they_give_away() {
    for path in fixtures("accepted") {
        assert!(parse(&path).is_ok(), "{}", check(&path));
    }
    same_as_checked_in(checked("accepted"));
}

/// The blocks of the specification load as they stand; what is not enforced
/// yet, and nothing else, is refused.
#[test]
fn the_blocks_of_the_specification_fail_only_where_nothing_enforces_them_yet() {
    assert_eq!(fixtures("spec").len(), 12);
    for path in fixtures("spec") {
        for problem in parse(&path).err().unwrap_or_default() {
            assert!(
                !problem.is_error() || problem.code == "not-enforced",
                "{}: {}",
                path.display(),
                problem.message
            );
        }
    }
    same_as_checked_in(checked("spec"));
}

#[test]
fn diagnostics_are_the_same_for_programs() {
    let path = fixtures("refused")
        .into_iter()
        .find(|path| path.ends_with("unknown-keys.yaml"))
        .expect("the fixture");
    let problems = parse(&path).expect_err("it is refused");
    let json = render::check_json(std::iter::empty(), &problems);
    let text = serde_json::to_string_pretty(&json).expect("JSON") + "\n";
    same_as_checked_in([(path.with_extension("json"), text)]);
}

#[test]
fn explanations_name_the_rule_the_reason_and_the_line_to_write() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/explain");
    let path = folder.join("policy.yaml");
    let (policy, _) = parse(&path).expect("the policy is accepted");
    let queries = fs::read_to_string(folder.join("queries.txt")).expect("the queries");
    let (mut text, mut objects) = (String::new(), Vec::new());
    for query in queries.lines() {
        let query = Query::parse(query).expect("a query");
        let explanation = explain(&policy, &query, today());
        text += &render::explanation_text(&explanation);
        objects.push(render::explanation_json(&explanation));
    }
    let json = serde_json::to_string_pretty(&objects).expect("JSON") + "\n";
    same_as_checked_in([
        (folder.join("explained.txt"), text),
        (folder.join("explained.json"), json),
    ]);
}

fn shipped(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../policies")
        .join(below)
}

#[test]
fn the_schema_that_editors_use_is_current() {
    same_as_checked_in([(shipped("schema/policy-v1.json"), render::schema_text())]);
}

#[test]
fn every_shipped_policy_loads_without_a_word_and_names_its_schema() {
    let files = fs::read_dir(shipped("")).expect("the shipped policies");
    let mut seen = 0;
    for path in files.map(|entry| entry.expect("an entry").path()) {
        if path.extension() != Some(OsStr::new("yaml")) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a policy");
        assert!(
            text.starts_with("# yaml-language-server: $schema=schema/policy-v1.json\n"),
            "{}",
            path.display()
        );
        let (_, warnings) = parse(&path).unwrap_or_else(|_| panic!("{}", check(&path)));
        assert_eq!(warnings, [], "{}", check(&path));
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} policies are shipped");
}

/// Every `properties` key anywhere in the schema.
fn keys_of(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(|p| p.as_object()) {
                keys.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| keys_of(value, keys));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys_of(item, keys)),
        _ => {}
    }
}

#[test]
fn the_documentation_has_every_key_every_code_and_every_refused_key() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    let page = fs::read_to_string(page).expect("the page");
    let mut words = BTreeSet::new();
    keys_of(&json_schema(), &mut words);
    for folder in ["refused", "accepted", "spec"] {
        for path in fixtures(folder) {
            for found in parse(&path).map_or_else(|found| found, |(_, found)| found) {
                words.insert(found.code.to_owned());
                if found.code == "not-enforced" {
                    words.insert(found.text().to_owned());
                }
            }
        }
    }
    assert!(words.len() > 60, "{words:?}");
    let known = |word: &String| {
        page.contains(&format!("`{word}`")) || page.contains(&format!("`network.{word}`"))
    };
    let missing: Vec<&String> = words.iter().filter(|word| !known(word)).collect();
    assert!(
        missing.is_empty(),
        "docs/policy.md does not mention {missing:?}"
    );
}

#[test]
fn the_example_of_the_documentation_is_a_policy() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    let page = fs::read_to_string(page).expect("the page");
    let example = page
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let (policy, warnings) = Policy::parse("docs.yaml", example.expect("an example"), today())
        .unwrap_or_else(|found| panic!("{}", render::diagnostics_text(&found, Colour::No)));
    assert_eq!((policy.name.as_str(), warnings.len()), ("ci-build", 0));
}
