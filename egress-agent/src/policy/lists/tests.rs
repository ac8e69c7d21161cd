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

/// What a list finds, by comparing the text with every pattern.
fn slow(patterns: &[DomainPattern], name: &str) -> Option<usize> {
    let means = |at: usize, own: bool| {
        patterns.iter().any(|pattern| {
            pattern.base().as_str() == &name[at..]
                && match pattern {
                    DomainPattern::Exact(_) => own,
                    DomainPattern::Below(_) => !own,
                    DomainPattern::Within(_) => true,
                }
        })
    };
    let dots = name.match_indices('.').map(|(at, _)| at + 1).zip(1..);
    let own = means(0, true).then_some(0);
    own.or_else(|| {
        dots.filter(|(at, _)| means(*at, false))
            .map(|(_, labels)| labels)
            .next()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn of_any_text_it_finds_what_stands_in_it_letter_by_letter(
        texts in prop::collection::vec("(\\*\\.|\\*\\*\\.)?[ab_-]{1,4}(\\.[ab]{1,2}){0,3}", 1..60),
        names in prop::collection::vec("[abB.é_-]{0,12}", 100),
        long in "[ab]{1,30}(\\.[ab]{1,2}){1,90}",
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let patterns = patterns(&texts);
        let folder = tempfile::tempdir().expect("a directory");
        let list = NameList::open(&build(folder.path(), &patterns)).expect("opened");
        let own = patterns.iter().map(|pattern| pattern.base().to_string());
        let below = own.clone().map(|name| format!("x.{name}"));
        for name in names.into_iter().chain(own).chain(below).chain([long]) {
            let found = list.find(&name).map(|found| found.below);
            prop_assert_eq!(found, slow(&patterns, &name), "{}", name);
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

/// Whoever can write a list can make its digest fit; what is in it is then looked at
/// as if it were whole.
#[test]
fn damage_that_the_digest_knows_nothing_of_ends_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let texts = [
        "a.example",
        "**.b.example",
        "*.c.d.example",
        "e",
        "fg.example",
    ];
    let path = build(folder.path(), &patterns(&texts));
    let whole = fs::read(&path).expect("the list");
    let table = &whole[64..];
    let place = |table: &[u8], count: u64| {
        let header = file::header(table, (count, 0));
        fs::write(&path, [&header, table].concat()).expect("written");
    };
    let names = [
        "a.example",
        "x.b.example",
        "y.x.c.d.example",
        "e",
        "z",
        "",
        ".",
        "x.fg.example",
    ];
    let (mut refused, mut taken) = (0, 0);
    for at in 0..table.len() {
        for bits in [0x01, 0xff] {
            let mut bytes = table.to_vec();
            bytes[at] ^= bits;
            place(&bytes, 5);
            match NameList::open(&path) {
                Ok(list) => {
                    taken += 1;
                    for name in names {
                        // Whatever it says, it says something.
                        let _ = list.find(name);
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("damaged"), "byte {at}: {error}");
                }
            }
        }
        place(&table[..at], 5);
        assert!(NameList::open(&path).is_err(), "cut at {at}");
    }
    // Numbers of names, cells and what is meant must fit; keys and letters can be any.
    assert!(refused > 600 && taken > 50, "{refused} {taken}");
    place(&[table, b"x"].concat(), 5);
    assert!(NameList::open(&path).is_err(), "longer");
    place(table, 4);
    let error = NameList::open(&path).expect_err("four are five");
    assert!(error.to_string().contains("another number"), "{error}");
}

#[test]
fn a_list_of_another_version_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = build(folder.path(), &patterns(&["a.example"]));
    let mut bytes = fs::read(&path).expect("the list");
    bytes[12] = 1;
    fs::write(&path, bytes).expect("written");
    let error = NameList::open(&path).expect_err("old").to_string();
    assert!(
        error.contains("of version 1") && error.contains("names build"),
        "{error}"
    );
}

#[test]
fn names_that_meet_in_hash_and_length_are_told_apart() {
    let folder = tempfile::tempdir().expect("a directory");
    // So few are all in one cell, and each print is that of one in 256 other names.
    let path = build(
        folder.path(),
        &patterns(&["**.n00000.example", "m00000.example"]),
    );
    let list = NameList::open(&path).expect("opened");
    for number in 1..20_000 {
        for head in ["n", "m"] {
            let name = format!("{head}{number:05}.example");
            assert_eq!(list.find(&name), None, "{name}");
        }
    }
    assert_eq!(list.find("x.n00000.example"), Some(Found { below: 1 }));
    assert_eq!(list.find("x.m00000.example"), None);
}

#[test]
fn the_same_names_in_any_order_make_the_same_list() {
    let folder = tempfile::tempdir().expect("a directory");
    let texts: Vec<String> = (0..200).map(|n| format!("*.n{n}.example")).collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let first = fs::read(build(folder.path(), &patterns(&texts))).expect("the list");
    texts.reverse();
    texts.push("*.n7.example");
    let second = fs::read(build(folder.path(), &patterns(&texts))).expect("the list");
    assert!(first == second);
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
