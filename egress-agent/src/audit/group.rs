//! Counting instead of listing.

use crate::audit::columns::{
    ADDRESS, COMMAND, COUNT, HOOK, KIND, NAME, OUTCOME, POLICY, PORT, PROJECT, PROTOCOL, REASON,
    RULE_FILE, RULE_LINE, SANDBOX, SESSION, TASK,
};
use crate::audit::{AuditError, Query, Reader, open};
use serde::Serialize;
use sqlx::{QueryBuilder, Row, Sqlite};

/// Declares what can be grouped by: variant, name, SQL over the columns.
macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, [$($sql:expr),+];)+) => {
        /// What records can be grouped by.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum GroupField { $($(#[$doc])* $variant),+ }

        impl GroupField {
            /// Every field, in the order in which help lists them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name on the command line and in the answer.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it is in SQL, in parts. Constant text, nothing of the caller's.
            const fn sql(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($sql),+]),+ }
            }
        }
    };
}

fields! {
    /// The sandbox's name.
    Sandbox = "sandbox", [SANDBOX];
    /// The policy's name.
    Policy = "policy", [POLICY];
    /// The session.
    Session = "session", [SESSION];
    /// The task.
    Task = "task", [TASK];
    /// The project.
    Project = "project", [PROJECT];
    /// What it is about.
    Kind = "kind", [KIND];
    /// How it ended.
    Verdict = "verdict", [OUTCOME];
    /// Why it was refused.
    Reason = "reason", [REASON];
    /// The domain name.
    Name = "name", [NAME];
    /// The address.
    Address = "address", [ADDRESS];
    /// The port.
    Port = "port", ["CAST(", PORT, " AS TEXT)"];
    /// The transport.
    Protocol = "protocol", [PROTOCOL];
    /// The name where there is one, else the address.
    Destination = "destination", ["coalesce(", NAME, ", ", ADDRESS, ")"];
    /// File and line of the rule.
    Rule = "rule", ["(", RULE_FILE, ") || ':' || (", RULE_LINE, ")"];
    /// The process's command name.
    Command = "command", [COMMAND];
    /// Which hook judged.
    Hook = "hook", [HOOK];
    /// The hour, UTC.
    Hour = "hour", ["strftime('%Y-%m-%dT%H:00:00Z', time / 1000000, 'unixepoch')"];
    /// The day, UTC.
    Day = "day", ["strftime('%Y-%m-%d', time / 1000000, 'unixepoch')"];
}

/// One group of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Group {
    /// The values, in the order of the fields that were asked for; `None` where
    /// the records have none.
    pub values: Vec<Option<String>>,
    /// How many records.
    pub records: u64,
    /// How many decisions they stand for: the sum of their `count`.
    pub count: u64,
    /// The earliest.
    pub first: jiff::Timestamp,
    /// The latest.
    pub last: jiff::Timestamp,
}

impl Reader {
    /// Counts the records that the query means, by these fields: the largest
    /// counts first, at most [`Query::limit`] groups. The query's order has no part in it.
    pub async fn groups(&self, query: &Query, by: &[GroupField]) -> Result<Vec<Group>, AuditError> {
        let mut statement = QueryBuilder::<Sqlite>::new("SELECT ");
        for field in by {
            for part in field.sql() {
                statement.push(*part);
            }
            statement.push(", ");
        }
        statement
            .push("count(*), sum(")
            .push(COUNT)
            .push("), min(time), max(time) FROM records");
        query.conditions(&mut statement);
        if !by.is_empty() {
            let places: Vec<String> = (1..=by.len()).map(|place| place.to_string()).collect();
            statement.push(" GROUP BY ").push(places.join(", "));
        }
        // Counting nothing gives one row without a time.
        statement.push(" HAVING count(*) > 0");
        let sum = by.len() + 2;
        statement.push(format!(" ORDER BY {sum} DESC"));
        for place in 1..=by.len() {
            statement.push(format!(", {place}"));
        }
        if let Some(limit) = query.limit {
            statement.push(" LIMIT ").push_bind(i64::from(limit));
        }
        let rows = statement.build().fetch_all(self.pool()).await;
        rows.and_then(|rows| rows.iter().map(|row| group(row, by.len())).collect())
            .map_err(|source| open::database(self.path(), source))
    }
}

fn group(row: &sqlx::sqlite::SqliteRow, fields: usize) -> Result<Group, sqlx::Error> {
    let number = |at: usize| {
        row.try_get::<i64, _>(at)
            .map(|value| u64::try_from(value).unwrap_or(0))
    };
    let time = |at: usize| {
        jiff::Timestamp::from_microsecond(row.try_get(at)?)
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    Ok(Group {
        values: (0..fields)
            .map(|at| row.try_get(at))
            .collect::<Result<_, _>>()?,
        records: number(fields)?,
        count: number(fields + 1)?,
        first: time(fields + 2)?,
        last: time(fields + 3)?,
    })
}
