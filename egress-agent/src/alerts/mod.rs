//! Who is told what, and what is done about it.
//!
//! ```text
//! Record → Engine (conditions, windows, quiet times) → Alert → recorded · delivered · acted on
//! ```
//!
//! [`Engine`] is pure: the time is an argument. [`Delivery`] tells people by
//! signed webhook and by command. What an [`Action`] does to a sandbox is the
//! daemon's.

#![forbid(unsafe_code)]

mod condition;
mod config;
mod deliver;
mod engine;
mod exfiltration;
mod signature;
mod window;

pub use condition::{Action, Condition, Severity};
pub use config::{AlertsConfig, AlertsWire, Rule, Rules};
pub use deliver::{Counts, Delivery, Undelivered};
pub use engine::Engine;
pub use exfiltration::carries_data;
pub use signature::{Secret, SecretError};

use crate::model::{Attribution, Record};
use jiff::Timestamp;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;

/// Something that somebody should know.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Alert {
    /// Unique; a repeated delivery has the same.
    pub id: String,
    /// When it was found.
    pub time: Timestamp,
    /// Which condition.
    pub condition: Condition,
    /// How bad.
    pub severity: Severity,
    /// What is done about it.
    pub actions: Vec<Action>,
    /// The sandbox, where it is about one.
    pub sandbox: Option<String>,
    /// The agent's number of the sandbox.
    pub sandbox_id: Option<u32>,
    /// Its policy.
    pub policy: Option<String>,
    /// Its task.
    pub task: Option<String>,
    /// Its project.
    pub project: Option<String>,
    /// The domain name of the decision that brought it up.
    pub name: Option<String>,
    /// The address of that decision.
    pub address: Option<IpAddr>,
    /// The port of that decision.
    pub port: Option<u16>,
    /// The reason of that decision.
    pub reason: Option<&'static str>,
    /// On whose behalf the sandbox runs, if anybody said.
    #[serde(skip)]
    pub attribution: Option<Arc<Attribution>>,
    /// How many decisions it stands for, those of the quiet time before included.
    pub count: u64,
    /// What happened, for a person.
    pub summary: String,
}

impl Alert {
    /// An alert about what a record tells.
    fn about(record: &Record, rule: &Rule, now: Timestamp, count: u64, summary: String) -> Self {
        let attribution = record.attribution.as_deref();
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            time: now,
            condition: rule.condition,
            severity: rule.severity,
            actions: rule.actions.clone(),
            sandbox: record.sandbox.clone(),
            sandbox_id: record.sandbox_id.map(|id| id.0),
            policy: record.policy.clone(),
            task: attribution.and_then(|it| it.task.clone()),
            project: attribution.and_then(|it| it.project.clone()),
            name: record.name.clone(),
            address: record.address,
            port: record.port,
            reason: record.reason.map(egress_common::Reason::name),
            attribution: record.attribution.clone(),
            count,
            summary,
        }
    }
}

#[cfg(test)]
mod tests;
