//! What is at hand for each sandbox: answers that only have to be filled in,
//! and how many records of its own it may still cause.
//!
//! An answer lies here only with what proves that it may be given again: its
//! grants stand long enough ([`Standing`]), nothing about policy has changed
//! since ([`super::Gate::generation`]), and the upstream's word is still good.
//! Whatever else is the case, the query goes the long way through
//! [`super::resolver`], which judges, screens, opens and puts the answer here anew.

use super::budget::{Below, Bucket, NamesSpent, Passed};
use super::denial;
use super::gate::{Gate, Refusal, Sieve, Standing};
use super::query::{Plain, QuestionKey};
use super::template::Template;
use crate::model::{DomainName, NameLimits, RuleOrigin};
use egress_common::{Outcome, Reason, SandboxId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Answers of one sandbox. Beyond, further names go the long way.
    pub(super) per_sandbox: usize,
    /// Answers of all sandboxes.
    pub(super) total: usize,
    /// Records that queries of one sandbox make per second; further ones are
    /// counted by outcome and reason.
    pub(super) records_per_second: u32,
}

/// An answer that may be given again.
#[derive(Debug)]
pub(super) struct Ready<S> {
    pub(super) template: Template,
    /// [`super::Gate::generation`] from before the name was judged.
    pub(super) generation: u64,
    /// Boot-time nanoseconds until which the upstream's answer is good.
    pub(super) good_until: u64,
    /// Boot-time nanoseconds until which this sandbox's policy lets it be used.
    pub(super) used_until: u64,
    /// The longest time to live that is told.
    pub(super) longest_ttl: Duration,
    /// The grants; `None` if the answer names nothing.
    pub(super) standing: Option<S>,
    /// For the record.
    pub(super) rule: Option<RuleOrigin>,
    pub(super) upstream: Arc<str>,
}

impl<S: Standing> Ready<S> {
    /// The time to live to tell, if the answer may be given.
    fn ttl(&self, now: u64, generation: u64) -> Option<u32> {
        if self.generation != generation || now >= self.used_until {
            return None;
        }
        let left = Duration::from_secs(self.good_until.checked_sub(now)? / SECOND);
        let ttl = left.min(self.longest_ttl);
        let stands = |standing: &S| standing.covers(now, ttl);
        let may = !ttl.is_zero() && self.standing.as_ref().is_none_or(stands);
        may.then(|| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX))
    }
}

/// What was done without a record of its own.
#[derive(Debug)]
pub(super) enum Tally {
    /// An answer was given again.
    Served {
        key: Box<[u8]>,
        rule: Option<RuleOrigin>,
        upstream: Arc<str>,
        count: u64,
    },
    /// More queries than records are made of.
    Folded {
        outcome: Outcome,
        reason: Option<Reason>,
        count: u64,
    },
}

/// One sandbox's desk.
type Locked<S, V> = Arc<Mutex<Desk<S, V>>>;

/// The desks of all sandboxes.
#[derive(Debug)]
pub(super) struct Desks<S, V> {
    bounds: Bounds,
    desks: RwLock<HashMap<SandboxId, Locked<S, V>>>,
    held: AtomicUsize,
}

/// What a desk could say at once.
pub(super) enum Said {
    /// An answer of this length.
    Answer(usize),
    /// A refusal of this length, to be recorded if it is here.
    Refusal(usize, Option<(DomainName, Refusal)>),
}

/// An answer at hand.
#[derive(Debug)]
struct Held<S> {
    ready: Ready<S>,
    /// How often it was given since the last sweep.
    served: u64,
}

#[derive(Debug)]
struct Desk<S, V> {
    /// Each behind a box: a map that grows moves all that is in it, while somebody waits.
    ready: HashMap<Box<[u8]>, Box<Held<S>>>,
    /// What is refused in any case, and the generation from before it was asked for.
    sieve: Option<(u64, Option<V>)>,
    records_left: u32,
    records_refilled: u64,
    folded: Vec<(Outcome, Option<Reason>, u64)>,
    names: NamesSpent,
    queries: Bucket,
    queries_per_second: Option<u32>,
}

impl<S, V> Default for Desk<S, V> {
    fn default() -> Self {
        Self {
            ready: HashMap::new(),
            sieve: None,
            records_left: 0,
            records_refilled: 0,
            folded: Vec::new(),
            names: NamesSpent::default(),
            queries: Bucket::default(),
            queries_per_second: None,
        }
    }
}

impl<S: Standing, V: Sieve> Desks<S, V> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            desks: RwLock::default(),
            held: AtomicUsize::new(0),
        }
    }

    /// Writes what can be said about a query at once: an answer that is at hand,
    /// or a refusal.
    pub(super) fn say<G: Gate<Sieve = V>>(
        &self,
        gate: &G,
        sandbox: SandboxId,
        (key, query): (&QuestionKey, &Plain<'_>),
        (now, generation): (u64, u64),
        out: &mut [u8],
    ) -> Option<Said> {
        let desk = self.desk_or_new(sandbox);
        let desk = &mut *lock(&desk);
        // What cannot be paid for is told the long way.
        let paid = match desk.queries_per_second {
            None => desk.queries,
            Some(most) => desk.queries.spend(now, 1, most, SECOND)?,
        };
        let said = if let Some(held) = desk.ready.get_mut(key.as_bytes()) {
            let ttl = held.ready.ttl(now, generation)?;
            let length = held.ready.template.fill(query, ttl, out)?;
            held.served += 1;
            Said::Answer(length)
        } else {
            let sieve = desk.sieve(gate, sandbox, generation)?;
            let reason = sieve.refuses(key.plain_text()?)?;
            // Only who hears or reads the reason has it put in words.
            let is_recorded = desk.has_record_left(now, self.bounds.records_per_second);
            let words = if is_recorded || query.speaks_edns() {
                let name = key.name()?;
                let refusal = sieve.refusal(&name)?;
                Some((name, refusal))
            } else {
                None
            };
            let help = words.as_ref().and_then(|(_, said)| said.help.as_deref());
            let ttl = u32::try_from(sieve.negative_ttl().as_secs()).unwrap_or(u32::MAX);
            let length = denial::write(query, (reason, help), ttl, out)?;
            desk.note_record(is_recorded, Outcome::Denied, Some(reason));
            Said::Refusal(length, words.filter(|_| is_recorded))
        };
        desk.queries = paid;
        Some(said)
    }

    /// Puts an answer where it is at hand, unless the desk is full.
    pub(super) fn put(&self, sandbox: SandboxId, key: &[u8], ready: Ready<S>) {
        let desk = self.desk_or_new(sandbox);
        let mut desk = lock(&desk);
        if let Some(held) = desk.ready.get_mut(key) {
            held.ready = ready;
            return;
        }
        let is_full = desk.ready.len() >= self.bounds.per_sandbox
            || self.held.load(Ordering::Relaxed) >= self.bounds.total;
        if !is_full {
            self.held.fetch_add(1, Ordering::Relaxed);
            let held = Held { ready, served: 0 };
            desk.ready.insert(key.into(), Box::new(held));
        }
    }

    /// Takes one query from what the policy lets the sandbox ask per second.
    pub(super) fn may_ask(&self, sandbox: SandboxId, now: u64, most: Option<u32>) -> bool {
        let desk = self.desk_or_new(sandbox);
        let mut desk = lock(&desk);
        desk.queries_per_second = most;
        let Some(most) = most else {
            return true;
        };
        let paid = desk.queries.spend(now, 1, most, SECOND);
        desk.queries = paid.unwrap_or(desk.queries);
        paid.is_some()
    }

    /// Pays for what a name says, before it leaves the host.
    pub(super) fn pay(
        &self,
        sandbox: SandboxId,
        now: u64,
        asked: (&DomainName, u16),
        below: Below,
        limits: &NameLimits,
    ) -> Result<(), Passed> {
        let desk = self.desk_or_new(sandbox);
        let mut desk = lock(&desk);
        desk.names.pay(now, asked, below, limits)
    }

    /// Whether a query that ended so gets a record of its own; it is counted
    /// otherwise.
    pub(super) fn may_record(
        &self,
        sandbox: SandboxId,
        now: u64,
        outcome: Outcome,
        reason: Option<Reason>,
    ) -> bool {
        let desk = self.desk_or_new(sandbox);
        let mut desk = lock(&desk);
        let is_recorded = desk.has_record_left(now, self.bounds.records_per_second);
        desk.note_record(is_recorded, outcome, reason);
        is_recorded
    }

    /// Takes what was counted, and throws away what cannot be given any more: also what is kept for
    /// sandboxes that ended, since it would take the place of what others ask for.
    pub(super) fn sweep<G: Gate>(&self, gate: &G) -> Vec<(SandboxId, Tally)> {
        let (now, generation) = (gate.now(), gate.generation());
        let desks: Vec<_> = self
            .desks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(sandbox, desk)| (*sandbox, Arc::clone(desk)))
            .collect();
        let mut tallies = Vec::new();
        let mut empty = Vec::new();
        for (sandbox, desk) in desks {
            let is_asked = gate.has_policy(sandbox);
            let mut desk = lock(&desk);
            for (outcome, reason, count) in desk.folded.drain(..) {
                let folded = Tally::Folded {
                    outcome,
                    reason,
                    count,
                };
                tallies.push((sandbox, folded));
            }
            let before = desk.ready.len();
            desk.ready.retain(|key, held| {
                let count = std::mem::take(&mut held.served);
                let ready = &held.ready;
                if count > 0 {
                    let served = Tally::Served {
                        key: key.clone(),
                        rule: ready.rule.clone(),
                        upstream: Arc::clone(&ready.upstream),
                        count,
                    };
                    tallies.push((sandbox, served));
                }
                is_asked && ready.generation == generation && now < ready.used_until
            });
            self.held
                .fetch_sub(before - desk.ready.len(), Ordering::Relaxed);
            if desk.ready.is_empty()
                && desk.names.is_idle(now)
                && now.saturating_sub(desk.records_refilled) > 60 * SECOND
            {
                empty.push(sandbox);
            }
        }
        if !empty.is_empty() {
            let mut desks = self.desks.write().unwrap_or_else(PoisonError::into_inner);
            desks.retain(|sandbox, desk| {
                // Two: the map's and somebody's who is about to put something there.
                let is_idle = Arc::strong_count(desk) == 1 && lock(desk).is_empty(now);
                !(empty.contains(sandbox) && is_idle)
            });
        }
        tallies
    }

    /// Answers at hand.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn desk(&self, sandbox: SandboxId) -> Option<Locked<S, V>> {
        let desks = self.desks.read().unwrap_or_else(PoisonError::into_inner);
        desks.get(&sandbox).cloned()
    }

    fn desk_or_new(&self, sandbox: SandboxId) -> Locked<S, V> {
        if let Some(desk) = self.desk(sandbox) {
            return desk;
        }
        let mut desks = self.desks.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(desks.entry(sandbox).or_default())
    }
}

impl<S, V: Clone> Desk<S, V> {
    /// What the policy of this generation refuses in any case.
    fn sieve<G: Gate<Sieve = V>>(
        &mut self,
        gate: &G,
        sandbox: SandboxId,
        generation: u64,
    ) -> Option<V> {
        match &self.sieve {
            Some((known, sieve)) if *known == generation => sieve.clone(),
            _ => {
                let sieve = gate.sieve(sandbox);
                self.sieve = Some((generation, sieve.clone()));
                sieve
            }
        }
    }

    /// Whether another query gets a record of its own.
    fn has_record_left(&mut self, now: u64, per_second: u32) -> bool {
        // Zero is a desk that was made just now.
        if self.records_refilled == 0 || now.saturating_sub(self.records_refilled) >= SECOND {
            self.records_refilled = now.max(1);
            self.records_left = per_second;
        }
        self.records_left > 0
    }

    /// Counts a query that gets a record of its own, or is folded.
    fn note_record(&mut self, is_recorded: bool, outcome: Outcome, reason: Option<Reason>) {
        if is_recorded {
            self.records_left = self.records_left.saturating_sub(1);
            return;
        }
        let same = |(known, why, _): &&mut (Outcome, Option<Reason>, u64)| {
            (*known, *why) == (outcome, reason)
        };
        match self.folded.iter_mut().find(same) {
            Some((_, _, count)) => *count += 1,
            None => self.folded.push((outcome, reason, 1)),
        }
    }

    fn is_empty(&self, now: u64) -> bool {
        self.ready.is_empty() && self.folded.is_empty() && self.names.is_idle(now)
    }
}

/// Every change below is one step, so a panic elsewhere leaves nothing half done.
fn lock<S, V>(desk: &Mutex<Desk<S, V>>) -> MutexGuard<'_, Desk<S, V>> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}
