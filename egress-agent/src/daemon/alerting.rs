//! Watches records for what somebody should know, and does what the rules say.

use super::agent::{Agent, KILL_DEADLINE};
use crate::alerts::{Action, Alert, Delivery, Engine, Undelivered};
use crate::model::{Record, RecordKind};
use crate::sandbox::{CgroupError, SandboxCgroup};
use crate::telemetry::ids;
use egress_common::SandboxId;
use jiff::Timestamp;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

impl Agent {
    /// Watches until the agent stops or the last record was told.
    pub(super) async fn watch(self: Arc<Self>, mut records: Receiver<Arc<Record>>) {
        let config = self.config().alerts.clone();
        let mut engine = Engine::new(config.rules.clone());
        let recorder = self.recorder();
        let delivery = Delivery::begin(&config, move |undelivered| {
            recorder.record(undelivered_in_words(&undelivered));
        });
        self.set_delivery(delivery.clone());
        let stopped = self.stopped();
        tokio::pin!(stopped);
        loop {
            let record = tokio::select! {
                () = &mut stopped => return,
                record = records.recv() => record,
            };
            match record {
                Ok(record) => {
                    for alert in engine.take(&record, Timestamp::now()) {
                        self.act(&alert, &delivery);
                    }
                }
                Err(RecvError::Lagged(records)) => self.recorder().record(Record {
                    count: records,
                    detail: Some(format!(
                        "{records} records came too fast to be looked at for alerts; they are in the store"
                    )),
                    ..Record::new(Timestamp::now(), RecordKind::Loss)
                }),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Does what an alert's rule says. Acting on the sandbox comes first.
    fn act(self: &Arc<Self>, alert: &Alert, delivery: &Delivery) {
        self.recorder()
            .metrics()
            .alerted(alert.condition.name(), alert.severity.name());
        let does = |action| alert.actions.contains(&action);
        let sandbox = alert.sandbox_id.map(SandboxId);
        if let Some(id) = sandbox
            && (does(Action::Block) || does(Action::Terminate))
        {
            let (agent, alert) = (Arc::clone(self), alert.clone());
            // Killing waits for processes to die.
            tokio::task::spawn_blocking(move || agent.act_on_sandbox(id, &alert));
        }
        if does(Action::Log) {
            self.recorder().record(record_of(alert));
        }
        if does(Action::Notify) && delivery.is_configured() && !delivery.tell(alert.clone()) {
            self.recorder().record(undelivered_in_words(&Undelivered {
                id: alert.id.clone(),
                way: "any way",
                problem: "too many alerts wait".to_owned(),
            }));
        }
    }

    fn act_on_sandbox(&self, id: SandboxId, alert: &Alert) {
        let Some(member) = self
            .book()
            .members()
            .find(|member| member.id == id)
            .cloned()
        else {
            return;
        };
        let why = format!(
            "alert {} ({})",
            alert.condition.name(),
            alert.severity.name()
        );
        if alert.actions.contains(&Action::Block)
            && let Err(failure) = self.block_sandbox(member.name.as_str(), &why)
        {
            tracing::error!(sandbox = %member.name, error = failure.message, "cannot be blocked");
        }
        if alert.actions.contains(&Action::Terminate) {
            let killed = SandboxCgroup::open(self.root(), &member.name)
                .and_then(|cgroup| cgroup.kill(KILL_DEADLINE));
            let detail = match killed {
                Ok(()) => format!("terminated: {why}"),
                Err(CgroupError::Missing(_)) => {
                    format!("had ended before it could be terminated: {why}")
                }
                Err(error) => format!("could not be terminated ({error}): {why}"),
            };
            self.tell_of_sandbox(ids::SANDBOX_TERMINATED, &member, detail);
        }
    }
}

/// The record of an alert.
fn record_of(alert: &Alert) -> Record {
    let actions: Vec<&str> = alert.actions.iter().map(|action| action.name()).collect();
    Record {
        sandbox_id: alert.sandbox_id.map(SandboxId),
        sandbox: alert.sandbox.clone(),
        policy: alert.policy.clone(),
        attribution: alert.attribution.clone(),
        name: alert.name.clone(),
        address: alert.address,
        port: alert.port,
        actor: Some(format!("alert:{}", alert.condition.name())),
        count: alert.count.max(1),
        detail: Some(format!(
            "{}: {}; {}; alert {}",
            alert.severity.name(),
            alert.summary,
            actions.join(", "),
            alert.id
        )),
        ..Record::new(alert.time, RecordKind::Alert)
    }
}

fn undelivered_in_words(undelivered: &Undelivered) -> Record {
    let Undelivered { id, way, problem } = undelivered;
    Record {
        detail: Some(format!("nobody was told of alert {id} by {way}: {problem}")),
        ..Record::new(Timestamp::now(), RecordKind::Loss)
    }
}
