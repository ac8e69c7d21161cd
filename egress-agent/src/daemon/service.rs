//! The daemon: an agent behind a control socket, until a signal.

use super::agent::Agent;
use super::config::Config;
use super::error::AgentError;
use super::records::Pusher;
use super::source;
use super::supervisor;
use crate::api::{self, Listening, MetricsListening, ServeError};
use crate::telemetry::ids;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long the end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant is its source, which is documented"
)]
pub enum ServiceError {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot watch signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT; SIGHUP loads the policies again.
/// Enforcement stays in force when it returns.
pub async fn serve(config: Config) -> Result<(), ServiceError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(ServiceError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;

    let (agent, services) = Agent::start(config).await?;
    let listening = Listening::bind(&agent.config().socket)?;
    let metrics = match &agent.config().metrics {
        Some(config) => Some(MetricsListening::bind(&config.listen).await?),
        None => None,
    };
    let stop = || {
        let agent = Arc::clone(&agent);
        async move { agent.stopped().await }
    };
    let api = tokio::spawn(api::serve(listening, Arc::clone(&agent), stop()));
    let events = match &agent.config().metrics {
        Some(config) if config.events => {
            Some(agent.store().reader().await.map_err(AgentError::from)?)
        }
        Some(_) | None => None,
    };
    let metrics = metrics.map(|listening| {
        let served = api::serve_metrics(listening, Arc::clone(&agent), events, stop());
        tokio::spawn(served)
    });
    // Listening before anything is reported.
    let watched = agent.recorder().listen();
    let watch = tokio::spawn(Arc::clone(&agent).watch(watched));
    let feed = tokio::spawn(Arc::clone(&agent).feed_syslog());
    let sinks = tokio::spawn(Arc::clone(&agent).feed_sinks());
    let run = agent.begin();
    if agent.config().watch {
        tokio::spawn(source::watch(Arc::clone(&agent)));
    }
    tracing::info!(
        message_id = ids::READY,
        egress_root = %agent.root().path().display(),
        egress_socket = %agent.config().socket.display(),
        "enforcing"
    );
    supervisor::ready(agent.root().path());

    let by_signal = loop {
        tokio::select! {
            _ = hangup.recv() => {
                // How it ended is logged and recorded there.
                let _ = tokio::task::block_in_place(|| agent.reload_policies(Pusher::User(0)));
            }
            _ = terminate.recv() => break true,
            _ = interrupt.recv() => break true,
            // It was disarmed, which it has told.
            () = agent.stopped() => break false,
        }
    };
    supervisor::stopping();
    if by_signal {
        agent.tell_as(ids::STOPS, "agent stops; enforcement stays in force".into());
    }
    agent.stop();
    let tasks = [("reports", flatten(run)), ("control socket", flatten(api))];
    let watch = async move {
        if let Err(error) = watch.await {
            tracing::error!(%error, "watching for alerts ended early");
        }
    };
    let watch: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(watch);
    let feed: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        if let Err(error) = feed.await {
            tracing::error!(%error, "the syslog feed ended early");
        }
    });
    let sinks: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        if let Err(error) = sinks.await {
            tracing::error!(%error, "sending checkpoints ended early");
        }
    });
    let tasks =
        tasks
            .into_iter()
            .chain([("alerts", watch), ("syslog", feed), ("checkpoints", sinks)]);
    let metrics = metrics.map(|task| ("metrics", flatten(task)));
    for (what, task) in tasks.chain(metrics) {
        if tokio::time::timeout(PATIENCE, task).await.is_err() {
            tracing::warn!(what, "did not end in time");
        }
    }
    agent.close(services, PATIENCE).await;
    Ok(())
}

/// Waits for a task and logs how it failed, if it did.
fn flatten<E: std::fmt::Display + Send + 'static>(
    task: tokio::task::JoinHandle<Result<(), E>>,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        match task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a part of the agent failed"),
            Err(error) => tracing::error!(%error, "a part of the agent panicked"),
        }
    })
}
