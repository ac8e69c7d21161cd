//! The second back end: PostgreSQL, to which nodes ship what they wrote locally.

mod copy;
mod inspect;
mod ship;

pub use inspect::verify_postgres;
pub(super) use ship::Shipper;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use std::str::FromStr;

/// The schema, one file per step, never changed once released.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// What every query selects of a record.
const COLUMNS: &str = "sequence, time, class, hash, body, digest, kind, sandbox, task, project, \
    outcome, reason, address, name_key";

/// Connects and brings the schema up to date.
async fn connect(url: &str) -> Result<PgConnection, ShipError> {
    let mut connection = PgConnectOptions::from_str(url)?
        .application_name("egress-agent")
        .disable_statement_logging()
        .connect()
        .await?;
    // `run` wants an `Acquire`, with which no future of a caller is `Send`.
    MIGRATIONS.run_direct(None, &mut connection, false).await?;
    Ok(connection)
}

/// Why nothing can be shipped; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// Either database failed.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The schema of the other side is not ours.
    #[error("the schema cannot be brought up to date: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// The other side has more of a chain than this node ever wrote.
    #[error(
        "PostgreSQL has {there} records of chain {chain}, and this node wrote {here}: another node has the \
         same name and chain, or the local file was replaced by an older copy"
    )]
    Ahead {
        /// The chain.
        chain: String,
        /// Records there.
        there: i64,
        /// Records here.
        here: i64,
    },
    /// A record that somebody altered.
    #[error("record {0} cannot be read; run `egressctl audit verify`")]
    Unreadable(i64),
    /// A time that is in no calendar.
    #[error("record {0} has a time that is in no calendar")]
    Time(i64),
}
