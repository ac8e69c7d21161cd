//! The emergency button. It asks the agent, and does without one that does not
//! answer soon: a hanging agent is a reason to press it.

use super::exit::{Exit, Problem};
use super::operate::ask;
use super::output::{Output, counted, print, print_json, to_the_second};
use crate::api::wire;
use crate::api::{Client, ClientError};
use crate::audit::Store;
use crate::daemon::emergency::{
    EmergencyError, Incident, StateFile, end_connections_below, press, release,
};
use crate::enforcer::{EnforcerError, set_emergency_at};
use crate::model::{Record, RecordKind};
use crate::sandbox::{CgroupError, GovernedRoot, Hierarchy};
use clap::Args;
use egress_common::{Outcome, Reason};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the agent may take. It writes one map and one file.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub struct Place {
    /// The governed root, relative to the cgroup2 mount.
    #[arg(long, default_value = "egress")]
    root: String,
    /// The state directory of its agent, if that does not answer.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/egress")]
    state: PathBuf,
}

#[derive(Args, Debug)]
pub struct BlockArguments {
    /// Why; shown to everybody who asks for the state, and recorded.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    place: Place,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct RestoreArguments {
    /// The incident that is over, as `emergency-block` and `status` print it.
    #[arg(long, value_name = "ID")]
    incident: String,
    #[command(flatten)]
    place: Place,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// An incident, for `status`.
pub(super) fn in_words(incident: &wire::Incident) -> String {
    let since = incident.since.as_deref().map(to_the_second);
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    let by = incident.user.map(|user| format!(" by uid {user}"));
    format!(
        "everything is stopped{since}{}: {}; `egressctl restore --incident {}` ends it",
        by.unwrap_or_default(),
        incident.reason,
        incident.incident
    )
}

pub fn block(socket: &Path, arguments: &BlockArguments) -> Result<Exit, Problem> {
    let reason = arguments.reason.trim();
    if reason.is_empty() {
        return Err(Problem::usage(
            "--reason is empty; write why, for those who find everything stopped",
        ));
    }
    let place = &arguments.place;
    let client = Client::new(socket);
    let incident = match of_agent(place, &client, || client.emergency_block(reason.to_owned())) {
        Some(answer) => answer?,
        None => block_alone(place, reason)?,
    };
    match arguments.output {
        Output::Table => print(&format!("{}\n", incident.incident))?,
        Output::Json | Output::Jsonl => print_json(&incident)?,
    }
    Ok(Exit::Ok)
}

pub fn restore(socket: &Path, arguments: &RestoreArguments) -> Result<Exit, Problem> {
    let place = &arguments.place;
    let client = Client::new(socket);
    let id = &arguments.incident;
    let incident = match of_agent(place, &client, || client.restore(id.clone())) {
        Some(answer) => answer?,
        None => restore_alone(place, id)?,
    };
    match arguments.output {
        Output::Table => print(&format!(
            "{} ended: policy decides again\n",
            incident.incident
        ))?,
        Output::Json | Output::Jsonl => print_json(&incident)?,
    }
    Ok(Exit::Ok)
}

/// Asks the agent of this root; `None` if it is another root's, or none answers
/// in time. What it refuses is its answer.
fn of_agent<F: Future<Output = Result<wire::Incident, ClientError>>>(
    place: &Place,
    client: &Client,
    request: impl FnOnce() -> F,
) -> Option<Result<wire::Incident, Problem>> {
    let answered = ask(async {
        let asked = tokio::time::timeout(PATIENCE, async {
            let status = client.status().await?;
            if !status.root.ends_with(&place.root) {
                return Ok(None);
            }
            request().await.map(Some)
        });
        asked.await.unwrap_or(Ok(None))
    });
    match answered {
        Ok(found) => found.map(Ok),
        Err(problem) if matches!(problem.exit(), Exit::NotReachable) => None,
        Err(problem) => Some(Err(problem)),
    }
}

/// The governed root's directory, if there is one.
fn root_of(place: &Place) -> Result<Option<PathBuf>, Problem> {
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(
            Exit::NotPermitted,
            "only root may do this; use sudo",
        ));
    }
    let hierarchy = Hierarchy::find().map_err(Problem::failure)?;
    match GovernedRoot::open(&hierarchy, &place.root) {
        Ok(root) => Ok(Some(root.path().to_owned())),
        Err(CgroupError::Missing { .. }) => Ok(None),
        Err(error) => Err(Problem::failure(error)),
    }
}

/// Tells the kernel; says whether anything is in force that obeys.
fn tell_kernel(root: Option<&Path>, stopped: bool) -> Result<bool, EnforcerError> {
    root.map_or(Ok(false), |root| set_emergency_at(root, stopped))
}

fn block_alone(place: &Place, reason: &str) -> Result<wire::Incident, Problem> {
    let root = root_of(place)?;
    let user = rustix::process::getuid().as_raw();
    let incident = Incident::new(Timestamp::now(), reason, Some(user));
    let file = StateFile::within(&place.state);
    let pressed = press(&file, incident, || tell_kernel(root.as_deref(), true));
    let (incident, in_force) = pressed.map_err(Problem::failure)?;
    eprintln!("egressctl: no agent answered; done without it");
    if let Some(root) = root.as_deref().filter(|_| in_force) {
        match end_connections_below(root) {
            Ok(0) => {}
            Ok(ended) => eprintln!(
                "egressctl: {} ended",
                counted(ended, "connection", "connections")
            ),
            Err(error) => eprintln!("egressctl: {error}"),
        }
    } else {
        eprintln!(
            "egressctl: nothing is in force at `{}`; the block counts when its agent starts",
            place.root
        );
    }
    let detail = format!(
        "emergency block {} without an agent: {reason}",
        incident.incident
    );
    record(place, Outcome::Denied, detail);
    Ok(incident.into())
}

fn restore_alone(place: &Place, id: &str) -> Result<wire::Incident, Problem> {
    let root = root_of(place)?;
    let file = StateFile::within(&place.state);
    let released = release(&file, id, || tell_kernel(root.as_deref(), false));
    let (incident, _) = released.map_err(|error: EmergencyError| Problem::failure(error))?;
    eprintln!("egressctl: no agent answered; done without it");
    let detail = format!(
        "emergency block {} ended without an agent",
        incident.incident
    );
    record(place, Outcome::Allowed, detail);
    Ok(incident.into())
}

/// Records it in the agent's store. An agent that hangs holds the store, and
/// records what it finds when it goes on; one that starts records it as well.
fn record(place: &Place, outcome: Outcome, detail: String) {
    let mut record = Record::new(Timestamp::now(), RecordKind::Emergency);
    record.user = Some(rustix::process::getuid().as_raw());
    record.outcome = Some(outcome);
    record.reason = Some(Reason::Emergency);
    record.detail = Some(detail);
    let recorded = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime.block_on(async {
                let file = place.state.join("audit.db");
                let store = Store::open(&file)
                    .await
                    .map_err(|error| error.to_string())?;
                store.recorder().record(record);
                store
                    .close(PATIENCE)
                    .await
                    .map_err(|error| error.to_string())
            })
        });
    if let Err(problem) = recorded {
        eprintln!("egressctl: done, and not recorded yet: {problem}");
    }
}
