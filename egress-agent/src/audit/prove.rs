//! Proofs that can be verified without the store: that a record is one of those
//! that the node signed, and that one checkpoint continues another.

use crate::audit::chain::{self, Hash};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::entries::Entries;
use crate::audit::exported::ChainFields;
use crate::audit::tree;
use crate::audit::verify::Content;
use sqlx::SqlitePool;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The store failed.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// Nothing signed covers it.
    #[error("no checkpoint covers {0} yet; one is signed each minute while records come")]
    NotSigned(String),
    /// The store does not have what the checkpoint speaks of.
    #[error(
        "the store does not hold all {0} records that the checkpoint speaks for; run `egressctl audit verify`"
    )]
    Incomplete(u64),
    /// It cannot be written as JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

struct Leaves {
    leaves: Vec<Hash>,
    chains: Vec<Hash>,
}

async fn leaves(pool: &SqlitePool, size: i64) -> Result<Leaves, ProofError> {
    let mut found = Leaves {
        leaves: Vec::new(),
        chains: Vec::new(),
    };
    let mut connection = pool.acquire().await?;
    let mut entries = Entries::between(1, size);
    while let Some(part) = entries.next(&mut connection).await? {
        for entry in part.entries()? {
            let digest = match &entry.content {
                Content::Body(body) => Hash::of(body.as_bytes()),
                Content::Erased(digest) => *digest,
                Content::Unreadable => return Err(ProofError::Incomplete(size.unsigned_abs())),
            };
            found.leaves.push(chain::leaf(&entry.header, &digest));
            found.chains.push(entry.chain);
        }
    }
    if i64::try_from(found.leaves.len()).ok() == Some(size) {
        Ok(found)
    } else {
        Err(ProofError::Incomplete(size.unsigned_abs()))
    }
}

fn texts(path: &[Hash]) -> Vec<String> {
    path.iter().map(Hash::to_string).collect()
}

/// A line like those of an export, with the way from the record to a signed root.
pub(super) async fn inclusion(pool: &SqlitePool, sequence: i64) -> Result<String, ProofError> {
    let missing = || ProofError::NotSigned(format!("record {sequence}"));
    let (size, note): (i64, String) =
        sqlx::query_as("SELECT size, note FROM checkpoints WHERE size >= ? ORDER BY size LIMIT 1")
            .bind(sequence)
            .fetch_optional(pool)
            .await?
            .ok_or_else(missing)?;
    let (node, chain_id): (String, String) = sqlx::query_as("SELECT node, chain_id FROM head")
        .fetch_one(pool)
        .await?;
    let index = usize::try_from(sequence - 1).map_err(|_| missing())?;
    let Leaves { leaves, chains } = leaves(pool, size).await?;
    let own = Entries::between(sequence, sequence)
        .next(&mut *pool.acquire().await?)
        .await?;
    let entry = own.map(|part| part.entries()).transpose()?;
    let entry = entry.into_iter().flatten().next().ok_or_else(missing)?;
    let previous = match index.checked_sub(1) {
        Some(before) => chains[before],
        None => chain::genesis(&node, &chain_id),
    };
    let (body, digest) = match entry.content {
        Content::Body(body) => (body, None),
        Content::Erased(digest) => ("{}".to_owned(), Some(digest.to_string())),
        Content::Unreadable => return Err(ProofError::Incomplete(size.unsigned_abs())),
    };
    let fields = ChainFields {
        id: chain_id,
        sequence,
        time: entry.header.time,
        class: entry.header.class,
        previous: previous.to_string(),
        hash: entry.chain.to_string(),
        digest,
        path: Some(texts(&tree::inclusion_proof(&leaves, index))),
        checkpoint: Some(note),
    };
    Ok(fields.line(&body)?)
}

/// A line that shows how the last checkpoint continues an earlier one.
pub(super) async fn consistency(pool: &SqlitePool, old_note: &str) -> Result<String, ProofError> {
    let missing = |what: &str| ProofError::NotSigned(what.to_owned());
    let old = Checkpoint::unverified(old_note).map_err(|error| missing(&error.to_string()))?;
    let (size, note): (i64, String) =
        sqlx::query_as("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1")
            .fetch_optional(pool)
            .await?
            .ok_or_else(|| missing("the store"))?;
    let Leaves { leaves, .. } = leaves(pool, size).await?;
    let old_size = usize::try_from(old.size).unwrap_or(usize::MAX);
    let proof = texts(&tree::consistency_proof(&leaves, old_size));
    let line = serde_json::json!({
        "consistency": { "old": old_note, "new": note, "path": proof },
    });
    Ok(serde_json::to_string(&line)?)
}
