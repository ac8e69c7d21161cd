//! Whose records they are: each sandbox with its task and project stands once in a
//! table of its own, and a record has its number.

use crate::audit::query::matching;
use crate::model::Record;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use std::collections::HashMap;

/// Who a record is about. Everything but the number is what the record says, too, and
/// verification compares them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Subject {
    /// The sandbox's name.
    pub sandbox: Option<String>,
    /// The task.
    pub task: Option<String>,
    /// The project.
    pub project: Option<String>,
}

/// A subject before it has anything of its own: sandbox, task, project.
type Names<'a> = [Option<&'a str>; 3];

/// Those that a batch is about, each once.
#[derive(Debug, Default)]
pub(super) struct Collected<'a> {
    places: HashMap<Names<'a>, usize>,
    subjects: Vec<Subject>,
}

impl<'a> Collected<'a> {
    /// Where the subject of a record stands among them; `None` if it has none.
    pub fn place(&mut self, record: &'a Record) -> Option<usize> {
        let said = record.attribution.as_deref();
        let names = [
            record.sandbox.as_deref(),
            said.and_then(|said| said.task.as_deref()),
            said.and_then(|said| said.project.as_deref()),
        ];
        if names == [None; 3] {
            return None;
        }
        let place = self.places.entry(names).or_insert_with(|| {
            let [sandbox, task, project] = names.map(|name| name.map(str::to_owned));
            self.subjects.push(Subject {
                sandbox,
                task,
                project,
            });
            self.subjects.len() - 1
        });
        Some(*place)
    }

    /// All of them, in the order of their places.
    pub fn into_subjects(self) -> Vec<Subject> {
        self.subjects
    }
}

/// The numbers of subjects, in their order. One that is new gets its number
/// here, in the transaction that brings its first record.
pub(super) async fn numbers(
    connection: &mut SqliteConnection,
    subjects: &[Subject],
) -> Result<Vec<i64>, sqlx::Error> {
    let mut numbers = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let known: Option<i64> = sqlx::query_scalar(
            "SELECT id FROM subjects WHERE sandbox IS ? AND task IS ? AND project IS ?",
        )
        .bind(&subject.sandbox)
        .bind(&subject.task)
        .bind(&subject.project)
        .fetch_optional(&mut *connection)
        .await?;
        numbers.push(match known {
            Some(number) => number,
            None => add(connection, subject).await?,
        });
    }
    Ok(numbers)
}

async fn add(connection: &mut SqliteConnection, subject: &Subject) -> Result<i64, sqlx::Error> {
    let added =
        sqlx::query("INSERT OR FAIL INTO subjects (sandbox, task, project) VALUES (?, ?, ?)")
            .bind(&subject.sandbox)
            .bind(&subject.task)
            .bind(&subject.project)
            .execute(connection)
            .await?;
    Ok(added.last_insert_rowid())
}

/// Takes away those of whom no record is left: names are kept no longer than records.
pub(super) async fn forget_unused(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM subjects WHERE NOT EXISTS \
         (SELECT 1 FROM records WHERE records.subject = subjects.id)",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Which subjects a question is about: those of which all names are as asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    names: Names<'a>,
}

impl<'a> Asked<'a> {
    /// `None` if the question is about all.
    pub fn new(
        sandbox: Option<&'a str>,
        task: Option<&'a str>,
        project: Option<&'a str>,
    ) -> Option<Self> {
        let names = [sandbox, task, project];
        (names != [None; 3]).then_some(Self { names })
    }

    /// Adds the condition to a statement about records.
    pub fn condition(&self, statement: &mut QueryBuilder<Sqlite>) {
        statement.push("subject IN (SELECT id FROM subjects WHERE 1");
        for (column, pattern) in ["sandbox", "task", "project"].into_iter().zip(self.names) {
            if let Some(pattern) = pattern {
                matching(statement.push(" AND "), column, pattern);
            }
        }
        statement.push(")");
    }
}
