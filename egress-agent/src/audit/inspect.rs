//! Verifies the chain of a SQLite store.

use crate::audit::chain::{self, Hash, Header};
use crate::audit::checkpoint::{Checkpoint, origin};
use crate::audit::columns::RARE_KIND;
use crate::audit::note::PublicKey;
use crate::audit::retention::Taking;
use crate::audit::row::{damaged, invalid};
use crate::audit::tree::Frontier;
use crate::audit::upkeep::successor;
use crate::audit::verify::{AddressColumn, Columns, Content, Entry, Finding, Summary, Walk};
use crate::model::RecordKind;
use futures_util::StreamExt;
use serde::Deserialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection, SqlitePool};

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
///
/// What stands beside a body is one value, [`Beside`] or [`Left`]: each value of a row is
/// copied by itself on its way out of SQLite's thread, which costs more than to
/// put them together and to take them apart.
pub(super) const ENTRIES: &str = "SELECT records.sequence, json_array(time, class, hex(chain), kind, \
    sandbox, task, project, outcome, reason, iif(address_key IS NULL, NULL, hex(address_key)), name_key) \
    AS beside, body FROM records LEFT JOIN subjects ON subjects.id = records.subject \
    WHERE records.sequence BETWEEN ?1 AND ?2 \
    UNION ALL SELECT sequence, json_array(time, class, hex(chain), hex(digest)), NULL \
    FROM erased WHERE sequence BETWEEN ?1 AND ?2 ORDER BY sequence";

/// What stands beside a body, in the order of [`ENTRIES`].
#[derive(Deserialize)]
struct Beside<'a> {
    time: i64,
    class: u8,
    chain: &'a str,
    kind: Option<String>,
    sandbox: Option<String>,
    task: Option<String>,
    project: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    address_key: Option<&'a str>,
    name_key: Option<String>,
}

/// What is left where retention took the body, in the order of [`ENTRIES`].
#[derive(Deserialize)]
struct Left<'a> {
    time: i64,
    class: u8,
    chain: &'a str,
    digest: &'a str,
}

/// Rows that are checked without a look at whether more have come.
const BURST: usize = 1_024;

/// Verifies what `span` says against the signed checkpoints of the store, and
/// against those that were kept elsewhere. `see` is shown every link, also behind
/// the first that is wrong; without it, the walk ends there.
pub(super) async fn verify(
    pool: &SqlitePool,
    span: Span,
    keys: &[PublicKey],
    elsewhere: &[String],
    mut see: Option<&mut (dyn FnMut(&Entry) + Send)>,
) -> Result<Verification, sqlx::Error> {
    // One transaction, so that a writer cannot move the end meanwhile.
    let mut transaction = pool.begin().await?;
    let (node, chain_id, head): (String, String, i64) =
        sqlx::query_as("SELECT node, chain_id, sequence FROM head")
            .fetch_one(&mut *transaction)
            .await?;
    let plan = plan(&mut transaction, (&node, &chain_id), span, keys, elsewhere).await?;
    let (first, last, mut walk) = match plan {
        Ok(Plan { first, last, walk }) => (first, last, Ok(walk)),
        Err(finding) => (1, i64::MAX, Err(finding)),
    };
    if walk.is_ok() || see.is_some() {
        let entries = sqlx::query(AssertSqlSafe(ENTRIES))
            .bind(first)
            .bind(last)
            .fetch(&mut *transaction);
        // In bursts: to hand over each row by itself costs more than to check it.
        let mut bursts = entries.ready_chunks(BURST);
        'rows: while let Some(burst) = bursts.next().await {
            for row in burst {
                let entry = entry(&row?)?;
                if let Ok(good) = &mut walk
                    && let Err(finding) = good.step(&entry)
                {
                    walk = Err(finding);
                }
                match &mut see {
                    Some(see) => see(&entry),
                    None if walk.is_err() => break 'rows,
                    None => {}
                }
            }
        }
    }
    let head = if last == i64::MAX { head } else { last };
    Ok(Verification {
        node,
        chain_id,
        result: walk.and_then(|walk| walk.finish(Some(head))),
    })
}

/// What is walked, and what is expected on the way.
struct Plan {
    first: i64,
    last: i64,
    walk: Walk,
}

async fn plan(
    connection: &mut SqliteConnection,
    (node, chain_id): (&str, &str),
    span: Span,
    keys: &[PublicKey],
    elsewhere: &[String],
) -> Result<Result<Plan, Finding>, sqlx::Error> {
    let mut trusted = keys.to_vec();
    let mut takings = Vec::new();
    let statement =
        format!("SELECT body FROM records WHERE {RARE_KIND} AND kind = ? ORDER BY sequence");
    let told: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(RecordKind::Evidence.name())
        .fetch_all(&mut *connection)
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
        .fetch_all(&mut *connection)
        .await?;
    let mut walk = Walk::from_start(node, chain_id);
    let mut first = 1;
    let mut last = i64::MAX;
    let mut expected = Vec::new();
    for row in &rows {
        let size: i64 = row.try_get("size")?;
        let note: &str = row.try_get("note")?;
        let wrong = |problem: String| {
            Ok(Err(Finding::Checkpoint {
                size: size.unsigned_abs(),
                problem,
            }))
        };
        let checkpoint = match Checkpoint::open(note, &trusted) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return wrong(error.to_string()),
        };
        if checkpoint.size != size.unsigned_abs() || checkpoint.chain_id != chain_id {
            return wrong("it was signed for another place or chain".to_owned());
        }
        if span.from.is_some_and(|from| size < from) {
            let frontier: &[u8] = row.try_get("frontier")?;
            let frontier = Frontier::from_bytes(checkpoint.size, frontier);
            let Some(frontier) = frontier.filter(|known| known.root() == checkpoint.root) else {
                return wrong("the tree that is kept beside it is another".to_owned());
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
    if let Err(finding) = expect_kept(&mut walk, (node, chain_id), elsewhere, &trusted) {
        return Ok(Err(finding));
    }
    for taking in takings {
        walk.allow_erased(taking.class as u8, taking.before);
    }
    Ok(Ok(Plan { first, last, walk }))
}

/// Expects the checkpoints that were kept elsewhere. A sink may hold those of
/// earlier chains, too, but one of this chain has to be among them.
fn expect_kept(
    walk: &mut Walk,
    (node, chain_id): (&str, &str),
    elsewhere: &[String],
    trusted: &[PublicKey],
) -> Result<(), Finding> {
    let own = origin(node, chain_id);
    let mut other = None;
    let mut found = false;
    for note in elsewhere {
        let first = note.lines().next().unwrap_or_default();
        if first != own {
            other = Some(first.to_owned());
            continue;
        }
        let kept = Checkpoint::open(note, trusted).map_err(|error| Finding::Checkpoint {
            size: 0,
            problem: error.to_string(),
        })?;
        found = true;
        walk.expect(kept);
    }
    match other {
        Some(found_only) if !found => Err(Finding::OtherChain {
            found: found_only,
            expected: own,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Reads a row of [`ENTRIES`].
pub(super) fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let sequence: i64 = row.try_get("sequence")?;
    let beside: &str = row.try_get("beside")?;
    let body: Option<String> = row.try_get("body")?;
    let unreadable = |error| invalid(&format!("columns of record {sequence}"), error);
    let (time, class, chain, content, columns) = match body {
        Some(body) => {
            let beside: Beside<'_> = serde_json::from_str(beside).map_err(unreadable)?;
            let columns = Columns {
                kind: beside.kind,
                sandbox: beside.sandbox,
                task: beside.task,
                project: beside.project,
                outcome: beside.outcome,
                reason: beside.reason,
                address: AddressColumn::Key(beside.address_key.and_then(chain::bytes)),
                name_key: beside.name_key,
            };
            let content = Content::Body(body);
            (
                beside.time,
                beside.class,
                beside.chain,
                content,
                Some(columns),
            )
        }
        None => {
            let left: Left<'_> = serde_json::from_str(beside).map_err(unreadable)?;
            let digest = Hash::parse(left.digest).ok_or_else(|| damaged("digest"))?;
            (
                left.time,
                left.class,
                left.chain,
                Content::Erased(digest),
                None,
            )
        }
    };
    Ok(Entry {
        header: Header {
            sequence,
            time,
            class,
        },
        // A hash of another length is none that the walk can come to.
        chain: Hash::parse(chain).unwrap_or(Hash([0; 32])),
        content,
        columns,
    })
}
