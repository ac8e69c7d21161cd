//! Takes the bodies of records whose time is over, and leaves what the chain needs.

use crate::audit::Class;
use crate::audit::chain::Hash;
use crate::model::{Record, RecordKind};
use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection, Row, SqliteConnection};
use std::collections::BTreeMap;

/// Rows per transaction: the writer's own records wait for one at most.
const ROWS: i64 = 2_000;

/// Begins the record that announces what is taken.
const ANNOUNCEMENT: &str = "retention takes ";

/// How long the records of each class are kept; absent means for ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retention(BTreeMap<Class, SignedDuration>);

impl Default for Retention {
    /// 30 days of what was allowed, 1 year of denials, 90 days of limits, 2 years
    /// of alerts and of everything about the product itself.
    fn default() -> Self {
        let days = |days: i64| SignedDuration::from_hours(days * 24);
        Self(BTreeMap::from([
            (Class::Allowed, days(30)),
            (Class::Denied, days(365)),
            (Class::RateLimit, days(90)),
            (Class::Alert, days(730)),
            (Class::Operation, days(730)),
        ]))
    }
}

/// What is taken in one pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taking {
    /// Of this class.
    pub class: Class,
    /// Everything before this time, in microseconds since 1970.
    pub before: i64,
}

impl Taking {
    /// The record that explains what will be missing. It is written before
    /// anything is taken, and is itself kept for ever.
    pub fn announcement(&self, now: Timestamp) -> Record {
        let before = Timestamp::from_microsecond(self.before).unwrap_or(Timestamp::MIN);
        let mut record = Record::new(now, RecordKind::Evidence);
        record.actor = Some("retention".to_owned());
        record.detail = Some(format!(
            "{ANNOUNCEMENT}{} before {before}",
            self.class.name()
        ));
        record
    }

    /// Reads an announcement.
    pub fn read(detail: &str) -> Option<Self> {
        let (class, before) = detail.strip_prefix(ANNOUNCEMENT)?.split_once(" before ")?;
        let class = Class::ALL.into_iter().find(|known| known.name() == class)?;
        let before: Timestamp = before.parse().ok()?;
        Some(Self {
            class,
            before: before.as_microsecond(),
        })
    }
}

impl Retention {
    /// Sets how long a class is kept; `None` is for ever.
    pub fn set(&mut self, class: Class, keep: Option<SignedDuration>) {
        match keep {
            Some(keep) => self.0.insert(class, keep),
            None => self.0.remove(&class),
        };
    }

    /// What is over at `now`, as far as there is any such record.
    pub(super) async fn due(
        &self,
        connection: &mut SqliteConnection,
        now: Timestamp,
    ) -> Result<Vec<Taking>, sqlx::Error> {
        let mut takings = Vec::new();
        for (class, keep) in &self.0 {
            let Ok(before) = now.checked_sub(*keep) else {
                continue;
            };
            let before = before.as_microsecond();
            let found: Option<i64> = sqlx::query_scalar(
                "SELECT sequence FROM records WHERE time < ? AND class = ? LIMIT 1",
            )
            .bind(before)
            .bind(i64::from(*class as u8))
            .fetch_optional(&mut *connection)
            .await?;
            if found.is_some() {
                takings.push(Taking {
                    class: *class,
                    before,
                });
            }
        }
        Ok(takings)
    }
}

/// Takes some of it, up to and with place `last`; returns how many bodies, 0 when all are gone.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    taking: &Taking,
    last: i64,
) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let rows = sqlx::query(
        "SELECT sequence, body FROM records WHERE time < ? AND class = ? AND sequence <= ? LIMIT ?",
    )
    .bind(taking.before)
    .bind(i64::from(taking.class as u8))
    .bind(last)
    .bind(ROWS)
    .fetch_all(&mut *transaction)
    .await?;
    for row in &rows {
        let sequence: i64 = row.try_get("sequence")?;
        let body: &str = row.try_get("body")?;
        sqlx::query(
            "INSERT INTO erased (sequence, time, class, chain, digest) \
             SELECT sequence, time, class, chain, ? FROM records WHERE sequence = ?",
        )
        .bind(Hash::of(body.as_bytes()).0.to_vec())
        .bind(sequence)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM records WHERE sequence = ?")
            .bind(sequence)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(rows.len() as u64)
}
