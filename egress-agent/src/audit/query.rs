//! What is asked of the store.

use crate::audit::DestinationFilter;
use crate::audit::row::SELECT;
use crate::model::RecordKind;
use egress_common::{Outcome, Reason};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite};

/// Which end comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// The latest first; a limit keeps the latest.
    #[default]
    NewestFirst,
    /// The earliest first; a limit keeps the earliest.
    OldestFirst,
}

/// A question: every condition that is set must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Stored after this sequence number: how a follower asks for what is new.
    pub after: Option<i64>,
    /// The sandbox's name; `*` stands for any characters.
    pub sandbox: Option<String>,
    /// How it ended.
    pub verdict: Option<Outcome>,
    /// What it is about.
    pub kind: Option<RecordKind>,
    /// Where to.
    pub destination: Option<DestinationFilter>,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// At most so many.
    pub limit: Option<u32>,
    /// By time, and by sequence number within one time.
    pub order: Order,
}

impl Query {
    /// The statement. Every value is bound, none is text in it.
    pub(super) fn statement(&self) -> QueryBuilder<Sqlite> {
        let mut statement = QueryBuilder::new(SELECT);
        // A constant first condition, so that every other begins with AND.
        statement.push(" WHERE 1");
        if let Some(since) = self.since {
            statement
                .push(" AND time >= ")
                .push_bind(microseconds_up(since));
        }
        if let Some(until) = self.until {
            statement
                .push(" AND time < ")
                .push_bind(microseconds_up(until));
        }
        if let Some(after) = self.after {
            statement.push(" AND sequence > ").push_bind(after);
        }
        if let Some(sandbox) = &self.sandbox {
            let operator = if sandbox.contains('*') { "GLOB" } else { "=" };
            statement
                .push(" AND sandbox ")
                .push(operator)
                .push(" ")
                .push_bind(sandbox.clone());
        }
        if let Some(verdict) = self.verdict {
            statement.push(" AND outcome = ").push_bind(verdict.name());
        }
        if let Some(kind) = self.kind {
            statement.push(" AND kind = ").push_bind(kind.name());
        }
        if let Some(reason) = self.reason {
            statement.push(" AND reason = ").push_bind(reason.name());
        }
        if let Some(destination) = &self.destination {
            statement.push(" AND ");
            destination.condition(&mut statement);
        }
        statement.push(match self.order {
            Order::NewestFirst => " ORDER BY time DESC, sequence DESC",
            Order::OldestFirst => " ORDER BY time, sequence",
        });
        if let Some(limit) = self.limit {
            statement.push(" LIMIT ").push_bind(i64::from(limit));
        }
        statement
    }
}

/// The first whole microsecond that is not before `time`.
fn microseconds_up(time: Timestamp) -> i64 {
    let whole = time.as_microsecond();
    let rest = time.as_nanosecond() > i128::from(whole) * 1000;
    whole + i64::from(rest)
}
