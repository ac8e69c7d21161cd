//! From what was found out to a reply, and what follows when that has left.
//!
//! Before: the answer is put where it is at hand for whoever asks again, and the decision
//! is counted. After, since nobody who asked has to wait for it: its record is made and
//! taken.

use super::cache::Lookup;
use super::chain::Learned;
use super::desk::Ready;
use super::gate::{Gate, Limits};
use super::query;
use super::question::{Envelope, Question};
use super::resolver::{Heard, Resolver};
use super::trace::{Asked, Finding, judged, unusable};
use super::worker::STRANGERS;
use crate::model::Record;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What came of a question. The decision is counted, and the rest is still to be done
/// ([`Resolver::finish`]).
#[must_use]
pub(super) struct Concluded {
    /// `None` if it deserves no answer.
    pub(super) reply: Option<Vec<u8>>,
    asked: Asked,
    question: Question,
    finding: Finding,
    /// `None` if it gets no record of its own.
    decided: Option<Decided>,
}

/// A decision that gets a record of its own.
#[derive(Clone, Copy)]
struct Decided {
    /// Records tell the order of decisions, not that in which somebody had time for them.
    when: Timestamp,
    took: Duration,
}

/// By what an answer may be given again.
pub(super) struct Again<S> {
    pub(super) lookup: Arc<Lookup>,
    pub(super) limits: Limits,
    /// From before the name was judged.
    pub(super) generation: u64,
    /// The grants; `None` if the answer names nothing.
    pub(super) standing: Option<S>,
}

impl<G: Gate> Resolver<G> {
    /// Answers a question of a sandbox.
    pub(super) async fn answer_heard(&self, asked: Asked, heard: Heard) -> Concluded {
        let Heard {
            sandbox,
            question,
            begun,
        } = heard;
        let (finding, again) = self.resolve(sandbox, &question).await;
        if let Some(ready) = again.and_then(|again| self.ready(&finding, again)) {
            let key = query::key_of(&question.name, question.query_type);
            self.desks.put(sandbox, &key, ready);
        }
        let decided = self.decide(asked, begun, &finding);
        Concluded {
            reply: finding.reply.encode(asked.protocol),
            asked,
            question,
            finding,
            decided,
        }
    }

    /// Does what nobody who asked has to wait for.
    pub(super) fn finish(&self, concluded: &Concluded) {
        if let Some(decided) = concluded.decided {
            let (question, finding) = (&concluded.question, &concluded.finding);
            let record = judged(concluded.asked, decided.when, question, finding);
            self.record_decided(record, decided);
        }
        self.lookups.upstreams.renew_sockets();
    }

    /// Records a message that is no question, or none of a sandbox, and gives back its reply.
    pub(super) fn turn_away(
        &self,
        asked: Asked,
        begun: Instant,
        envelope: &Envelope,
        finding: &Finding,
    ) -> Option<Vec<u8>> {
        if let Some(decided) = self.decide(asked, begun, finding) {
            let record = unusable(asked, decided.when, envelope, finding);
            self.record_decided(record, decided);
        }
        finding.reply.encode(asked.protocol)
    }

    /// Counts a decision, before its reply leaves. `None` if it gets no record of its own.
    fn decide(&self, asked: Asked, begun: Instant, finding: &Finding) -> Option<Decided> {
        let (when, took) = (Timestamp::now(), begun.elapsed());
        let sandbox = asked.sandbox.unwrap_or(STRANGERS);
        let (now, outcome, reason) = (self.gate.now(), finding.outcome, finding.reason);
        let is_recorded = self.desks.may_record(sandbox, now, outcome, reason);
        if is_recorded {
            self.gate.note(1);
        }
        self.counters.latency.observe(took);
        is_recorded.then_some(Decided { when, took })
    }

    fn record_decided(&self, mut record: Record, decided: Decided) {
        record.latency_us = u64::try_from(decided.took.as_micros()).ok();
        self.gate.record_noted(record);
    }

    /// An answer for whoever asks the same again; `None` if it is good for no time.
    fn ready(&self, finding: &Finding, again: Again<G::Receipt>) -> Option<Ready<G::Receipt>> {
        let Again {
            lookup,
            limits,
            generation,
            standing,
        } = again;
        let longest_ttl = match &lookup.learned {
            Learned::Records(_) => limits.cache_ttl,
            Learned::Nothing { .. } => limits.negative_cache_ttl,
        };
        // Who asks at the end of its life is to be noticed, so that it is renewed.
        let refresh = lookup.refresh_after().filter(|_| self.lookups.prefetch);
        let ttl = lookup.lifetime();
        let used_for = longest_ttl.min(refresh.unwrap_or(ttl)).min(ttl);
        let now = self.gate.now();
        let until = |end: Duration| {
            let left = end.checked_sub(lookup.received.elapsed())?;
            now.checked_add(u64::try_from(left.as_nanos()).ok()?)
        };
        Some(Ready {
            template: finding.reply.template()?,
            generation,
            good_until: until(ttl)?,
            used_until: until(used_for)?,
            longest_ttl,
            standing,
            rule: finding.rule.clone(),
            upstream: Arc::clone(&lookup.upstream),
        })
    }
}
