//! Records to rows and back.

use crate::audit::StoredRecord;
use crate::audit::stored::StoredRule;
use crate::model::{Attribution, Record};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::net::{IpAddr, Ipv6Addr};

/// The columns in the order in which they are bound; `sequence` is SQLite's to give.
const INSERT: &str = "INSERT INTO records (time, kind, sandbox_id, sandbox, policy, task, \
    session, project, on_behalf_of, labels, process, command, user, hook, address, address_key, port, protocol, name, name_key, query_type, \
    rule_file, rule_line, rule_text, outcome, reason, count, detail) ";

/// Rows per statement. SQLite compiles each length once; 64 rows already cost
/// little more than the rows themselves.
const ROWS_PER_STATEMENT: usize = 64;

/// What a query selects, for [`read`].
pub(super) const SELECT: &str = "SELECT sequence, time, kind, sandbox_id, sandbox, policy, \
    task, session, project, on_behalf_of, labels, process, command, user, hook, address, port, protocol, name, query_type, rule_file, \
    rule_line, rule_text, outcome, reason, count, detail FROM records";

/// Writes records in their order, inside the caller's transaction.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    records: &[Record],
) -> Result<(), sqlx::Error> {
    for chunk in records.chunks(ROWS_PER_STATEMENT) {
        let mut statement = QueryBuilder::<Sqlite>::new(INSERT);
        statement.push_values(chunk, |mut row, record| {
            let rule = record.rule.as_ref();
            let attribution = record.attribution.as_deref();
            row.push_bind(record.time.as_microsecond())
                .push_bind(record.kind.name())
                .push_bind(record.sandbox_id.map(|id| i64::from(id.0)))
                .push_bind(record.sandbox.as_deref())
                .push_bind(record.policy.as_deref())
                .push_bind(attribution.and_then(|a| a.task.as_deref()))
                .push_bind(attribution.and_then(|a| a.session.as_deref()))
                .push_bind(attribution.and_then(|a| a.project.as_deref()))
                .push_bind(attribution.and_then(|a| a.on_behalf_of.as_deref()))
                .push_bind(attribution.and_then(labels_text))
                .push_bind(record.process.map(i64::from))
                .push_bind(record.command.as_deref())
                .push_bind(record.user.map(i64::from))
                .push_bind(record.hook)
                .push_bind(record.address.map(|address| address.to_string()))
                .push_bind(record.address.map(address_key))
                .push_bind(record.port.map(i64::from))
                .push_bind(record.protocol.as_deref())
                .push_bind(record.name.as_deref())
                .push_bind(record.name.as_deref().map(name_key))
                .push_bind(record.query_type.as_deref())
                .push_bind(rule.map(|rule| rule.file.to_string_lossy().into_owned()))
                .push_bind(rule.map(|rule| i64::from(rule.line)))
                .push_bind(rule.map(|rule| rule.text.to_string()))
                .push_bind(record.outcome.map(|outcome| outcome.name()))
                .push_bind(record.reason.map(|reason| reason.name()))
                .push_bind(i64::try_from(record.count.max(1)).unwrap_or(i64::MAX))
                .push_bind(record.detail.as_deref());
        });
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Reads a row of [`SELECT`].
pub(super) fn read(row: &SqliteRow) -> Result<StoredRecord, sqlx::Error> {
    let rule = match row.try_get::<Option<String>, _>("rule_file")? {
        Some(file) => Some(StoredRule {
            file,
            line: row.try_get::<Option<u32>, _>("rule_line")?.unwrap_or(0),
            text: row
                .try_get::<Option<String>, _>("rule_text")?
                .unwrap_or_default(),
        }),
        None => None,
    };
    let address: Option<String> = row.try_get("address")?;
    let address = address
        .map(|text| text.parse::<IpAddr>())
        .transpose()
        .map_err(|error| invalid("address", error))?;
    let time = jiff::Timestamp::from_microsecond(row.try_get("time")?)
        .map_err(|error| invalid("time", error))?;
    let labels: Option<String> = row.try_get("labels")?;
    let labels = labels
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| invalid("labels", error))?;
    let count: i64 = row.try_get("count")?;
    Ok(StoredRecord {
        sequence: row.try_get("sequence")?,
        time,
        kind: row.try_get("kind")?,
        sandbox_id: row.try_get("sandbox_id")?,
        sandbox: row.try_get("sandbox")?,
        policy: row.try_get("policy")?,
        task: row.try_get("task")?,
        session: row.try_get("session")?,
        project: row.try_get("project")?,
        on_behalf_of: row.try_get("on_behalf_of")?,
        labels: labels.unwrap_or_default(),
        process: row.try_get("process")?,
        command: row.try_get("command")?,
        user: row.try_get("user")?,
        hook: row.try_get("hook")?,
        address,
        port: row.try_get("port")?,
        protocol: row.try_get("protocol")?,
        name: row.try_get("name")?,
        query_type: row.try_get("query_type")?,
        rule,
        verdict: row.try_get("outcome")?,
        reason: row.try_get("reason")?,
        count: u64::try_from(count).map_err(|error| invalid("count", error))?,
        detail: row.try_get("detail")?,
    })
}

fn invalid(column: &str, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(source),
    }
}

/// The labels as a JSON object, which SQLite's `labels ->> '$.key'` looks into;
/// none where there are none.
fn labels_text(attribution: &Attribution) -> Option<String> {
    (!attribution.labels.is_empty()).then(|| serde_json::json!(attribution.labels).to_string())
}

/// An address as bytes whose order is the order of addresses.
pub(super) fn address_key(address: IpAddr) -> Vec<u8> {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.octets().to_vec()
}

/// A name from its last label to its first: `api.example.com` is `com.example.api`.
pub(super) fn name_key(name: &str) -> String {
    let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let labels: Vec<&str> = bare.rsplit('.').collect();
    labels.join(".")
}
