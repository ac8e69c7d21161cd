//! Alerts on their way to people.

use super::Alert;
use super::config::{AlertsConfig, WebhookConfig};
use crate::outbound::post;
use jiff::Timestamp;
use serde::Serialize;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc};

/// Alerts that wait. What comes beyond is counted and told by the caller.
const QUEUE: usize = 1_024;
/// Deliveries at a time: receivers that hang keep others waiting only beyond it.
const AT_ONCE: usize = 16;
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pauses between attempts, as the Standard Webhooks specification advises;
/// the last attempt comes about 5 hours after the first.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(2 * 3_600),
];

/// An alert that nobody could be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undelivered {
    /// The alert's id.
    pub id: String,
    /// By which way.
    pub way: &'static str,
    /// Why not, the last time.
    pub problem: String,
}

/// Running totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Told, by one way each.
    pub delivered: u64,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Given up.
    pub failed: u64,
    /// Found no place in the queue.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Totals {
    delivered: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// The way to people. Handing over never waits.
#[derive(Clone, Debug)]
pub struct Delivery {
    queue: mpsc::Sender<Alert>,
    totals: Arc<Totals>,
    configured: bool,
}

/// The body of a webhook, and what a command reads.
#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: &'a Alert,
}

impl Delivery {
    /// Begins to deliver; `given_up` is told of what could not be.
    pub fn begin(
        config: &AlertsConfig,
        given_up: impl Fn(Undelivered) + Clone + Send + Sync + 'static,
    ) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Alert>(QUEUE);
        let totals = Arc::new(Totals::default());
        let (webhook, command) = (config.webhook.clone(), config.command.clone());
        let counted = Arc::clone(&totals);
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(AT_ONCE));
            while let Some(alert) = waiting.recv().await {
                // The semaphore is never closed.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let (webhook, command) = (webhook.clone(), command.clone());
                let (totals, given_up) = (Arc::clone(&counted), given_up.clone());
                tokio::spawn(async move {
                    let _place = place;
                    let by_webhook = async {
                        if let Some(webhook) = &webhook {
                            settle(
                                &totals,
                                &given_up,
                                &alert,
                                "webhook",
                                by_webhook(webhook, &alert, &totals).await,
                            );
                        }
                    };
                    let by_command = async {
                        if let Some(command) = &command {
                            settle(
                                &totals,
                                &given_up,
                                &alert,
                                "command",
                                run(command, &alert).await,
                            );
                        }
                    };
                    tokio::join!(by_webhook, by_command);
                });
            }
        });
        Self {
            queue,
            totals,
            configured: config.webhook.is_some() || config.command.is_some(),
        }
    }

    /// Whether there is anybody to tell.
    pub const fn is_configured(&self) -> bool {
        self.configured
    }

    /// Hands an alert over; says whether there was room for it.
    #[must_use = "an alert that found no place has to be told otherwise"]
    pub fn tell(&self, alert: Alert) -> bool {
        let told = self.queue.try_send(alert).is_ok();
        if !told {
            self.totals.dropped.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    /// What became of alerts so far.
    pub fn counts(&self) -> Counts {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            delivered: read(&self.totals.delivered),
            retried: read(&self.totals.retried),
            failed: read(&self.totals.failed),
            dropped: read(&self.totals.dropped),
        }
    }
}

fn settle(
    totals: &Totals,
    given_up: &impl Fn(Undelivered),
    alert: &Alert,
    way: &'static str,
    result: Result<(), String>,
) {
    match result {
        Ok(()) => {
            totals.delivered.fetch_add(1, Ordering::Relaxed);
        }
        Err(problem) => {
            totals.failed.fetch_add(1, Ordering::Relaxed);
            given_up(Undelivered {
                id: alert.id.clone(),
                way,
                problem,
            });
        }
    }
}

fn body(alert: &Alert) -> Result<Vec<u8>, String> {
    serde_json::to_vec(&Message {
        r#type: "egress.alert",
        timestamp: alert.time,
        data: alert,
    })
    .map_err(|error| error.to_string())
}

/// Sends until the receiver takes it. Each attempt is signed anew, under the same id.
async fn by_webhook(webhook: &WebhookConfig, alert: &Alert, totals: &Totals) -> Result<(), String> {
    let body = body(alert)?;
    let id = format!("msg_{}", alert.id);
    let mut pauses = PAUSES.into_iter();
    loop {
        let timestamp = Timestamp::now().as_second();
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id.clone()),
            ("webhook-timestamp", timestamp.to_string()),
            (
                "webhook-signature",
                webhook.secret.sign(&id, timestamp, &body),
            ),
        ];
        let problem = match post(
            &webhook.client,
            &webhook.url,
            &headers,
            body.clone(),
            PATIENCE,
        )
        .await
        {
            Ok(200..=299) => return Ok(()),
            // Gone: the receiver asks never to be told again.
            Ok(410) => return Err("the receiver answers 410, it wants no more".to_owned()),
            Ok(status) => format!("the receiver answers {status}"),
            Err(error) => error.to_string(),
        };
        let Some(pause) = pauses.next() else {
            return Err(problem);
        };
        totals.retried.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(to = %webhook.url, problem, "an alert is not delivered yet");
        tokio::time::sleep(pause).await;
    }
}

/// Runs the command with the message on its standard input. Not tried again: what
/// a command does half may not be good twice.
async fn run(command: &[String], alert: &Alert) -> Result<(), String> {
    let body = body(alert)?;
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("EGRESS_ALERT", alert.condition.name())
        .env("EGRESS_SEVERITY", alert.severity.name())
        .env(
            "EGRESS_SANDBOX",
            alert.sandbox.as_deref().unwrap_or_default(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let input = child.stdin.take();
    let ended = async {
        if let Some(mut input) = input {
            // A command that does not read is told by its status alone.
            let _ = input.write_all(&body).await;
        }
        child.wait().await
    };
    match tokio::time::timeout(PATIENCE, ended).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!(
            "{program} did not end within {} s",
            PATIENCE.as_secs()
        )),
    }
}
