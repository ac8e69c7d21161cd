//! What the file is made of. Whoever alters that can hide records from questions and leave each of them as it
//! was: an index that holds all records but one answers for all.

use crate::audit::open::MIGRATIONS;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::collections::BTreeSet;

/// Kind, name and words of something in a file.
type Object = (String, String, String);

/// The name of something that is not as the migrations make it, or of a trigger, since they make none.
/// Further tables, indices and views take nothing away, and may be somebody's own.
pub(super) async fn alteration(
    connection: &mut SqliteConnection,
) -> Result<Option<String>, sqlx::Error> {
    let mut fresh = SqliteConnectOptions::new()
        .in_memory(true)
        .connect()
        .await?;
    MIGRATIONS.run_direct(None, &mut fresh, false).await?;
    let expected = objects(&mut fresh).await?;
    fresh.close().await?;
    let found = objects(connection).await?;
    let missing = expected.difference(&found).next();
    let trigger = found.iter().find(|(kind, ..)| kind == "trigger");
    Ok(missing.or(trigger).map(|(_, name, _)| name.clone()))
}

async fn objects(connection: &mut SqliteConnection) -> Result<BTreeSet<Object>, sqlx::Error> {
    let found: Vec<Object> = sqlx::query_as(
        "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB '_sqlx_*'",
    )
    .fetch_all(connection)
    .await?;
    let plain = |(kind, name, words): Object| {
        let words: Vec<&str> = words.split_whitespace().collect();
        (kind, name, words.join(" "))
    };
    Ok(found.into_iter().map(plain).collect())
}
