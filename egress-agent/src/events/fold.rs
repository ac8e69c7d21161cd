//! Folds denials that are alike, so that a loop in a sandbox does not bury the rest.
//!
//! The first of its kind is recorded at once. What follows within the window is
//! counted, and recorded once when the window closes. The counts of all records
//! add up to the number of denials, whatever the bounds do.

use crate::events::Report;
use crate::model::Record;
use egress_common::{CgroupId, Ip, Outcome, Port, Reason, SandboxId};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// How long and how much is folded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// From the first denial of a kind until the rest are recorded.
    pub window: Duration,
    /// Kinds that are counted at a time, per sandbox. Beyond it the sandbox's
    /// least recent one is recorded early.
    pub per_sandbox: usize,
    /// Kinds that are counted at a time, in all.
    pub total: usize,
}

impl Default for Bounds {
    /// 10 seconds, 256, and 8,192.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            per_sandbox: 256,
            total: 8192,
        }
    }
}

/// Who is bounded: the sandbox, or the cgroup of a process in no sandbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Owner(SandboxId, CgroupId);

/// What makes two denials alike. The hook is not part of it: a connect that is
/// refused may be reported by the address hook and by the packet hook.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Key {
    owner: Owner,
    ip: Ip,
    port: Port,
    protocol: u8,
    detail: u32,
    outcome: Outcome,
    reason: Reason,
}

impl Key {
    /// The key of a denial; allowed flows are not folded.
    fn of(report: &Report) -> Option<Self> {
        let event = &report.event;
        let cgroup = match event.sandbox {
            SandboxId(0) => event.cgroup,
            _ => CgroupId(0),
        };
        Some(Self {
            owner: Owner(event.sandbox, cgroup),
            ip: event.ip,
            port: event.port,
            protocol: event.protocol,
            detail: event.detail,
            outcome: report.outcome,
            reason: report.reason?,
        })
    }
}

/// Denials of one kind since the first of them was recorded.
#[derive(Debug)]
struct Fold {
    /// The first of them, and the process of the first one that knew its process.
    first: Record,
    /// Boot-time nanoseconds at which the window ends.
    closes: u64,
    /// When it was last used, in uses.
    used: u64,
    /// How many came after the first.
    more: u64,
    /// The time of the first and the last of those.
    since: Timestamp,
    until: Timestamp,
    /// Whether they name more than one process.
    several: bool,
}

impl Fold {
    fn add(&mut self, report: &Report, time: Timestamp) {
        if self.more == 0 {
            self.since = time;
            self.until = time;
        }
        self.more += 1;
        self.since = self.since.min(time);
        self.until = self.until.max(time);

        let process = (report.event.process != 0).then_some(report.event.process);
        match (self.first.process, process) {
            (None, Some(_)) => {
                let told = super::enrich::process(&report.event);
                (self.first.process, self.first.command, self.first.user) = told;
            }
            (Some(known), Some(other)) if known != other => self.several = true,
            (_, _) => {}
        }
    }

    /// The record of all but the first; none if there was no other.
    fn close(self) -> Option<Record> {
        if self.more == 0 {
            return None;
        }
        let several = if self.several {
            ", by more than one process"
        } else {
            ""
        };
        Some(Record {
            time: self.until,
            count: self.more,
            detail: Some(format!(
                "repeated from {} to {}{several}",
                self.since, self.until
            )),
            ..self.first
        })
    }
}

/// The open folds, and the three orders in which they are closed.
#[derive(Debug)]
pub(super) struct Folds {
    bounds: Bounds,
    open: HashMap<Key, Fold>,
    per_owner: HashMap<Owner, usize>,
    by_deadline: BTreeSet<(u64, Key)>,
    by_use: BTreeMap<u64, Key>,
    by_owner_and_use: BTreeSet<(Owner, u64)>,
    uses: u64,
}

impl Folds {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            open: HashMap::new(),
            per_owner: HashMap::new(),
            by_deadline: BTreeSet::new(),
            by_use: BTreeMap::new(),
            by_owner_and_use: BTreeSet::new(),
            uses: 0,
        }
    }

    /// Counts the denial if one like it was recorded within the window.
    pub fn absorb(&mut self, report: &Report, time: Timestamp) -> bool {
        let Some(key) = Key::of(report) else {
            return false;
        };
        let Some(fold) = self.open.get_mut(&key) else {
            return false;
        };
        fold.add(report, time);
        self.by_use.remove(&fold.used);
        self.by_owner_and_use.remove(&(key.owner, fold.used));
        self.uses += 1;
        fold.used = self.uses;
        self.by_use.insert(self.uses, key);
        self.by_owner_and_use.insert((key.owner, self.uses));
        true
    }

    /// Begins to count what is like `record`, which is being recorded, and
    /// closes whatever must go for it.
    pub fn begin(&mut self, report: &Report, record: &Record, now: u64, out: &mut Vec<Record>) {
        let Some(key) = Key::of(report) else {
            return;
        };
        self.make_room(key.owner, out);
        let window = u64::try_from(self.bounds.window.as_nanos()).unwrap_or(u64::MAX);
        let closes = now.saturating_add(window);
        self.uses += 1;
        self.by_deadline.insert((closes, key));
        self.by_use.insert(self.uses, key);
        self.by_owner_and_use.insert((key.owner, self.uses));
        *self.per_owner.entry(key.owner).or_default() += 1;
        self.open.insert(
            key,
            Fold {
                // The hint stands in the first record already.
                first: Record {
                    detail: None,
                    ..record.clone()
                },
                closes,
                used: self.uses,
                more: 0,
                since: record.time,
                until: record.time,
                several: false,
            },
        );
    }

    fn make_room(&mut self, owner: Owner, out: &mut Vec<Record>) {
        let own = self.per_owner.get(&owner).copied().unwrap_or(0);
        let oldest = if own >= self.bounds.per_sandbox.max(1) {
            self.by_owner_and_use
                .range((owner, 0)..)
                .next()
                .and_then(|(_, used)| self.by_use.get(used))
        } else if self.open.len() >= self.bounds.total.max(1) {
            self.by_use.values().next()
        } else {
            None
        };
        if let Some(key) = oldest.copied() {
            out.extend(self.close(&key));
        }
    }

    /// Closes what has been open for a window.
    pub fn close_due(&mut self, now: u64, out: &mut Vec<Record>) {
        while let Some((closes, key)) = self.by_deadline.first().copied()
            && closes <= now
        {
            out.extend(self.close(&key));
        }
    }

    /// Closes everything.
    pub fn close_all(&mut self, out: &mut Vec<Record>) {
        self.close_due(u64::MAX, out);
    }

    /// When the next window ends, in boot-time nanoseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.by_deadline.first().map(|(closes, _)| *closes)
    }

    fn close(&mut self, key: &Key) -> Option<Record> {
        let fold = self.open.remove(key)?;
        self.by_deadline.remove(&(fold.closes, *key));
        self.by_use.remove(&fold.used);
        self.by_owner_and_use.remove(&(key.owner, fold.used));
        if let Some(own) = self.per_owner.get_mut(&key.owner) {
            *own -= 1;
            if *own == 0 {
                self.per_owner.remove(&key.owner);
            }
        }
        fold.close()
    }

    #[cfg(test)]
    pub fn sizes(&self) -> [usize; 5] {
        [
            self.open.len(),
            self.per_owner.values().sum(),
            self.by_deadline.len(),
            self.by_use.len(),
            self.by_owner_and_use.len(),
        ]
    }
}
