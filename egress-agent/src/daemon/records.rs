//! What the agent records about itself, its sandboxes and its policies.

use super::agent::Agent;
use super::book::Member;
use crate::model::{Record, RecordKind};
use egress_common::Outcome;
use jiff::Timestamp;

impl Agent {
    /// Records something about the agent itself.
    pub(super) fn tell(&self, detail: String) {
        tracing::info!("{detail}");
        let mut record = Record::new(Timestamp::now(), RecordKind::Agent);
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The record of a sandbox's beginning or end.
    pub(super) fn tell_of_sandbox(&self, member: &Member, detail: String) {
        let mut record = Record::new(Timestamp::now(), RecordKind::Sandbox);
        record.sandbox_id = Some(member.id);
        record.sandbox = Some(member.name.to_string());
        record.policy = Some(member.policy.clone());
        record.relaxations.clone_from(&member.relaxed);
        record.attribution.clone_from(&member.attribution);
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The record of a load of policies.
    pub(super) fn tell_of_policies(&self, outcome: Outcome, user: u32, detail: String) {
        let mut record = Record::new(Timestamp::now(), RecordKind::Policy);
        record.user = Some(user);
        record.outcome = Some(outcome);
        record.detail = Some(detail);
        self.recorder().record(record);
    }
}
