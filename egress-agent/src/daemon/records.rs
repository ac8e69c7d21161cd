//! What the agent records about itself, its sandboxes and its policies.

use super::agent::Agent;
use super::book::Member;
use super::source::Loaded;
use crate::model::{Record, RecordKind};
use crate::telemetry::ids;
use egress_common::Outcome;
use jiff::Timestamp;

impl Agent {
    /// Records something about the agent itself.
    pub(super) fn tell(&self, detail: String) {
        tracing::info!("{detail}");
        self.record_of_agent(detail);
    }

    /// The same for what operators look for by its id.
    pub(super) fn tell_as(&self, message_id: &'static str, detail: String) {
        tracing::warn!(message_id, "{detail}");
        self.record_of_agent(detail);
    }

    fn record_of_agent(&self, detail: String) {
        let mut record = Record::new(Timestamp::now(), RecordKind::Agent);
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The record of a sandbox's beginning or end.
    pub(super) fn tell_of_sandbox(
        &self,
        message_id: &'static str,
        member: &Member,
        detail: String,
    ) {
        tracing::info!(
            message_id,
            egress_sandbox = member.name.as_str(),
            egress_policy = member.policy,
            "sandbox {} {detail}",
            member.name
        );
        let mut record = Record::new(Timestamp::now(), RecordKind::Sandbox);
        record.sandbox_id = Some(member.id);
        record.sandbox = Some(member.name.to_string());
        record.policy = Some(member.policy.clone());
        record.relaxations.clone_from(&member.relaxed);
        record.attribution.clone_from(&member.attribution);
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The record of a load of policies, by a user or because files changed.
    pub(super) fn tell_of_policies(&self, outcome: Outcome, user: Option<u32>, detail: String) {
        let now = Timestamp::now();
        self.recorder()
            .metrics()
            .policies_loaded(outcome == Outcome::Allowed, now);
        if outcome == Outcome::Allowed {
            tracing::info!(message_id = ids::POLICIES_IN_FORCE, "policies {detail}");
        } else {
            tracing::error!(message_id = ids::POLICIES_REFUSED, "policies {detail}");
        }
        let mut record = Record::new(now, RecordKind::Policy);
        record.user = user;
        record.outcome = Some(outcome);
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The record of the policies with which the agent starts.
    pub(super) fn note_policies_at_start(&self, loaded: &Loaded, now: Timestamp) {
        let mut source = self.source();
        source.note_in_force(loaded, now);
        let refused: Vec<String> = source.warnings().cloned().collect();
        drop(source);
        let detail = format!("in force at the start: from {}", loaded.from);
        self.tell_of_policies(Outcome::Allowed, None, detail);
        // Last, so that the metrics of the last load tell of the bad push.
        for warning in refused {
            self.tell_of_policies(Outcome::Denied, None, warning);
        }
    }
}
