//! Lists, whole and damaged.

use super::*;
use crate::model::DomainPattern;
use crate::policy::strategies::{name, pattern};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

fn build(folder: &Path, patterns: &[DomainPattern]) -> PathBuf {
    let mut builder = Builder::default();
    for pattern in patterns {
        builder.add(pattern);
    }
    let path = folder.join("x.names");
    builder.write(&path).expect("written");
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_finds_exactly_what_asking_every_pattern_finds(
        patterns in prop::collection::vec(pattern(), 1..20),
        names in prop::collection::vec(name(), 20),
    ) {
        let folder = tempfile::tempdir().expect("a directory");
        let list = NameList::open(&build(folder.path(), &patterns)).expect("opened");
        for name in names {
            let labels = name.labels().count();
            let slow = patterns.iter().filter(|pattern| pattern.matches(&name))
                .map(|pattern| labels - pattern.base().labels().count()).min();
            prop_assert_eq!(list.find(name.as_str()).map(|found| found.below), slow, "{}", name);
        }
    }
}

fn patterns(texts: &[&str]) -> Vec<DomainPattern> {
    let parse = |text: &&str| DomainPattern::parse(text).expect("a pattern");
    texts.iter().map(parse).collect()
}

#[test]
fn every_byte_of_damage_and_every_cut_is_noticed() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = build(folder.path(), &patterns(&["a.example", "**.b.example"]));
    let whole = fs::read(&path).expect("the list");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).expect("written");
        let error = NameList::open(&path).expect_err("damaged");
        let is_named = error.to_string().contains("x.names");
        assert!(is_named, "byte {at}: {error}");
        fs::write(&path, &whole[..at]).expect("written");
        assert!(NameList::open(&path).is_err(), "cut at {at}");
    }
    fs::write(&path, [&whole[..], b"x"].concat()).expect("written");
    assert!(NameList::open(&path).is_err(), "longer");
    assert!(NameList::open(folder.path()).is_err(), "a directory");
    assert!(NameList::open(&folder.path().join("absent")).is_err());
    fs::write(&path, &whole).expect("written");
    assert_eq!(NameList::open(&path).expect("whole again").len(), 2);
}

#[test]
fn what_happens_to_the_file_later_changes_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = build(folder.path(), &patterns(&["a.example"]));
    let list = NameList::open(&path).expect("opened");
    fs::File::create(&path).expect("cut to nothing");
    assert!(list.find("a.example").is_some());
    let left: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
    assert_eq!(left.len(), 1, "nothing lies beside it");
}

#[test]
fn a_list_replaces_another_whole_and_an_empty_one_is_not_written() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = build(folder.path(), &patterns(&["a.example", "**.com"]));
    let first = NameList::open(&path).expect("opened");
    assert_eq!(first.public_suffixes(), 1);
    assert!(Builder::default().write(&path).is_err());
    assert_eq!(NameList::open(&path).expect("still there"), first);
    build(folder.path(), &patterns(&["b.example", "com"]));
    let second = NameList::open(&path).expect("opened");
    assert_ne!(first, second);
    assert_eq!(second.public_suffixes(), 0, "the suffix itself is one name");
    assert!(first.find("a.example").is_some() && second.find("a.example").is_none());
}
