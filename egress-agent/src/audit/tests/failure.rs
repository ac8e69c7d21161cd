//! Full queues, full disks, locked files: nothing is lost unsaid.

use super::*;
use sqlx::Connection;
use std::time::Instant;

#[tokio::test]
async fn what_does_not_fit_is_told_with_the_exact_count() {
    let (_directory, path) = place();
    let store = Store::open_with(&path, tight(10)).await.expect("a store");
    let recorder = store.recorder();
    // One thread and no await: the writer cannot run in between.
    for n in 1..=25 {
        recorder.record(numbered(n));
    }
    recorder.record(Record {
        count: 100,
        ..numbered(26)
    });
    assert_eq!(store.health().lost, 16);
    recorder.flush(LONG).await.expect("room again");
    let records = all(&path).await;
    assert_eq!(kept_and_lost(&records), (10, 15 + 100));
    let loss = records.iter().find(|r| r.kind == "loss").expect("a loss");
    assert_eq!(
        loss.detail.as_deref(),
        Some(
            "16 records, which stood for 115 decisions, found no place in the audit queue; \
             they were from 1970-01-01T00:00:11Z to 1970-01-01T00:00:26Z"
        )
    );
    assert_eq!(store.health().queued, 0);
    store.close(LONG).await.expect("closed");
}

#[tokio::test]
async fn a_loss_is_told_even_if_nothing_is_recorded_afterwards() {
    let (_directory, path) = place();
    let store = Store::open_with(&path, tight(1)).await.expect("a store");
    store.recorder().record(numbered(1));
    store.recorder().record(numbered(2));
    store.close(LONG).await.expect("all told");
    assert_eq!(kept_and_lost(&all(&path).await), (1, 1));
}

#[tokio::test]
async fn while_the_file_is_locked_decisions_go_on_and_nothing_is_lost_silently() {
    let (_directory, path) = place();
    let store = Store::open_with(&path, tight(50)).await.expect("a store");
    let recorder = store.recorder();
    let mut stranger = stranger(&path).await;
    let lock = stranger
        .begin_with("BEGIN IMMEDIATE")
        .await
        .expect("a lock");

    let mut longest = Duration::ZERO;
    for n in 1..=300 {
        let start = Instant::now();
        recorder.record(numbered(n));
        longest = longest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        longest < Duration::from_secs(1),
        "record() waited {longest:?}"
    );
    let error = recorder.flush(Duration::from_millis(50)).await;
    let text = error.expect_err("still locked").to_string();
    assert!(text.contains("locked"), "{text}");
    let health = store.health();
    assert!(health.error.is_some() && health.lost > 0, "{health:?}");

    lock.rollback().await.expect("unlocked");
    recorder.flush(LONG).await.expect("resumed");
    assert_eq!(store.health().error, None);
    let (kept, lost) = kept_and_lost(&all(&path).await);
    assert_eq!(kept + lost, 300);
    assert!(lost > 0 && kept >= 50, "kept {kept}, lost {lost}");
    store.close(LONG).await.expect("closed");
}

#[tokio::test]
async fn a_full_disk_is_counted_and_writing_resumes_when_there_is_space() {
    let (_directory, path) = place();
    let options = Options {
        max_bytes: Some(1024 * 1024),
        ..tight(50)
    };
    let store = Store::open_with(&path, options).await.expect("a store");
    let recorder = store.recorder();
    let bulky = |n| Record {
        detail: Some("x".repeat(4_000)),
        ..numbered(n)
    };
    let mut fed = 0;
    while store.health().error.is_none() {
        fed += 1;
        recorder.record(bulky(fed));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(fed < 5_000, "the bound was never reached");
    }
    for _ in 0..100 {
        fed += 1;
        recorder.record(bulky(fed));
    }
    let error = store.health().error.expect("an error");
    assert!(
        error.contains("full") && error.contains("free space"),
        "{error}"
    );

    // On a slow machine some were lost before, and that was told among these.
    let (freed, told) = kept_and_lost(
        &all(&path)
            .await
            .into_iter()
            .filter(|record| record.sequence <= 200)
            .collect::<Vec<_>>(),
    );
    let mut stranger = stranger(&path).await;
    sqlx::query("DELETE FROM records WHERE sequence <= 200")
        .execute(&mut stranger)
        .await
        .expect("space");
    stranger.close().await.expect("closed");
    recorder.flush(LONG).await.expect("resumed");
    assert_eq!(store.health().error, None);
    let (kept, lost) = kept_and_lost(&all(&path).await);
    assert_eq!(freed + told + kept + lost, u64::from(fed));
    assert!(lost > 0, "the queue of 50 cannot have held 100");
    store.close(LONG).await.expect("closed");
}

#[tokio::test]
async fn a_removed_file_is_an_error_and_not_a_hole_that_swallows_records() {
    let (_directory, path) = place();
    let store = Store::open_with(&path, tight(5)).await.expect("a store");
    let recorder = store.recorder();
    recorder.record(numbered(1));
    recorder.flush(LONG).await.expect("written");
    std::fs::rename(&path, path.with_extension("moved")).expect("moved");
    recorder.record(numbered(2));
    let error = recorder.flush(Duration::from_millis(100)).await;
    let text = error.expect_err("not in place").to_string();
    assert!(text.contains("removed or replaced"), "{text}");
    std::fs::rename(path.with_extension("moved"), &path).expect("moved back");
    recorder.flush(LONG).await.expect("written");
    assert_eq!(kept_and_lost(&all(&path).await), (2, 0));
    store.close(LONG).await.expect("closed");
}

#[tokio::test]
async fn a_deadline_that_passes_says_how_much_is_missing_and_why() {
    let (_directory, path) = place();
    let store = Store::open_with(&path, tight(50)).await.expect("a store");
    let mut stranger = stranger(&path).await;
    let lock = stranger
        .begin_with("BEGIN IMMEDIATE")
        .await
        .expect("a lock");
    for n in 1..=7 {
        store.recorder().record(numbered(n));
    }
    let error = store.close(Duration::from_millis(200)).await;
    match error.expect_err("locked") {
        AuditError::Unwritten {
            waiting,
            last_error,
            ..
        } => {
            assert_eq!(waiting, 7);
            assert!(last_error.is_some_and(|text| text.contains("locked")));
        }
        other => panic!("{other}"),
    }
    lock.rollback().await.expect("unlocked");
}

/// Copies the files as a power cut would leave them.
fn snapshot(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        if Path::new(&name(from)).exists() {
            std::fs::copy(name(from), name(to)).expect("a copy");
        }
    }
}

#[tokio::test]
async fn what_a_killed_agent_leaves_is_readable_and_holds_what_was_flushed() {
    let (directory, path) = place();
    let store = Store::open_with(&path, tight(1_000))
        .await
        .expect("a store");
    for n in 1..=100 {
        store.recorder().record(numbered(n));
    }
    store.recorder().flush(LONG).await.expect("written");
    for n in 101..=200 {
        store.recorder().record(numbered(n));
    }
    let whole = directory.path().join("whole/audit.db");
    snapshot(&path, &whole);
    let records = all(&whole).await;
    assert!((100..=200).contains(&records.len()), "{}", records.len());

    // A write that was cut in the middle of the log.
    let torn = directory.path().join("torn/audit.db");
    snapshot(&path, &torn);
    let log = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("{}-wal", torn.display()))
        .expect("a log");
    let length = log.metadata().expect("a length").len();
    log.set_len(length - 100).expect("cut");
    drop(log);
    let records = all(&torn).await;
    assert!(!records.is_empty());
    for (record, n) in records.iter().zip(1..) {
        assert_eq!(record.process, Some(n), "a prefix and nothing else");
    }

    // The next agent goes on where it ended.
    let next = open(&torn).await.expect("a store");
    next.recorder().record(numbered(1_000));
    next.close(LONG).await.expect("written");
    let last = all(&torn).await.pop().expect("a record");
    assert_eq!(last.process, Some(1_000));
    assert_eq!(last.sequence, records.len() as i64 + 1);
    store.close(LONG).await.expect("closed");
}

#[tokio::test]
async fn who_waits_for_a_record_does_not_wait_for_those_that_may_follow() {
    let (_directory, path) = place();
    let options = Options {
        linger: LONG * 10,
        ..lasting()
    };
    let store = Store::open_with(&path, options).await.expect("a store");
    for n in 1..=3 {
        store.recorder().record(numbered(n));
        store.recorder().flush(LONG).await.expect("written");
        assert_eq!(store.health().written, u64::from(n));
    }
    store.close(LONG).await.expect("closed");
}
