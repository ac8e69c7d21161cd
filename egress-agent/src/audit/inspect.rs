//! Verifies the chain of a SQLite store.

use crate::audit::checkpoint::{Checkpoint, origin};
use crate::audit::columns::RARE_KIND;
use crate::audit::entries::Entries;
use crate::audit::note::PublicKey;
use crate::audit::retention::Taking;
use crate::audit::schema;
use crate::audit::tree::Frontier;
use crate::audit::upkeep::successor;
use crate::audit::verify::{Entry, Finding, Summary, Walk};
use crate::model::RecordKind;
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
    let chain = (node.as_str(), chain_id.as_str(), head);
    let plan = plan(&mut transaction, chain, span, keys, elsewhere).await?;
    let (first, last, mut walk) = match plan {
        Ok(Plan { first, last, walk }) => (first, last, Ok(walk)),
        Err(finding) => (FIRST, i64::MAX, Err(finding)),
    };
    if let Some(name) = schema::alteration(&mut transaction).await? {
        walk = Err(Finding::Schema { name });
    }
    if walk.is_ok() || see.is_some() {
        let mut entries = Entries::between(first, last);
        let mut next = entries.next(&mut transaction).await?;
        while let Some(part) = next {
            // SQLite puts the next part together meanwhile.
            let checking = async {
                let links = part.entries().ok()?;
                check(&links, &mut walk, &mut see);
                Some(())
            };
            let (following, checked) = tokio::join!(entries.next(&mut transaction), checking);
            if checked.is_none() {
                let links = Entries::one_by_one(&part, &mut transaction).await?;
                check(&links, &mut walk, &mut see);
            }
            if walk.is_err() && see.is_none() {
                break;
            }
            next = following?;
        }
    }
    let head = if last == i64::MAX { head } else { last };
    Ok(Verification {
        node,
        chain_id,
        result: walk.and_then(|walk| walk.finish(Some(head))),
    })
}

/// Where a walk from the beginning begins to read: no record has a place before 1, but whoever alters the file
/// can give it one, and questions would find it.
const FIRST: i64 = i64::MIN;

/// Takes the links of a part, up to the first that is wrong, and shows all of them.
fn check(
    links: &[Entry],
    walk: &mut Result<Walk, Finding>,
    see: &mut Option<&mut (dyn FnMut(&Entry) + Send)>,
) {
    for entry in links {
        if let Ok(good) = walk
            && let Err(finding) = good.step(entry)
        {
            *walk = Err(finding);
        }
        match see {
            Some(see) => see(entry),
            None if walk.is_err() => break,
            None => {}
        }
    }
}

/// What is walked, and what is expected on the way.
struct Plan {
    first: i64,
    last: i64,
    walk: Walk,
}

async fn plan(
    connection: &mut SqliteConnection,
    (node, chain_id, head): (&str, &str, i64),
    span: Span,
    keys: &[PublicKey],
    elsewhere: &[String],
) -> Result<Result<Plan, Finding>, sqlx::Error> {
    let mut trusted = keys.to_vec();
    let mut takings = Vec::new();
    let statement = format!(
        "SELECT body FROM records WHERE {RARE_KIND} AND kind = ? AND sequence BETWEEN 1 AND ? ORDER BY sequence"
    );
    let told: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(RecordKind::Evidence.name())
        .bind(head)
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
    let mut first = FIRST;
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
