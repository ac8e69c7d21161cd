//! What the agent records about itself, its sandboxes and its policies.

use super::agent::Agent;
use super::book::Member;
use super::source::{Approval, Change, Loaded};
use crate::model::{Record, RecordKind, ResourceUse};
use crate::telemetry::ids;
use egress_common::{Outcome, Reason};
use jiff::Timestamp;

/// Who had policies loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pusher {
    /// Somebody asked, over the control socket or with a signal.
    User(u32),
    /// Files changed.
    FileWatch,
    /// The agent started.
    Start,
}

impl Pusher {
    /// For the record.
    fn in_words(self) -> String {
        match self {
            Self::User(user) => format!("uid {user}"),
            Self::FileWatch => "file watch".to_owned(),
            Self::Start => "start of the agent".to_owned(),
        }
    }
}

impl Agent {
    /// Records something about the agent itself.
    pub(super) fn tell(&self, detail: String) {
        tracing::info!("{detail}");
        self.record_of_agent(detail, None);
    }

    /// The same for what operators look for by its id.
    pub(super) fn tell_as(&self, message_id: &'static str, detail: String) {
        tracing::warn!(message_id, "{detail}");
        self.record_of_agent(detail, None);
    }

    /// Records that somebody meddled with the programs.
    pub(super) fn tell_of_disturbance(&self, what: &str) {
        let detail = format!("enforcement disturbed: {what}");
        tracing::warn!(message_id = ids::DISTURBED, "{detail}");
        self.record_of_agent(detail, Some(Reason::Disturbed));
    }

    fn record_of_agent(&self, detail: String, reason: Option<Reason>) {
        let mut record = Record::new(Timestamp::now(), RecordKind::Agent);
        record.reason = reason;
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The record of a sandbox's beginning, or of what happened to it.
    pub(super) fn tell_of_sandbox(
        &self,
        message_id: &'static str,
        member: &Member,
        detail: String,
    ) {
        self.record_of_sandbox(message_id, member, detail, None);
    }

    /// The record of a sandbox's end, with what it had used.
    pub(super) fn tell_of_end(&self, member: &Member, detail: String, usage: Option<ResourceUse>) {
        self.record_of_sandbox(ids::SANDBOX_ENDED, member, detail, usage);
    }

    fn record_of_sandbox(
        &self,
        message_id: &'static str,
        member: &Member,
        detail: String,
        usage: Option<ResourceUse>,
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
        record.usage = usage.map(Box::new);
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The record of a load of policies, and of what it changed.
    pub(super) fn tell_of_policies(
        &self,
        outcome: Outcome,
        by: Pusher,
        change: Option<Change>,
        detail: String,
    ) {
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
        let mut approvals = Vec::new();
        record.user = match by {
            Pusher::User(user) => Some(user),
            Pusher::FileWatch | Pusher::Start => None,
        };
        record.actor = Some(by.in_words());
        if let Some(change) = change {
            // Who signed is who is responsible; who pushed may be a robot.
            record.actor = change
                .signer
                .map(|signer| format!("key {signer}"))
                .or(record.actor);
            record.digest = Some(change.digest);
            record.diff = change.diff;
            approvals = change.approvals;
        }
        record.outcome = Some(outcome);
        record.detail = Some(detail);
        self.recorder().record(record);
        for approval in approvals {
            self.tell_of_approval(approval, now);
        }
    }

    /// The record of an approval that came into force with a policy.
    fn tell_of_approval(&self, approval: Approval, now: Timestamp) {
        let mut record = Record::new(now, RecordKind::Approval);
        record.detail = Some(approval.in_words());
        record.actor = Some(approval.by.to_string());
        record.policy = Some(approval.policy);
        record.rule = Some(approval.rule);
        record.outcome = Some(Outcome::Allowed);
        self.recorder().record(record);
    }

    /// The record of the policies with which the agent starts.
    pub(super) fn note_policies_at_start(&self, loaded: &Loaded, now: Timestamp) {
        let mut source = self.source();
        let change = source.change(loaded, now);
        source.note_in_force(loaded, now);
        let refused: Vec<String> = source.warnings().cloned().collect();
        drop(source);
        let detail = format!("in force at the start: from {}", loaded.from);
        self.tell_of_policies(Outcome::Allowed, Pusher::Start, Some(change), detail);
        // Last, so that the metrics of the last load tell of the bad push.
        for warning in refused {
            self.tell_of_policies(Outcome::Denied, Pusher::Start, None, warning);
        }
    }
}
