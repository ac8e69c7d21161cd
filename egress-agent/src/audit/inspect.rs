//! Verifies the chain of a SQLite store.

use crate::audit::chain::{Hash, Header};
use crate::audit::checkpoint::{Checkpoint, origin};
use crate::audit::note::PublicKey;
use crate::audit::retention::Taking;
use crate::audit::row::{damaged, invalid};
use crate::audit::tree::Frontier;
use crate::audit::upkeep::successor;
use crate::audit::verify::{Columns, Content, Entry, Finding, Summary, Walk};
use crate::model::RecordKind;
use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqlitePool};

/// What is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// From this place; from the beginning if absent.
    pub from: Option<i64>,
    /// To this place; to the end if absent.
    pub to: Option<i64>,
}

/// What came of a verification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verification {
    /// The node and its chain.
    pub node: String,
    /// The chain's id.
    pub chain_id: String,
    /// How far it is good, or what is wrong first.
    pub result: Result<Summary, Finding>,
}

/// Links of the chain with what stands beside them, whether erased or not.
pub(super) const ENTRIES: &str = "SELECT sequence, time, class, chain, body, kind, sandbox, task, \
    project, outcome, reason, address_key, name_key, NULL AS digest FROM records \
    WHERE sequence BETWEEN ?1 AND ?2 \
    UNION ALL SELECT sequence, time, class, chain, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
    NULL, digest FROM erased WHERE sequence BETWEEN ?1 AND ?2 ORDER BY sequence";

/// Verifies what `span` says against the signed checkpoints of the store, and
/// against one that was kept elsewhere.
pub(super) async fn verify(
    pool: &SqlitePool,
    span: Span,
    keys: &[PublicKey],
    elsewhere: Option<&str>,
) -> Result<Verification, sqlx::Error> {
    // One transaction, so that a writer cannot move the end meanwhile.
    let mut transaction = pool.begin().await?;
    let (node, chain_id, head): (String, String, i64) =
        sqlx::query_as("SELECT node, chain_id, sequence FROM head")
            .fetch_one(&mut *transaction)
            .await?;
    let verification = |result| Verification {
        node: node.clone(),
        chain_id: chain_id.clone(),
        result,
    };

    let mut trusted = keys.to_vec();
    let mut takings = Vec::new();
    let told: Vec<String> =
        sqlx::query_scalar("SELECT body FROM records WHERE kind = ? ORDER BY sequence")
            .bind(RecordKind::Evidence.name())
            .fetch_all(&mut *transaction)
            .await?;
    for body in &told {
        // What is no JSON is found by the walk, which names its place.
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let detail = body["detail"].as_str().unwrap_or_default();
        takings.extend(Taking::read(detail));
        let signature = body["digest"].as_str().unwrap_or_default();
        trusted.extend(successor(detail, signature, &trusted));
    }

    let rows = sqlx::query("SELECT size, note, frontier FROM checkpoints ORDER BY size")
        .fetch_all(&mut *transaction)
        .await?;
    let mut walk = Walk::from_start(&node, &chain_id);
    let mut first = 1;
    let mut last = i64::MAX;
    let mut expected = Vec::new();
    for row in &rows {
        let size: i64 = row.try_get("size")?;
        let note: &str = row.try_get("note")?;
        let wrong = |problem: String| Finding::Checkpoint {
            size: size.unsigned_abs(),
            problem,
        };
        let checkpoint = match Checkpoint::open(note, &trusted) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Ok(verification(Err(wrong(error.to_string())))),
        };
        if checkpoint.size != size.unsigned_abs() || checkpoint.chain_id != chain_id {
            let problem = "it was signed for another place or chain".to_owned();
            return Ok(verification(Err(wrong(problem))));
        }
        if span.from.is_some_and(|from| size < from) {
            let frontier: &[u8] = row.try_get("frontier")?;
            let frontier = Frontier::from_bytes(checkpoint.size, frontier);
            let Some(frontier) = frontier.filter(|known| known.root() == checkpoint.root) else {
                let problem = "the tree that is kept beside it is another".to_owned();
                return Ok(verification(Err(wrong(problem))));
            };
            first = size + 1;
            walk = Walk::new(checkpoint.chain, Some(frontier), first);
            expected.clear();
        } else {
            expected.push(checkpoint);
            if span.to.is_some_and(|to| size >= to) {
                last = size;
                break;
            }
        }
    }
    for checkpoint in expected {
        walk.expect(checkpoint);
    }
    if let Some(note) = elsewhere {
        match Checkpoint::open(note, &trusted) {
            Ok(kept) if kept.chain_id != chain_id => {
                return Ok(verification(Err(Finding::OtherChain {
                    found: origin(&kept.node, &kept.chain_id),
                    expected: origin(&node, &chain_id),
                })));
            }
            Ok(kept) => walk.expect(kept),
            Err(error) => {
                return Ok(verification(Err(Finding::Checkpoint {
                    size: 0,
                    problem: error.to_string(),
                })));
            }
        }
    }
    for taking in takings {
        walk.allow_erased(taking.class as u8, taking.before);
    }

    let mut entries = sqlx::query(AssertSqlSafe(ENTRIES))
        .bind(first)
        .bind(last)
        .fetch(&mut *transaction);
    while let Some(row) = entries.try_next().await? {
        let entry = entry(&row)?;
        if let Err(finding) = walk.step(&entry) {
            return Ok(verification(Err(finding)));
        }
    }
    drop(entries);
    let head = if last == i64::MAX { head } else { last };
    let result = walk.finish(Some(head));
    Ok(verification(result))
}

/// Reads a row of [`ENTRIES`].
pub(super) fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let class: i64 = row.try_get("class")?;
    let chain: &[u8] = row.try_get("chain")?;
    let body: Option<String> = row.try_get("body")?;
    let (content, columns) = match body {
        Some(body) => {
            let columns = Columns {
                kind: row.try_get("kind")?,
                sandbox: row.try_get("sandbox")?,
                task: row.try_get("task")?,
                project: row.try_get("project")?,
                outcome: row.try_get("outcome")?,
                reason: row.try_get("reason")?,
                address_key: row.try_get("address_key")?,
                name_key: row.try_get("name_key")?,
            };
            (Content::Body(body), Some(columns))
        }
        None => {
            let digest: &[u8] = row.try_get("digest")?;
            let digest = Hash::from_slice(digest).ok_or_else(|| damaged("digest"))?;
            (Content::Erased(digest), None)
        }
    };
    Ok(Entry {
        header: Header {
            sequence: row.try_get("sequence")?,
            time: row.try_get("time")?,
            class: u8::try_from(class).map_err(|error| invalid("class", error))?,
        },
        // A hash of another length is none that the walk can come to.
        chain: Hash::from_slice(chain).unwrap_or(Hash([0; 32])),
        content,
        columns,
    })
}
