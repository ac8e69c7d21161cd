//! Limits: put into force, watched, and what is over one ended.
//!
//! The kernel limits memory, processes, CPU and block devices by itself, also
//! while no agent runs. What the agent adds is the word about it, and the clock:
//! a sandbox whose time is up is killed here, and a second later by its launcher
//! where no agent runs.

use super::agent::{Agent, KILL_DEADLINE};
use super::book::Member;
use super::loops::TICK;
use super::usage::Used;
use crate::api::wire::Failure;
use crate::enforcer::boot_now;
use crate::model::{Record, RecordKind};
use crate::policy::{Bytes, Limits, Policy};
use crate::sandbox::{CgroupError, SandboxCgroup, Unenforced};
use crate::telemetry::ids;
use egress_common::{Outcome, SandboxId};
use jiff::Timestamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The kernel's files that tell of a limit that was met.
const WATCHED: [&str; 2] = ["memory.events", "pids.events"];

/// The limits that were met, so that each is told once.
#[derive(Debug)]
pub(super) struct LimitWatch {
    events: OwnedFd,
    state: Mutex<State>,
    /// Counts up when a sandbox began, whose time may be the next that is up.
    changed: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// Sandboxes by the kernel's number of the watch.
    watched: BTreeMap<i32, SandboxId>,
    met: BTreeMap<SandboxId, Met>,
}

/// What has been told of one sandbox.
#[derive(Debug, Default)]
struct Met {
    out_of_memory: u64,
    forks_refused: u64,
    overdue: bool,
    /// What ended it, in words.
    over: Vec<String>,
}

impl LimitWatch {
    /// A watch over nothing yet.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            events: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            state: Mutex::default(),
            changed: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Ends a wait.
    pub(super) fn wake(&self) {
        // The counter is full only after 2^64 - 2 wakes that nobody waited for.
        let _ = rustix::io::write(&self.changed, &1_u64.to_ne_bytes());
    }

    /// Waits until a counter moved, a sandbox began, or the time is over.
    fn wait(&self, time: Duration) -> io::Result<()> {
        let mut watched = [
            PollFd::new(&self.events, PollFlags::IN),
            PollFd::new(&self.changed, PollFlags::IN),
        ];
        let time = rustix::event::Timespec::try_from(time).map_err(io::Error::other)?;
        match rustix::event::poll(&mut watched, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Not readable: nobody has called in the meantime.
        let _ = rustix::io::read(&self.changed, &mut [0; 8]);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a sandbox's counters, as far as its host has them.
    fn add(&self, id: SandboxId, cgroup: &SandboxCgroup) {
        for file in WATCHED {
            let path = cgroup.path().join(file);
            match inotify::add_watch(&self.events, &path, WatchFlags::MODIFY) {
                Ok(number) => {
                    self.state().watched.insert(number, id);
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "cannot be watched; limits are told at the end");
                }
            }
        }
        self.wake();
    }

    /// What ended the sandbox, in words; nothing is remembered of it any more.
    fn forget(&self, id: SandboxId) -> Vec<String> {
        let mut state = self.state();
        // The kernel takes its watches away with the cgroup.
        state.watched.retain(|_, watched| *watched != id);
        state.met.remove(&id).map_or_else(Vec::new, |met| met.over)
    }

    /// The sandboxes whose counters moved.
    fn moved(&self) -> io::Result<Vec<SandboxId>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        let mut moved = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => moved.extend(self.state().watched.get(&event.wd()).copied()),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        moved.sort_unstable();
        moved.dedup();
        Ok(moved)
    }
}

impl Agent {
    /// Limits a sandbox that nothing runs in yet; what the host does not enforce
    /// is a refusal, or in words where the policy says `best_effort`.
    pub(super) fn limit_new(
        &self,
        cgroup: &SandboxCgroup,
        policy: &Policy,
    ) -> Result<Vec<String>, Failure> {
        let unenforced = cgroup
            .limit(
                &Limits::default(),
                &policy.limits,
                &self.upkeep().controllers,
            )
            .map_err(Failure::failed)?;
        match unenforced.first() {
            Some(first) if !policy.limits.best_effort => Err(Failure::new(
                crate::api::wire::FailureKind::BadConfiguration,
                format!(
                    "this host does not enforce `{}` of policy {}: {}; remove it, or write `best_effort: true` \
                     to go on without it",
                    first.key, policy.name, first.why
                ),
            )),
            _ => Ok(in_words(&unenforced)),
        }
    }

    /// Brings the sandboxes of an earlier agent under the limits of their policies,
    /// and watches them.
    pub(super) fn resume_limits(&self) {
        self.renew_limits();
        let members: Vec<Member> = self.book().members().cloned().collect();
        for member in members {
            if let Ok(cgroup) = self.cgroup_of(&member) {
                self.watch_limits_of(&member, &cgroup);
            }
        }
    }

    /// Begins to watch a sandbox.
    pub(super) fn watch_limits_of(&self, member: &Member, cgroup: &SandboxCgroup) {
        self.upkeep().watch.add(member.id, cgroup);
    }

    /// Brings running sandboxes under the limits of the policies in force.
    pub(super) fn renew_limits(&self) {
        let changed: Vec<(Member, Arc<Policy>)> = {
            let book = self.book();
            book.members()
                .filter_map(|member| Some((member, book.policy_of(member.id)?)))
                .filter(|(member, compiled)| member.limits != compiled.policy.limits)
                .map(|(member, compiled)| (member.clone(), Arc::clone(&compiled.policy)))
                .collect()
        };
        for (member, policy) in changed {
            // What others started they limit; only the clock is the agent's, and
            // not even that behind an interface.
            let wanted = match (&member.link, &member.foreign) {
                (Some(_), _) => Limits::default(),
                (None, None) => policy.limits.clone(),
                (None, Some(_)) => Limits {
                    timeout: policy.limits.timeout,
                    ..Limits::default()
                },
            };
            if member.limits == wanted {
                continue;
            }
            let renewed = self.cgroup_of(&member).and_then(|cgroup| {
                cgroup.limit(&member.limits, &wanted, &self.upkeep().controllers)
            });
            match renewed {
                Ok(unenforced) => {
                    let left_out = in_words(&unenforced);
                    for words in &left_out {
                        self.tell_of_sandbox(ids::SANDBOX_CHANGED, &member, words.clone());
                    }
                    self.book().note_limits(member.id, wanted, &left_out);
                }
                Err(error) => {
                    tracing::error!(sandbox = %member.name, %error, "the new limits are not in force");
                    self.tell_of_sandbox(
                        ids::SANDBOX_CHANGED,
                        &member,
                        format!("the new limits are not in force: {error}"),
                    );
                }
            }
        }
        self.upkeep().watch.wake();
    }

    /// Watches until the agent stops. A thread of its own: what else the agent does
    /// must not make a sandbox's time longer.
    pub(super) fn watch_limits(self: &Arc<Self>) -> io::Result<()> {
        let agent = Arc::clone(self);
        let tasks = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("limits".to_owned())
            .spawn(move || {
                while !agent.is_stopped() {
                    if let Err(error) = agent.upkeep().watch.wait(agent.until_next_deadline()) {
                        tracing::error!(%error, "limits that are met are told late");
                        std::thread::sleep(TICK);
                    }
                    agent.look_at_moved(&tasks);
                    for member in agent.overdue() {
                        let agent = Arc::clone(&agent);
                        tasks.spawn_blocking(move || agent.end_overdue(&member));
                    }
                }
            })
            .map(drop)
    }

    fn look_at_moved(self: &Arc<Self>, tasks: &tokio::runtime::Handle) {
        match self.upkeep().watch.moved() {
            Ok(moved) => {
                for id in moved {
                    let agent = Arc::clone(self);
                    tasks.spawn_blocking(move || {
                        let member = agent.book().member(id).cloned();
                        if let Some(member) = member {
                            agent.look_at_limits(&member);
                        }
                    });
                }
            }
            Err(error) => tracing::error!(%error, "limits that were met are told late"),
        }
    }

    /// Never longer than a tick: the clock that this sleeps on stands still while
    /// the machine does.
    fn until_next_deadline(&self) -> Duration {
        let state = self.upkeep().watch.state();
        let now = boot_now();
        let book = self.book();
        let next = book
            .members()
            .filter(|member| !state.met.get(&member.id).is_some_and(|met| met.overdue))
            .filter_map(Member::deadline)
            .min();
        next.map_or(TICK, |deadline| {
            Duration::from_nanos(deadline.saturating_sub(now)).min(TICK)
        })
    }

    /// The sandboxes whose time is up, each once.
    fn overdue(&self) -> Vec<Member> {
        let mut state = self.upkeep().watch.state();
        let now = boot_now();
        let book = self.book();
        let overdue = book
            .members()
            .filter(|member| member.deadline().is_some_and(|deadline| deadline <= now));
        overdue
            .filter(|member| {
                let met = state.met.entry(member.id).or_default();
                !std::mem::replace(&mut met.overdue, true)
            })
            .cloned()
            .collect()
    }

    /// Kills everything in a sandbox whose time is up. Its launcher ends it.
    fn end_overdue(&self, member: &Member) {
        let ran = Duration::from_nanos(boot_now().saturating_sub(member.began_boot));
        let limit = member.limits.timeout.unwrap_or_default();
        let over = format!("over `timeout` of {}s", limit.as_secs());
        // Before the kill: its launcher asks why it died as soon as it has.
        self.note_over(member.id, &over);
        let begun = Instant::now();
        let mut processes = 0;
        let killed = self.cgroup_of(member).and_then(|cgroup| {
            processes = cgroup.processes()?.len();
            cgroup.kill(KILL_DEADLINE)
        });
        let happened = match killed {
            // Missing: its launcher has ended it in the meantime.
            Ok(()) | Err(CgroupError::Missing(_)) => {
                format!("{processes} processes were killed in {:?}", begun.elapsed())
            }
            Err(error) => {
                tracing::error!(sandbox = %member.name, %error, "cannot be stopped; trying again");
                if let Some(met) = self.upkeep().watch.state().met.get_mut(&member.id) {
                    met.overdue = false;
                }
                format!("it could not be stopped: {error}")
            }
        };
        let measured = format!("{over} after {:.3}s", ran.as_secs_f64());
        self.tell_of_limit(member, &measured, &happened);
    }

    /// Notes why a sandbox ends, for its launcher.
    fn note_over(&self, id: SandboxId, over: &str) {
        let mut state = self.upkeep().watch.state();
        let known = &mut state.met.entry(id).or_default().over;
        if known.iter().all(|known| known != over) {
            known.push(over.to_owned());
        }
    }

    /// Tells of the limits that the kernel enforced since the last look.
    pub(super) fn look_at_limits(&self, member: &Member) {
        let Ok(usage) = self.cgroup_of(member).and_then(|cgroup| cgroup.usage()) else {
            return;
        };
        let limits = &member.limits;
        let (kills, forks) = {
            let mut state = self.upkeep().watch.state();
            let met = state.met.entry(member.id).or_default();
            (
                usage.out_of_memory.saturating_sub(std::mem::replace(
                    &mut met.out_of_memory,
                    usage.out_of_memory,
                )),
                // The first tells; the closing record has the sum.
                std::mem::replace(&mut met.forks_refused, usage.forks_refused) == 0
                    && usage.forks_refused > 0,
            )
        };
        if kills > 0 {
            let limit = limits.memory.map_or_else(
                || "killed because the machine ran out of memory".to_owned(),
                |limit| format!("over `memory_limit` of {}", Bytes(limit)),
            );
            let peak = usage.memory_peak.map_or_else(
                || "its peak is not known on this kernel".to_owned(),
                |peak| format!("its peak was {}", Bytes(peak)),
            );
            self.note_over(member.id, &limit);
            self.tell_of_limit(
                member,
                &limit,
                &format!("{peak}; the kernel killed {kills} of its processes"),
            );
        }
        if forks && let Some(limit) = limits.pids {
            self.tell_of_limit(
                member,
                &format!("at `pids_limit` of {limit}"),
                "further processes are refused",
            );
        }
    }

    /// The record of a limit that was met.
    fn tell_of_limit(&self, member: &Member, limit: &str, happened: &str) {
        let mut record = Record::new(Timestamp::now(), RecordKind::Sandbox);
        record.sandbox_id = Some(member.id);
        record.sandbox = Some(member.name.to_string());
        record.policy = Some(member.policy.clone());
        record.relaxations.clone_from(&member.relaxed);
        record.attribution.clone_from(&member.attribution);
        record.outcome = Some(Outcome::Denied);
        let detail = format!("{limit}; {happened}");
        tracing::warn!(
            message_id = ids::SANDBOX_AT_LIMIT,
            egress_sandbox = member.name.as_str(),
            egress_policy = member.policy,
            "sandbox {} {detail}",
            member.name
        );
        record.detail = Some(detail);
        self.recorder().record(record);
    }

    /// The last look at a sandbox: what it used, in words and in numbers.
    pub(super) fn last_look(&self, member: &Member, cgroup: &SandboxCgroup) -> Used {
        self.look_at_limits(member);
        self.used(member, cgroup)
            .unwrap_or_else(|error| Used::unknown(format!("what it used is not known: {error}")))
    }

    /// What a sandbox has used until now.
    pub(super) fn used(
        &self,
        member: &Member,
        cgroup: &SandboxCgroup,
    ) -> Result<Used, CgroupError> {
        let usage = cgroup.usage()?;
        let traffic = self.config().count_bytes.then(|| {
            // Nobody counts where the kernel does not tell.
            self.enforcer().traffic(member.cgroup).ok()
        });
        Ok(Used::of(&usage, traffic.flatten()))
    }

    /// Forgets what was told of a sandbox that has ended; gives what ended it.
    pub(super) fn forget_limits(&self, id: SandboxId) -> Vec<String> {
        self.upkeep().watch.forget(id)
    }
}

fn in_words(unenforced: &[Unenforced]) -> Vec<String> {
    unenforced
        .iter()
        .map(|one| format!("`{}` is not enforced here: {}", one.key, one.why))
        .collect()
}
