//! A file that is damaged while the agent has it, and one that was damaged before.

use super::*;
use crate::audit::{KeyFiles, Span};
use std::os::unix::fs::FileExt;

/// What damages: no page of a database begins like this.
const GARBAGE: [u8; 4096] = [0x5a; 4096];

fn looking_often() -> Options {
    Options {
        probe: Duration::ZERO,
        ..tight(10_000)
    }
}

/// Overwrites every page from `first` on.
fn damage(path: &Path, first: u64) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    let pages = file.metadata().expect("metadata").len() / 4096;
    for page in first..pages {
        file.write_all_at(&GARBAGE, page * 4096).expect("damaged");
    }
}

/// The files that were set aside, without their companions.
fn set_aside(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.parent().expect("a parent")).expect("entries");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .collect();
    found.sort();
    found
}

/// Fills a store with `count` decisions whose pages are all in the file itself.
async fn filled(path: &Path, count: u32) {
    let store = Store::open_with(path, looking_often())
        .await
        .expect("a store");
    for n in 1..=count {
        store.recorder().record(Record {
            detail: Some("x".repeat(500)),
            ..numbered(n)
        });
    }
    store.close(LONG).await.expect("closed");
}

async fn damaged_while_it_runs(first: u64) {
    let (_directory, path) = place();
    filled(&path, 200).await;
    let store = Store::open_with(&path, looking_often())
        .await
        .expect("a store");
    let before = store.reader().await.expect("a reader");
    store.recorder().record(numbered(201));
    store.recorder().flush(LONG).await.expect("written");
    damage(&path, first);
    // Decisions go on meanwhile, and none of them waits.
    let begun = std::time::Instant::now();
    let mut made = 0;
    while set_aside(&path).is_empty() {
        made += 1;
        store.recorder().record(numbered(201 + made));
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(begun.elapsed() < LONG, "{:?}", store.health());
    }
    for n in 1..=100 {
        store.recorder().record(numbered(10_000 + n));
    }
    made += 100;
    store.recorder().flush(LONG).await.expect("written");
    // Whoever had the old file open reads the new one from now on.
    let seen = before.query(&Query::default()).await.expect("readable");
    assert!(
        seen.iter().any(|record| record.process == Some(10_100)),
        "{} records",
        seen.len()
    );
    store.close(LONG).await.expect("closed");

    let aside = set_aside(&path);
    let [aside] = aside.as_slice() else {
        panic!("{aside:?}");
    };
    // Nobody wrote into it afterwards.
    let kept = std::fs::read(aside).expect("readable");
    for page in kept.chunks(4096).skip(first as usize) {
        assert!(
            page == &GARBAGE[..page.len()],
            "the damaged file was written to"
        );
    }
    let records = all(&path).await;
    let succession = &records.iter().find(|it| it.sequence == 1).expect("a first");
    assert_eq!(succession.kind, "evidence");
    let told = succession.detail.as_deref().expect("a detail");
    assert!(told.contains(&aside.display().to_string()), "{told}");
    let (decisions, lost) = kept_and_lost(&records);
    // What was committed into the old file before anybody noticed is gone with it.
    let into_the_old = u64::from(made) + 1 - (decisions - 1) - lost;
    assert!(decisions > 100, "{decisions}");
    assert!(into_the_old < u64::from(made), "{into_the_old} of {made}");
    let reader = Reader::open(&path).await.expect("readable");
    let keys = KeyFiles::beside(&path).public().expect("keys");
    let verified = reader.verify(Span::default(), &keys, &[]).await;
    reader.close().await;
    let summary = verified.expect("answered").result.expect("good");
    assert_eq!(summary.records, records.len() as u64);
}

#[tokio::test]
async fn a_file_whose_pages_are_damaged_while_it_is_written_is_set_aside_as_it_is() {
    damaged_while_it_runs(2).await;
}

#[tokio::test]
async fn a_file_whose_beginning_is_damaged_too_is_set_aside_as_it_is() {
    damaged_while_it_runs(0).await;
}

#[tokio::test]
async fn a_store_that_is_no_database_any_more_is_set_aside_at_the_start() {
    let (_directory, path) = place();
    filled(&path, 200).await;
    damage(&path, 0);
    let store = Store::open_with(&path, looking_often())
        .await
        .expect("another store");
    store.recorder().record(numbered(1));
    store.close(LONG).await.expect("closed");
    let aside = set_aside(&path);
    assert_eq!(aside.len(), 1, "{aside:?}");
    let kept = std::fs::read(&aside[0]).expect("readable");
    assert!(kept.chunks(4096).all(|page| page == &GARBAGE[..page.len()]));
    let records = all(&path).await;
    assert_eq!(records.len(), 2, "{records:?}");
    assert_eq!(kept_and_lost(&records).1, 0);
}
