//! Pausing, resuming and stopping sandboxes, and what supervisors tell.

use super::agent::{Agent, KILL_DEADLINE};
use super::book::{BookError, Member};
use super::limits::LimitWatch;
use crate::api::wire::{Done, Failure, FailureKind, Progress, Sandbox, Stop};
use crate::enforcer::boot_now;
use crate::sandbox::{CgroupError, Controllers, GovernedRoot, Hierarchy, SandboxCgroup};
use crate::telemetry::ids;
use egress_common::SandboxId;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the launcher of a stopped sandbox has to end it, before the agent does.
const LAUNCHERS_TURN: Duration = Duration::from_secs(2);
/// How often it is looked whether something has come about.
const POLL: Duration = Duration::from_millis(5);
/// No grace is longer.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);

/// What is needed to look after sandboxes beside their policies.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// What this host can limit.
    pub(super) controllers: Controllers,
    /// The limits that were met.
    pub(super) watch: LimitWatch,
    /// Sandboxes that are being stopped: their supervisors start nothing more.
    stopping: Mutex<BTreeSet<SandboxId>>,
    /// What was told of cgroups that are in no sandbox.
    pub(super) told_of: Mutex<BTreeSet<(String, String)>>,
}

impl Upkeep {
    /// Looks what the host can limit, and watches nothing yet.
    pub(super) fn new(hierarchy: &Hierarchy, root: &GovernedRoot) -> io::Result<Self> {
        Ok(Self {
            controllers: Controllers::enable(hierarchy, root),
            watch: LimitWatch::open()?,
            stopping: Mutex::default(),
            told_of: Mutex::default(),
        })
    }
}

impl Agent {
    /// The cgroup of a sandbox.
    pub(super) fn cgroup_of(&self, member: &Member) -> Result<SandboxCgroup, CgroupError> {
        match member.directory() {
            Some(directory) => SandboxCgroup::open_as(self.root(), directory, &member.name),
            None => Err(CgroupError::Missing(
                self.root().path().join(member.name.as_str()),
            )),
        }
    }

    fn member_named(&self, name: &str) -> Result<Member, Failure> {
        let member = self.book().by_name(name).cloned();
        member.ok_or_else(|| BookError::NoSuchSandbox(name.to_owned()).into())
    }

    fn named(&self, name: &str) -> Result<(Member, SandboxCgroup), Failure> {
        let member = self.member_named(name)?;
        if let Some(link) = &member.link {
            let text = format!(
                "`{name}` is behind the interface {}, and what runs there is not in the agent's \
                 hands; block it, or detach it",
                link.interface
            );
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        let cgroup = self.cgroup_of(&member).map_err(Failure::failed)?;
        Ok((member, cgroup))
    }

    /// Freezes a sandbox: what runs in it stands still, and sends nothing.
    pub(super) fn pause_sandbox(&self, name: &str) -> Result<Done, Failure> {
        let (member, cgroup) = self.named(name)?;
        let begun = Instant::now();
        cgroup.freeze().map_err(Failure::failed)?;
        Ok(self.done(&member, "paused", begun))
    }

    /// Thaws a sandbox.
    pub(super) fn resume_sandbox(&self, name: &str) -> Result<Done, Failure> {
        let (member, cgroup) = self.named(name)?;
        let begun = Instant::now();
        cgroup.thaw().map_err(Failure::failed)?;
        Ok(self.done(&member, "resumed", begun))
    }

    fn done(&self, member: &Member, what: &str, begun: Instant) -> Done {
        let took = begun.elapsed();
        self.tell_of_sandbox(ids::SANDBOX_CHANGED, member, format!("{what} in {took:?}"));
        Done {
            what: format!("{} {what}", member.name),
            took_us: took.as_micros().try_into().unwrap_or(u64::MAX),
        }
    }

    /// Stops a sandbox: SIGTERM, the grace, then everything is killed. Blocks
    /// until it has ended.
    pub(super) fn stop_named(&self, name: &str, stop: Stop) -> Result<Done, Failure> {
        let grace = Duration::from_millis(stop.grace_ms);
        if grace > LONGEST_GRACE {
            return Err(Failure::new(
                FailureKind::Usage,
                "no grace is longer than an hour",
            ));
        }
        let (member, cgroup) = self.named(name)?;
        self.refuse_foreign(&member)?;
        if !self.note_stopping(member.id) {
            return Err(Failure::new(
                FailureKind::Conflict,
                format!("the sandbox `{name}` is being stopped already"),
            ));
        }
        let result = self.end_by_request(&member, &cgroup, grace);
        self.stopping().remove(&member.id);
        result
    }

    fn end_by_request(
        &self,
        member: &Member,
        cgroup: &SandboxCgroup,
        grace: Duration,
    ) -> Result<Done, Failure> {
        let begun = Instant::now();
        cgroup.terminate().map_err(Failure::failed)?;
        // Who is frozen hears nothing. Who has ended by now needs no thaw.
        if let Err(error) = cgroup.thaw()
            && cgroup.populated().unwrap_or(false)
        {
            return Err(Failure::failed(error));
        }
        let alone = || cgroup.processes().map(|processes| processes.len() <= 1);
        let mut by_itself = alone().unwrap_or(true);
        while !by_itself && begun.elapsed() < grace {
            std::thread::sleep(POLL);
            by_itself = alone().unwrap_or(true);
        }
        if cgroup.populated().unwrap_or(false) {
            cgroup.kill(KILL_DEADLINE).map_err(Failure::failed)?;
        }
        let how = if by_itself {
            "stopped; it ended by itself"
        } else {
            "stopped; it was killed after its grace"
        };
        let done = self.done(member, how, begun);
        // Its launcher ends it, with the status of its command.
        let waited = Instant::now();
        while self
            .book()
            .by_name(member.name.as_str())
            .is_some_and(|now| now.id == member.id)
        {
            if waited.elapsed() > LAUNCHERS_TURN {
                match self.remove_sandbox(member.name.as_str()) {
                    Err(failure) if failure.kind == FailureKind::NotFound => {}
                    other => drop(other?),
                }
                break;
            }
            std::thread::sleep(POLL);
        }
        Ok(done)
    }

    fn stopping(&self) -> MutexGuard<'_, BTreeSet<SandboxId>> {
        self.upkeep()
            .stopping
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note_stopping(&self, id: SandboxId) -> bool {
        self.stopping().insert(id)
    }

    /// Takes what a supervisor tells, for the records and for the next agent.
    pub(super) fn take_progress(&self, name: &str, progress: Progress) -> Result<(), Failure> {
        let happened = progress.happened.clone();
        let member = self.member_named(name)?;
        let member = self
            .book()
            .note_progress(member.id, progress)
            .ok_or_else(|| Failure::from(BookError::NoSuchSandbox(name.to_owned())))?;
        self.runtime().remember(&member).map_err(Failure::failed)?;
        self.tell_of_sandbox(ids::SANDBOX_CHANGED, &member, happened);
        Ok(())
    }

    /// One sandbox.
    pub(super) fn describe_sandbox(&self, name: &str) -> Result<Sandbox, Failure> {
        self.describe_sandboxes()
            .into_iter()
            .find(|sandbox| sandbox.name == name)
            .ok_or_else(|| BookError::NoSuchSandbox(name.to_owned()).into())
    }

    /// What its cgroup says: state, processes, use.
    pub(super) fn look_into(&self, member: &Member) -> (&'static str, usize, String) {
        if member.link.is_some() {
            return ("attached", 0, String::new());
        }
        let Ok(cgroup) = self.cgroup_of(member) else {
            return ("empty", 0, String::new());
        };
        let processes = cgroup.processes().map_or(0, |processes| processes.len());
        let state = if self.stopping().contains(&member.id) {
            "stopping"
        } else if cgroup.frozen().unwrap_or(false) {
            "paused"
        } else if processes == 0 {
            "empty"
        } else {
            "running"
        };
        let used = self.used(member, &cgroup).map(|used| used.words);
        let used = used.unwrap_or_default();
        (state, processes, used)
    }

    /// How long it may still last, in milliseconds.
    pub(super) fn time_left(&self, member: &Member) -> Option<u64> {
        let left = member.deadline()?.saturating_sub(boot_now());
        u64::try_from(Duration::from_nanos(left).as_millis()).ok()
    }
}
