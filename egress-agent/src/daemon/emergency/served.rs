//! The button of a running agent.

use super::{EmergencyError, Incident, StateFile, end_connections_below, press, release};
use crate::api::wire::{self, Failure, FailureKind};
use crate::daemon::agent::Agent;
use crate::model::{Record, RecordKind};
use egress_common::{Outcome, Reason};
use jiff::Timestamp;
use std::sync::Arc;

/// What somebody wrote who pressed the button while no agent could record it.
const UNRECORDED: &str = "it was in force in the kernel, and no file says who pressed it or why";

/// What a running agent knows of the button.
#[derive(Debug)]
pub struct Button {
    file: StateFile,
    /// The incident that was recorded last, if it is in force.
    told: Option<Incident>,
    /// Whether the last look found the kernel stopped and no file. One look
    /// proves nothing: somebody may be between the two steps of an end.
    unfiled: bool,
}

impl Button {
    /// The button of the agent with this state directory.
    pub fn new(file: StateFile) -> Self {
        Self {
            file,
            told: None,
            unfiled: false,
        }
    }
}

impl From<EmergencyError> for Failure {
    fn from(error: EmergencyError) -> Self {
        let kind = match &error {
            EmergencyError::NoSuchIncident(_) => FailureKind::NotFound,
            EmergencyError::NotStopped(..)
            | EmergencyError::NotKept(_)
            | EmergencyError::Neither { .. }
            | EmergencyError::NotEnded(_)
            | EmergencyError::NotReleased(_) => FailureKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<Incident> for wire::Incident {
    fn from(incident: Incident) -> Self {
        Self {
            incident: incident.incident,
            since: incident.since.map(|since| since.to_string()),
            reason: incident.reason,
            user: incident.user,
        }
    }
}

impl Agent {
    /// Stops everything. Live connections are ended behind the caller's back:
    /// they are silent from this moment on.
    pub fn press_emergency(
        self: &Arc<Self>,
        reason: &str,
        caller: u32,
    ) -> Result<wire::Incident, Failure> {
        let wanted = Incident::new(Timestamp::now(), reason, Some(caller));
        let (incident, ()) = {
            let emergency = self.emergency();
            press(&emergency.file, wanted.clone(), || {
                self.enforcer().set_emergency(true)
            })
        }?;
        let detail = if incident == wanted {
            format!("emergency block {}: {reason}", incident.incident)
        } else {
            format!(
                "emergency block {} pressed again: {reason}",
                incident.incident
            )
        };
        self.tell_of_emergency(Outcome::Denied, Some(caller), detail);
        self.emergency().told = Some(incident.clone());
        let agent = Arc::clone(self);
        tokio::task::spawn_blocking(move || agent.end_all_connections());
        Ok(incident.into())
    }

    /// Lets policy decide again.
    pub fn end_emergency(&self, id: &str, caller: u32) -> Result<wire::Incident, Failure> {
        let (incident, ()) = {
            let mut emergency = self.emergency();
            let released = release(&emergency.file, id, || self.enforcer().set_emergency(false))?;
            emergency.told = None;
            released
        };
        let detail = format!("emergency block {} ended", incident.incident);
        self.tell_of_emergency(Outcome::Allowed, Some(caller), detail);
        Ok(incident.into())
    }

    /// The incident in force. Kernel and file are both asked: the button may
    /// have been pressed without this agent.
    pub(in crate::daemon) fn incident(&self) -> Option<Incident> {
        self.emergency().file.read().or_else(|| {
            // It gets a file, and a name, within seconds.
            self.enforcer().is_stopped().then(|| Incident {
                incident: "unrecorded".into(),
                since: None,
                reason: UNRECORDED.into(),
                user: None,
            })
        })
    }

    /// At the start and each second: what others did to the button is recorded,
    /// a kernel that does not do what the file says is told again, and what the
    /// kernel enforces without a file gets one, so that it survives the machine
    /// and can be ended by name.
    pub(in crate::daemon) fn look_after_emergency(self: &Arc<Self>) {
        let (incident, forgotten, before) = {
            let mut emergency = self.emergency();
            let stopped = self.enforcer().is_stopped();
            let mut incident = emergency.file.read();
            if incident.is_none() && stopped && emergency.unfiled {
                let unrecorded = Incident::new(Timestamp::now(), UNRECORDED, None);
                match emergency.file.begin(unrecorded) {
                    Ok(begun) => incident = Some(begun),
                    Err(error) => {
                        tracing::error!(%error, "the emergency block would not survive a restart of the machine");
                    }
                }
            }
            emergency.unfiled = incident.is_none() && stopped;
            let forgotten = incident.is_some() && !stopped;
            if forgotten && let Err(error) = self.enforcer().set_emergency(true) {
                tracing::error!(%error, "the emergency block is not in force");
            }
            let before = std::mem::replace(&mut emergency.told, incident.clone());
            (incident, forgotten, before)
        };
        if incident == before && !forgotten {
            return;
        }
        let Some(incident) = incident else {
            let id = before.map_or_else(String::new, |before| before.incident);
            let detail = format!("emergency block {id} was ended without this agent");
            return self.tell_of_emergency(Outcome::Allowed, None, detail);
        };
        let since = incident
            .since
            .map_or_else(|| "an unknown time".into(), |since| since.to_string());
        let detail = format!(
            "emergency block {} is in force since {since}: {}",
            incident.incident, incident.reason
        );
        self.tell_of_emergency(Outcome::Denied, incident.user, detail);
        let agent = Arc::clone(self);
        tokio::task::spawn_blocking(move || agent.end_all_connections());
    }

    fn end_all_connections(&self) {
        match end_connections_below(self.root().path()) {
            Ok(0) => {}
            Ok(ended) => self.tell(format!("the emergency block ended {ended} connections")),
            Err(error) => {
                tracing::warn!(%error, "connections were not ended; their packets are dropped");
            }
        }
    }

    fn tell_of_emergency(&self, outcome: Outcome, user: Option<u32>, detail: String) {
        tracing::warn!("{detail}");
        let mut record = Record::new(Timestamp::now(), RecordKind::Emergency);
        record.user = user;
        record.outcome = Some(outcome);
        record.reason = Some(Reason::Emergency);
        record.detail = Some(detail);
        self.recorder().record(record);
    }
}
