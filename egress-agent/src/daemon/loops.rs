//! What the agent does while it runs: reads reports, polls counters, collects
//! sandboxes whose owner is gone, closes rules that expire, checks that
//! enforcement is still in force.

use super::agent::Agent;
use super::supervisor;
use crate::enforcer::{EnforcerError, Finding, Report, boot_now};
use crate::events::{Bounds, Moment, Pipeline};
use crate::image::Change;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Reports taken from the ring at once.
const BATCH: usize = 4096;
/// How often what has no event of its own is looked after.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How long a lapsed grant still covers the connections that it opened.
const KEEP_LAPSED: Duration = Duration::from_secs(24 * 3600);
/// Ticks between two looks at what has to be done rarely.
const RARELY: u64 = 10;

impl Agent {
    /// Runs in a thread of its own until the agent is told to stop. Thousands of reports are taken at a time, ten
    /// times a second, without a pause in which a thread of the runtime could answer for a name.
    pub fn begin(self: &Arc<Self>) -> JoinHandle<Result<(), EnforcerError>> {
        let (agent, runtime) = (Arc::clone(self), Handle::current());
        tokio::task::spawn_blocking(move || runtime.block_on(agent.run()))
    }

    /// The last records are made when the agent is told to stop.
    async fn run(self: Arc<Self>) -> Result<(), EnforcerError> {
        let mut reports = self.enforcer().reports()?;
        if let Err(error) = self.watch_limits() {
            self.tell(format!("limits are not watched: {error}"));
        }
        let mut pipeline = Pipeline::new(Arc::clone(&self), Bounds::default());
        self.resume_losses(&mut pipeline);
        let mut tick = tokio::time::interval(TICK);
        let mut ticks: u64 = 0;
        let mut batch = Vec::with_capacity(BATCH);
        let stopped = self.stopped();
        tokio::pin!(stopped);
        let mut interfaces = match crate::link::Changes::listen() {
            Ok(changes) => Some(changes),
            Err(error) => {
                tracing::warn!(%error, "new interfaces are found once a second only");
                None
            }
        };
        loop {
            tokio::select! {
                () = &mut stopped => break,
                read = reports.next_batch(BATCH, &mut batch) => {
                    if let Err(error) = read {
                        tracing::error!(%error, "the event ring cannot be read");
                        tokio::time::sleep(TICK).await;
                    }
                    self.take(&mut pipeline, &mut batch);
                }
                () = next_change(&mut interfaces) => {
                    self.look_soon();
                }
                _ = tick.tick() => {
                    ticks += 1;
                    self.look_after(&mut pipeline, ticks);
                }
            }
        }
        // What was reported before the stop belongs into the store.
        while let Ok(Ok(())) = tokio::time::timeout(
            Duration::from_millis(20),
            reports.next_batch(BATCH, &mut batch),
        )
        .await
        {
            self.take(&mut pipeline, &mut batch);
        }
        self.read_losses(&mut pipeline);
        let recorder = self.recorder();
        pipeline
            .finish(Moment::now())
            .for_each(|record| recorder.record_from_reports(record));
        Ok(())
    }

    fn take(&self, pipeline: &mut Pipeline<Arc<Self>>, batch: &mut Vec<Report>) {
        let recorder = self.recorder();
        let now = Moment::now();
        let events = batch
            .iter()
            .filter(|report| matches!(report, Report::Event(_)))
            .count();
        // Before anything is done with them: a kill leaves the count.
        recorder.note(events as u64);
        for report in batch.drain(..) {
            match report {
                Report::Event(event) => {
                    pipeline
                        .take(&event, now)
                        .for_each(|r| recorder.record_from_reports(r));
                }
                Report::Malformed(length) => {
                    tracing::error!(length, "the ring holds a report of another version");
                }
            }
        }
    }

    fn look_after(self: &Arc<Self>, pipeline: &mut Pipeline<Arc<Self>>, ticks: u64) {
        let recorder = self.recorder();
        pipeline
            .tick(Moment::now())
            .for_each(|record| recorder.record_from_reports(record));
        self.read_losses(pipeline);
        self.check_enforcement();
        self.look_after_emergency();
        self.close_expired_rules();
        self.look_soon();
        if ticks.is_multiple_of(RARELY) {
            self.sweep_grants();
        }
        let is_time_for_names = ticks.is_multiple_of(RARELY);
        let agent = Arc::clone(self);
        // Ending a sandbox waits for processes to die.
        tokio::task::spawn_blocking(move || {
            agent.look_for_others();
            agent.collect_orphans();
            if is_time_for_names {
                agent.keep_fresh();
            }
        });
        // Last: whoever hangs in one of the steps above is no longer alive.
        if !self.config().ephemeral {
            supervisor::alive();
        }
    }

    /// Looks whether the programs are still there, and puts back what is
    /// missing; each change is recorded once.
    fn check_enforcement(&self) {
        let disarmed = self.disarmed();
        if *disarmed {
            return;
        }
        let findings = match self.enforcer().inspect() {
            Ok(findings) => findings,
            Err(error) => return self.warn_of(vec![error.to_string()]),
        };
        if !findings
            .iter()
            .any(|finding| matches!(finding, Finding::Missing { .. }))
        {
            return self.warn_of(findings.iter().map(in_words).collect());
        }
        match self.enforcer().repair() {
            Ok(repaired) => self.tell_of_disturbance(&format!(
                "somebody detached {}; put back",
                repaired.join(", ")
            )),
            Err(error) => {
                let missing = findings.iter().map(in_words);
                self.warn_of(missing.chain([error.to_string()]).collect());
            }
        }
    }

    fn warn_of(&self, findings: Vec<String>) {
        let mut known = self.findings();
        if findings == *known {
            return;
        }
        for finding in &findings {
            tracing::error!("{finding}");
            self.tell_of_disturbance(finding);
        }
        if findings.is_empty() {
            self.tell("enforcement is undisturbed again".into());
        }
        *known = findings;
    }

    fn close_expired_rules(&self) {
        let now = Timestamp::now();
        let mut book = self.book();
        let expired = book.has_expired_rules(now);
        if !expired && !book.is_ahead_of_the_kernel() {
            return;
        }
        let result = book
            .expire_rules(now)
            .map_err(|error| error.to_string())
            .and_then(|changes| {
                self.carry_out(&mut book, &changes)
                    .map_err(|error| error.to_string())
            });
        drop(book);
        match result {
            Ok(()) => {
                self.tell(if expired {
                    "rules that have expired were closed".into()
                } else {
                    "a change of policy that had stopped half way is in force".into()
                });
                if let Err(error) = self.end_revoked() {
                    tracing::warn!(%error, "connections under expired rules were not ended at once");
                }
            }
            Err(error) => tracing::error!(error, "expired rules could not be closed; trying again"),
        }
    }

    fn sweep_grants(&self) {
        let mut book = self.book();
        let gone = book.ledger_mut().sweep(boot_now(), KEEP_LAPSED);
        let changes: Vec<_> = gone.into_iter().map(Change::RemoveGrant).collect();
        if let Err(error) = self.enforcer().apply(&changes) {
            tracing::warn!(%error, "lapsed grants could not be removed; they open nothing new");
        }
    }

    /// Ends sandboxes whose owner died without ending them.
    fn collect_orphans(&self) {
        let orphans: Vec<String> = self
            .book()
            .members()
            .filter(|member| {
                member.foreign.is_none() && member.link.is_none() && !is_alive(member.owner)
            })
            .filter(|member| {
                self.cgroup_of(member)
                    .and_then(|cgroup| cgroup.populated())
                    .map_or(true, |populated| !populated)
            })
            .map(|member| member.name.to_string())
            .collect();
        for name in orphans {
            match self.remove_sandbox(&name) {
                Ok(_) => tracing::info!(sandbox = name, "collected; its owner is gone"),
                Err(failure) => tracing::warn!(
                    sandbox = name,
                    error = failure.message,
                    "cannot be collected yet"
                ),
            }
        }
    }
}

async fn next_change(changes: &mut Option<crate::link::Changes>) {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

fn is_alive(process: u32) -> bool {
    std::path::Path::new(&format!("/proc/{process}")).exists()
}

fn in_words(finding: &Finding) -> String {
    match finding {
        Finding::Missing { program } => {
            format!("the program `{program}` is no longer attached, and could not be put back")
        }
        Finding::Foreign { program, others } => format!(
            "a program that was attached after `{program}` could overrule it: {others}; \
             the packet gate cannot be overruled"
        ),
    }
}
