//! Every alteration is found, and the first altered record named.

use super::*;
use crate::audit::{
    ChainFields, Checkpoint, CheckpointRule, Finding, KeyFiles, PublicKey, Span, Summary,
    verify_export,
};
use egress_common::Outcome;
use sqlx::{Connection, Row};

const RECORDS: u32 = 40;

/// Records with names and sandboxes, a checkpoint after every 16.
async fn written(path: &Path, from: u32, to: u32) {
    let options = Options {
        checkpoints: CheckpointRule {
            records: 16,
            ..CheckpointRule::default()
        },
        ..tight(1_000)
    };
    let store = Store::open_with(path, options).await.expect("a store");
    for n in from..=to {
        store.recorder().record(Record {
            sandbox: Some(format!("build-{}", n % 3)),
            name: Some("api.example.com".to_owned()),
            outcome: Some(Outcome::Allowed),
            ..numbered(n)
        });
        if n % 8 == 0 {
            store.recorder().flush(LONG).await.expect("written");
        }
    }
    store.close(LONG).await.expect("closed");
}

async fn verified(path: &Path, span: Span, elsewhere: Option<&str>) -> Result<Summary, Finding> {
    let keys = KeyFiles::beside(path).public().expect("keys");
    with_keys(path, span, &keys, elsewhere).await
}

async fn with_keys(
    path: &Path,
    span: Span,
    keys: &[PublicKey],
    elsewhere: Option<&str>,
) -> Result<Summary, Finding> {
    let reader = Reader::open(path).await.expect("readable");
    let kept: Vec<String> = elsewhere.map(str::to_owned).into_iter().collect();
    let verification = reader.verify(span, keys, &kept).await.expect("answered");
    reader.close().await;
    verification.result
}

#[tokio::test]
async fn what_was_not_touched_is_verified_to_its_end_over_restarts() {
    let (_directory, path) = place();
    written(&path, 1, RECORDS).await;
    written(&path, RECORDS + 1, RECORDS + 5).await;
    let summary = verified(&path, Span::default(), None).await.expect("good");
    assert_eq!(summary.records, u64::from(RECORDS) + 5);
    assert_eq!(summary.signed, i64::from(RECORDS) + 5, "signed when closed");
    assert!(summary.checkpoints >= 3, "{summary:?}");
    let span = Span {
        from: Some(20),
        to: Some(25),
    };
    let part = verified(&path, span, None).await.expect("good");
    assert!(part.first <= 20 && part.last >= 25 && part.records < summary.records);
}

#[tokio::test]
async fn every_alteration_is_found_and_the_first_record_named() {
    let renumber = "UPDATE records SET sequence = -sequence";
    let cases: [(&[&str], Finding); 13] = [
        (
            &["UPDATE records SET body = replace(body, 'api.', 'www.') WHERE sequence = 7"],
            Finding::Column {
                sequence: 7,
                column: "name_key",
            },
        ),
        (
            &[
                "UPDATE records SET body = replace(body, '\"process\":9', '\"process\":8') WHERE sequence = 9",
            ],
            Finding::Altered { sequence: 9 },
        ),
        (
            &["UPDATE records SET chain = zeroblob(32) WHERE sequence = 3"],
            Finding::Altered { sequence: 3 },
        ),
        (
            &["UPDATE subjects SET sandbox = 'other' WHERE sandbox = 'build-2'"],
            Finding::Column {
                sequence: 2,
                column: "sandbox",
            },
        ),
        (
            &["DELETE FROM subjects WHERE sandbox = 'build-0'"],
            Finding::Column {
                sequence: 3,
                column: "sandbox",
            },
        ),
        (
            &[
                "UPDATE records SET subject = (SELECT subject FROM records WHERE sequence = 6) WHERE sequence = 5",
            ],
            Finding::Column {
                sequence: 5,
                column: "sandbox",
            },
        ),
        (
            &["UPDATE records SET reason = '' WHERE sequence = 5"],
            Finding::Column {
                sequence: 5,
                column: "reason",
            },
        ),
        (
            &["UPDATE records SET address_key = x'' WHERE sequence = 5"],
            Finding::Column {
                sequence: 5,
                column: "address",
            },
        ),
        (
            &["DELETE FROM records WHERE sequence BETWEEN 11 AND 12"],
            Finding::Missing {
                first: 11,
                last: 12,
            },
        ),
        (
            &[
                renumber,
                "UPDATE records SET sequence = CASE sequence WHEN -5 THEN 6 WHEN -6 THEN 5 ELSE -sequence END",
            ],
            Finding::OutOfPlace { place: 5, found: 6 },
        ),
        (
            &[
                renumber,
                "UPDATE records SET sequence = CASE WHEN sequence <= -8 THEN 1 - sequence ELSE -sequence END",
                "INSERT INTO records SELECT 8, time, class, chain, body, kind, outcome, reason, address_key, \
                 name_key, subject FROM records WHERE sequence = 2",
            ],
            Finding::OutOfPlace { place: 8, found: 2 },
        ),
        (
            &["DELETE FROM records WHERE sequence > 38"],
            Finding::Truncated {
                first: 39,
                last: 40,
                witness: "a checkpoint",
            },
        ),
        (
            &[
                "INSERT INTO erased SELECT sequence, time, class, chain, zeroblob(32) FROM records WHERE sequence = 4",
                "DELETE FROM records WHERE sequence = 4",
            ],
            Finding::Unexplained { sequence: 4 },
        ),
    ];
    for (statements, expected) in cases {
        let (_directory, path) = place();
        written(&path, 1, RECORDS).await;
        alter(&path, statements).await;
        let found = verified(&path, Span::default(), None).await;
        assert_eq!(found, Err(expected), "{statements:?}");
    }
}

/// Replaces the store by one with other records and hashes that fit, as somebody
/// could who has the file and not the key.
#[tokio::test]
async fn a_chain_that_was_made_anew_does_not_fit_what_was_signed() {
    let (directory, path) = place();
    written(&path, 1, RECORDS).await;
    let keys = KeyFiles::beside(&path).public().expect("keys");
    let other = directory.path().join("forged/audit.db");
    written(&other, 1, RECORDS).await;
    let found = with_keys(&other, Span::default(), &keys, None).await;
    assert!(
        matches!(found, Err(Finding::Checkpoint { .. })),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_checkpoint_kept_elsewhere_shows_a_file_that_was_put_back() {
    let (directory, path) = place();
    written(&path, 1, RECORDS).await;
    let older = directory.path().join("older");
    std::fs::create_dir(&older).expect("a directory");
    for entry in std::fs::read_dir(path.parent().expect("a parent")).expect("files") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), older.join(entry.file_name())).expect("copied");
    }
    written(&path, RECORDS + 1, RECORDS + 10).await;
    let kept = std::fs::read_to_string(path.with_extension("checkpoint")).expect("a note");
    let size = Checkpoint::unverified(&kept).expect("a checkpoint").size;
    assert_eq!(size, u64::from(RECORDS) + 10);
    let good = verified(&path, Span::default(), Some(&kept)).await;
    assert!(good.is_ok(), "{good:?}");
    let old = older.join("audit.db");
    assert!(verified(&old, Span::default(), None).await.is_ok());
    let found = verified(&old, Span::default(), Some(&kept)).await;
    let expected = Finding::Truncated {
        first: 41,
        last: 50,
        witness: "a checkpoint",
    };
    assert_eq!(found, Err(expected));
}

#[tokio::test]
async fn a_key_is_rotated_while_the_store_runs_and_the_old_one_vouches_for_it() {
    let (_directory, path) = place();
    written(&path, 1, 3).await;
    let old = KeyFiles::beside(&path).public().expect("keys");
    let store = Store::open_with(&path, tight(100)).await.expect("a store");
    assert!(KeyFiles::beside(&path).request_rotation().expect("a key"));
    let waiting = path.with_extension("key.next");
    let begun = std::time::Instant::now();
    while waiting.exists() {
        assert!(begun.elapsed() < LONG, "the new key was not taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.recorder().record(numbered(9));
    store.close(LONG).await.expect("closed");
    let new = KeyFiles::beside(&path).public().expect("keys");
    assert_eq!((old.len(), new.len()), (1, 2));
    let summary = with_keys(&path, Span::default(), &old, None)
        .await
        .expect("good");
    assert_eq!((summary.records, summary.signed), (5, 5));
    // The new key alone does not vouch for what came before it.
    let found = with_keys(&path, Span::default(), &new[1..], None).await;
    assert!(
        matches!(found, Err(Finding::Checkpoint { .. })),
        "{found:?}"
    );
}

#[tokio::test]
async fn retention_takes_bodies_and_the_chain_still_holds() {
    let (_directory, path) = place();
    written(&path, 1, RECORDS).await;
    let mut retention = Retention::default();
    retention.set(Class::Operation, None);
    let options = Options {
        retention,
        ..tight(1_000)
    };
    let store = Store::open_with(&path, options).await.expect("a store");
    let recent = Record::new(Timestamp::now(), RecordKind::Flow);
    store.recorder().record(recent);
    let begun = std::time::Instant::now();
    loop {
        let left = all(&path).await;
        if left.len() == 2 {
            let kinds: Vec<_> = left.iter().map(|record| record.kind.as_str()).collect();
            assert!(
                kinds.contains(&"flow") && kinds.contains(&"evidence"),
                "{kinds:?}"
            );
            break;
        }
        assert!(begun.elapsed() < LONG, "{left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close(LONG).await.expect("closed");
    let summary = verified(&path, Span::default(), None).await.expect("good");
    assert_eq!(summary.erased, u64::from(RECORDS));
    assert_eq!(summary.records, u64::from(RECORDS) + 2);
    // What is left of a record is evidence, too.
    alter(
        &path,
        &["UPDATE erased SET time = time + 1 WHERE sequence = 6"],
    )
    .await;
    let found = verified(&path, Span::default(), None).await;
    assert_eq!(found, Err(Finding::Altered { sequence: 6 }));
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_the_next_chain_names_it() {
    let (directory, path) = place();
    written(&path, 1, RECORDS).await;
    let known = std::fs::read_to_string(path.with_extension("checkpoint")).expect("a note");
    let known = Checkpoint::unverified(&known).expect("a checkpoint");
    let mut bytes = std::fs::read(&path).expect("the file");
    bytes[100..4000].fill(0x5a);
    std::fs::write(&path, &bytes).expect("damaged");
    written(&path, 1, 2).await;
    let aside = std::fs::read_dir(directory.path().join("state"))
        .expect("files")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.to_string_lossy().contains(".damaged-"))
        // Its log and index lie beside it, under longer names.
        .min_by_key(|path| path.as_os_str().len())
        .expect("set aside");
    assert_eq!(std::fs::read(&aside).expect("kept"), bytes);
    let records = all(&path).await;
    let first = records
        .iter()
        .find(|record| record.sequence == 1)
        .expect("a record");
    let detail = first.detail.as_deref().expect("a detail");
    assert_eq!(first.kind, "evidence");
    assert!(detail.contains(&aside.display().to_string()), "{detail}");
    assert!(detail.contains(&known.chain.to_string()), "{detail}");
    assert_eq!(first.digest, Some(known.chain.to_string()));
    let summary = verified(&path, Span::default(), None).await.expect("good");
    assert_eq!(summary.records, 3);
}

/// A process that is killed takes its queue along: nothing of it is polled again.
#[test]
fn a_killed_agent_leaves_an_exact_gap() {
    let (_directory, path) = place();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let first = runtime();
    first.block_on(async {
        let store = Store::open_with(&path, tight(1_000))
            .await
            .expect("a store");
        for n in 1..=10 {
            store.recorder().record(numbered(n));
        }
        store.recorder().flush(LONG).await.expect("written");
        store.recorder().note(500);
        for n in 1..=100 {
            store.recorder().record(Record {
                count: 2,
                ..numbered(n)
            });
        }
        store.recorder().record_noted(Record {
            count: 30,
            ..numbered(1)
        });
    });
    first.shutdown_background();
    runtime().block_on(async {
        let store = Store::open_with(&path, tight(1_000))
            .await
            .expect("a store");
        store.close(LONG).await.expect("closed");
        let (kept, lost) = kept_and_lost(&all(&path).await);
        assert_eq!((kept, lost), (10, 500 + 200));
        // It is told once.
        let store = Store::open_with(&path, tight(1_000))
            .await
            .expect("a store");
        store.close(LONG).await.expect("closed");
        assert_eq!(kept_and_lost(&all(&path).await), (10, 700));
    });
}

/// Lines as an export writes them.
async fn lines(path: &Path) -> Vec<String> {
    let mut connection = stranger(path).await;
    let id: String = sqlx::query_scalar("SELECT chain_id FROM head")
        .fetch_one(&mut connection)
        .await
        .expect("an id");
    let node: String = sqlx::query_scalar("SELECT node FROM head")
        .fetch_one(&mut connection)
        .await
        .expect("a node");
    let rows =
        sqlx::query("SELECT sequence, time, class, chain, body FROM records ORDER BY sequence")
            .fetch_all(&mut connection)
            .await
            .expect("rows");
    let mut previous = crate::audit::chain::genesis(&node, &id);
    let mut lines = Vec::new();
    for row in rows {
        let chain: Vec<u8> = row.get("chain");
        let hash = crate::audit::chain::Hash::from_slice(&chain).expect("a hash");
        let fields = ChainFields {
            id: id.clone(),
            sequence: row.get("sequence"),
            time: row.get("time"),
            class: row.get("class"),
            previous: previous.to_string(),
            hash: hash.to_string(),
            digest: None,
            path: None,
            checkpoint: None,
        };
        lines.push(fields.line(row.get("body")).expect("JSON"));
        previous = hash;
    }
    connection.close().await.expect("closed");
    lines
}

#[tokio::test]
async fn an_export_is_verified_without_agent_and_database() {
    let (_directory, path) = place();
    written(&path, 1, RECORDS).await;
    let keys = KeyFiles::beside(&path).public().expect("keys");
    let note = std::fs::read_to_string(path.with_extension("checkpoint")).expect("a note");
    let note = serde_json::json!({ "checkpoint": note }).to_string();
    let good = [lines(&path).await, vec![note]].concat();
    let check = |lines: &[String], filtered| {
        verify_export(lines.join("\n").as_bytes(), &keys, filtered)
            .map(|exported| exported.signed)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(&good, false), Ok(u64::from(RECORDS)));
    // Absent or null, in whatever order: it says the same.
    let spelled: serde_json::Value = serde_json::from_str(&good[0]).expect("JSON");
    let stored: StoredRecord = serde_json::from_value(spelled.clone()).expect("a record");
    let mut long = serde_json::to_value(stored).expect("JSON");
    long["chain"] = spelled["chain"].clone();
    let mut other = good.clone();
    other[0] = long.to_string();
    assert_eq!(check(&other, false), Ok(u64::from(RECORDS)));

    let mut altered = good.clone();
    altered[6] = altered[6].replace("build-1", "build-2");
    let error = check(&altered, false).expect_err("altered");
    assert!(error.contains("record 7"), "{error}");
    let mut removed = good.clone();
    removed.remove(9);
    let error = check(&removed, false).expect_err("removed");
    assert!(error.contains("records 10 to 10 are missing"), "{error}");
    // With filters, what is cut off from the signature is not counted as signed.
    assert_eq!(check(&removed, true), Ok(u64::from(RECORDS) - 10));
}

#[tokio::test]
async fn a_record_and_the_growth_of_the_chain_are_proven_by_single_lines() {
    let (_directory, path) = place();
    written(&path, 1, 21).await;
    let old = std::fs::read_to_string(path.with_extension("checkpoint")).expect("a note");
    written(&path, 22, RECORDS).await;
    let keys = KeyFiles::beside(&path).public().expect("keys");
    let reader = Reader::open(&path).await.expect("readable");
    for sequence in [1, 17, 40] {
        let line = reader.prove(sequence).await.expect("a proof");
        let proven = verify_export(line.as_bytes(), &keys, false).expect("proven");
        assert_eq!((proven.records, proven.signed), (1, 1));
        let forged = line.replace("api.example.com", "www.example.com");
        assert!(verify_export(forged.as_bytes(), &keys, false).is_err());
    }
    let line = reader.prove_consistency(&old).await.expect("a proof");
    assert!(verify_export(line.as_bytes(), &keys, false).is_ok());
    let mut forged: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let path = forged["consistency"]["path"]
        .as_array_mut()
        .expect("a path");
    path.reverse();
    let forged = forged.to_string();
    assert!(verify_export(forged.as_bytes(), &keys, false).is_err());
    assert!(reader.prove(41).await.is_err(), "no such record");
    reader.close().await;
}
