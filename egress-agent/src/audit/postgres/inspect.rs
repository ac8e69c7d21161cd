//! Verifies the chains that nodes shipped to PostgreSQL.

use super::{COLUMNS, ShipError, connect};
use crate::audit::chain::{Hash, Header};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::inspect::Verification;
use crate::audit::note::PublicKey;
use crate::audit::retention::Taking;
use crate::audit::row::{damaged, invalid};
use crate::audit::upkeep::successor;
use crate::audit::verify::{AddressColumn, Columns, Content, Entry, Finding, Walk};
use crate::model::RecordKind;
use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Verifies every chain of a node, the oldest first.
pub async fn verify_postgres(
    url: &str,
    node: &str,
    keys: &[PublicKey],
) -> Result<Vec<Verification>, ShipError> {
    let mut connection = connect(url).await?;
    let chains: Vec<(String, i64)> = sqlx::query_as(
        "SELECT chain::text, sequence FROM audit_shipped WHERE node = $1 ORDER BY chain",
    )
    .bind(node)
    .fetch_all(&mut connection)
    .await?;
    let mut verifications = Vec::new();
    for (chain, shipped) in chains {
        let result = verify_chain(&mut connection, node, &chain, shipped, keys).await?;
        verifications.push(Verification {
            node: node.to_owned(),
            chain_id: chain,
            result,
        });
    }
    Ok(verifications)
}

async fn verify_chain(
    connection: &mut PgConnection,
    node: &str,
    chain: &str,
    shipped: i64,
    keys: &[PublicKey],
) -> Result<Result<crate::audit::Summary, Finding>, ShipError> {
    let mut walk = Walk::from_start(node, chain);
    let mut trusted = keys.to_vec();
    let told: Vec<String> = sqlx::query_scalar(
        "SELECT body FROM audit_records WHERE node = $1 AND chain = $2::uuid AND kind = $3 \
         AND body IS NOT NULL ORDER BY sequence",
    )
    .bind(node)
    .bind(chain)
    .bind(RecordKind::Evidence.name())
    .fetch_all(&mut *connection)
    .await?;
    for body in &told {
        // What is no JSON is found by the walk, which names its place.
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let detail = body["detail"].as_str().unwrap_or_default();
        if let Some(taking) = Taking::read(detail) {
            walk.allow_erased(taking.class as u8, taking.before);
        }
        let signature = body["digest"].as_str().unwrap_or_default();
        trusted.extend(successor(detail, signature, &trusted));
    }
    let notes: Vec<(i64, String)> = sqlx::query_as(
        "SELECT size, note FROM audit_checkpoints WHERE node = $1 AND chain = $2::uuid ORDER BY size",
    )
    .bind(node)
    .bind(chain)
    .fetch_all(&mut *connection)
    .await?;
    for (size, note) in notes {
        match Checkpoint::open(&note, &trusted) {
            Ok(checkpoint) => walk.expect(checkpoint),
            Err(error) => {
                return Ok(Err(Finding::Checkpoint {
                    size: size.unsigned_abs(),
                    problem: error.to_string(),
                }));
            }
        }
    }
    let statement = format!(
        "SELECT {COLUMNS}, (extract(epoch FROM time) * 1000000)::bigint AS microseconds, \
         host(address) AS host FROM audit_records WHERE node = $1 AND chain = $2::uuid ORDER BY sequence"
    );
    let mut rows = sqlx::query(AssertSqlSafe(statement))
        .bind(node)
        .bind(chain)
        .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        if let Err(finding) = walk.step(&entry(&row)?) {
            return Ok(Err(finding));
        }
    }
    Ok(walk.finish(Some(shipped)))
}

fn entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let class: i16 = row.try_get("class")?;
    let hash: &[u8] = row.try_get("hash")?;
    let body: Option<String> = row.try_get("body")?;
    let (content, columns) = match body {
        Some(body) => (Content::Body(body), Some(columns(row)?)),
        None => {
            let digest: &[u8] = row.try_get("digest")?;
            let digest = Hash::from_slice(digest).ok_or_else(|| damaged("digest"))?;
            (Content::Erased(digest), None)
        }
    };
    Ok(Entry {
        header: Header {
            sequence: row.try_get("sequence")?,
            time: row.try_get("microseconds")?,
            class: u8::try_from(class).map_err(|error| invalid("class", error))?,
        },
        chain: Hash::from_slice(hash).unwrap_or(Hash([0; 32])),
        content,
        columns,
    })
}

fn columns(row: &PgRow) -> Result<Columns, sqlx::Error> {
    let host: Option<&str> = row.try_get("host")?;
    let address = host
        .map(|text| text.parse().map_err(|error| invalid("address", error)))
        .transpose()?;
    Ok(Columns {
        kind: row.try_get("kind")?,
        sandbox: row.try_get("sandbox")?,
        task: row.try_get("task")?,
        project: row.try_get("project")?,
        outcome: row.try_get("outcome")?,
        reason: row.try_get("reason")?,
        address: AddressColumn::Address(address),
        name_key: row.try_get("name_key")?,
    })
}
