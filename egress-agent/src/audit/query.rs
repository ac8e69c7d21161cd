//! What is asked of the store.

use crate::audit::columns::{IN_EACH_PART, NAME, POLICY, RARE_KIND, REFUSED};
use crate::audit::subject::Asked;
use crate::audit::{DestinationFilter, ProcessFilter, RuleFilter};
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
    /// In the order in which they were stored, whatever the clock did: how a
    /// follower reads on without missing anything.
    Stored,
}

/// Begins a condition that is to be met without an index, mostly because most records meet it. Without
/// the sign SQLite takes an equality for a rare thing and reads and sorts the whole table.
const NO_INDEX: &str = " AND +";

/// How records are found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the index of what is asked for.
    Index,
    /// In the order of time.
    Time,
    /// In the order of their places.
    Place,
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
    /// Behind this place, in an order by time: how a long answer is
    /// read in parts. The time is in microseconds since the epoch.
    pub beyond: Option<(i64, i64)>,
    /// The sandbox's name; `*` stands for any characters.
    pub sandbox: Option<String>,
    /// The policy's name; `*` stands for any characters.
    pub policy: Option<String>,
    /// The task; `*` stands for any characters.
    pub task: Option<String>,
    /// The project; `*` stands for any characters.
    pub project: Option<String>,
    /// How it ended.
    pub verdict: Option<Outcome>,
    /// What it is about.
    pub kind: Option<RecordKind>,
    /// Where to.
    pub destination: Option<DestinationFilter>,
    /// The domain name as it was recorded; `*` stands for any characters.
    pub name: Option<String>,
    /// By which rule.
    pub rule: Option<RuleFilter>,
    /// By which process.
    pub process: Option<ProcessFilter>,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// At most so many.
    pub limit: Option<u32>,
    /// By time, and by sequence number within one time.
    pub order: Order,
}

impl Query {
    /// The statement that begins with `select`, which names columns and table. Every
    /// value is bound, none is text in it.
    pub(super) fn statement(&self, select: impl Into<String>) -> QueryBuilder<Sqlite> {
        let mut statement = QueryBuilder::new(select);
        let in_index = self.limit.is_some() && self.is_range();
        if in_index {
            statement.push(" WHERE sequence IN (SELECT sequence FROM records");
        }
        self.conditions(&mut statement);
        self.order_and_limit(&mut statement);
        if in_index {
            statement.push(")").push(self.ordering());
        }
        statement
    }

    /// How many records it asks for if they are the latest to a destination. A range of names or
    /// addresses may hold most records, and to find the latest in its index takes a look at each; but then
    /// they are among the latest of all ([`Query::among_latest`]).
    pub(super) fn latest_of_range(&self) -> Option<u32> {
        let is_latest = self.order == Order::NewestFirst
            && self.until.is_none()
            && self.beyond.is_none()
            && self.after.is_none();
        self.limit
            .filter(|_| is_latest && self.destination.is_some())
    }

    /// The same statement for records from a time on, in microseconds since the epoch, which are looked
    /// through one by one.
    pub(super) fn among_latest(
        &self,
        select: impl Into<String>,
        since: i64,
    ) -> QueryBuilder<Sqlite> {
        let mut statement = QueryBuilder::new(select);
        self.conditions_in(&mut statement, Way::Time);
        statement.push(" AND time >= ").push_bind(since);
        self.order_and_limit(&mut statement);
        statement
    }

    fn order_and_limit(&self, statement: &mut QueryBuilder<Sqlite>) {
        statement.push(self.ordering());
        if let Some(limit) = self.limit {
            statement.push(" LIMIT ").push_bind(i64::from(limit));
        }
    }

    const fn ordering(&self) -> &'static str {
        match self.order {
            Order::NewestFirst => " ORDER BY time DESC, sequence DESC",
            Order::OldestFirst => " ORDER BY time, sequence",
            Order::Stored => " ORDER BY sequence",
        }
    }

    /// Whether it asks for a range of an index, or for several places in it, in which records are not
    /// in the order of time: which are the latest is then found in the index alone, before any is read.
    fn is_range(&self) -> bool {
        self.destination.is_some() || self.subjects().is_some()
    }

    /// Whose records it asks for.
    fn subjects(&self) -> Option<Asked<'_>> {
        Asked::new(
            self.sandbox.as_deref(),
            self.task.as_deref(),
            self.project.as_deref(),
        )
    }

    /// Whether it asks for all records of a time.
    pub(super) fn is_of_time_only(&self) -> bool {
        let of_time = Self {
            since: self.since,
            until: self.until,
            order: self.order,
            ..Self::default()
        };
        *self == of_time
    }

    /// Adds every condition to a statement that has named its table.
    pub(super) fn conditions(&self, statement: &mut QueryBuilder<Sqlite>) {
        // A follower asks for the end of the table, which needs no index.
        let follows = self.order == Order::Stored && self.after.is_some();
        self.conditions_in(statement, if follows { Way::Place } else { Way::Index });
    }

    fn conditions_in(&self, statement: &mut QueryBuilder<Sqlite>, way: Way) {
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
        if let Some((time, sequence)) = self.beyond {
            let sign = match self.order {
                Order::NewestFirst => " < ",
                Order::OldestFirst | Order::Stored => " > ",
            };
            statement
                .push(" AND (time, sequence)")
                .push(sign)
                .push("(")
                .push_bind(time)
                .push(", ")
                .push_bind(sequence)
                .push(")");
        }
        if let Some(subjects) = self.subjects() {
            let by_index = way == Way::Index;
            statement.push(if by_index { " AND " } else { NO_INDEX });
            subjects.condition(statement);
        }
        for (column, pattern) in [(POLICY, &self.policy), (NAME, &self.name)] {
            if let Some(pattern) = pattern {
                matching(statement.push(" AND "), column, pattern);
            }
        }
        if let Some(verdict) = self.verdict {
            if verdict == Outcome::Allowed {
                statement.push(NO_INDEX);
            } else {
                statement.push(" AND ").push(REFUSED).push(" AND ");
            }
            statement.push("outcome = ").push_bind(verdict.name());
        }
        if let Some(kind) = self.kind {
            if matches!(kind, RecordKind::Flow | RecordKind::Dns) {
                statement.push(NO_INDEX);
            } else {
                statement.push(" AND ").push(RARE_KIND).push(" AND ");
            }
            statement.push("kind = ").push_bind(kind.name());
        }
        if let Some(reason) = self.reason {
            statement.push(" AND reason = ").push_bind(reason.name());
        }
        if let Some(destination) = &self.destination {
            statement.push(" AND ");
            // Without the parts their index is of no use.
            if way == Way::Index {
                statement.push(IN_EACH_PART);
            }
            destination.condition(statement);
        }
        if let Some(rule) = &self.rule {
            statement.push(" AND ");
            rule.condition(statement);
        }
        if let Some(process) = &self.process {
            statement.push(" AND ");
            process.condition(statement);
        }
    }
}

/// Adds `column` against a text in which `*` may stand for any characters.
pub(super) fn matching(statement: &mut QueryBuilder<Sqlite>, column: &str, pattern: &str) {
    let (operator, value) = if pattern.contains('*') {
        (" GLOB ", only_stars(pattern))
    } else {
        (" = ", pattern.to_owned())
    };
    statement.push(column).push(operator).push_bind(value);
}

/// A GLOB pattern in which nothing but `*` has a meaning.
fn only_stars(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        match character {
            '?' | '[' => glob.extend(['[', character, ']']),
            other => glob.push(other),
        }
    }
    glob
}

/// The first whole microsecond that is not before `time`.
fn microseconds_up(time: Timestamp) -> i64 {
    let whole = time.as_microsecond();
    let rest = time.as_nanosecond() > i128::from(whole) * 1000;
    whole + i64::from(rest)
}
