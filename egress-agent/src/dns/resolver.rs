//! One query from bytes to bytes.

use super::admitted::Admitted;
use super::cache::{Key, Lookup};
use super::chain::Learned;
use super::concluded::Again;
use super::counters::{Counters, count, gauge};
use super::desk::Desks;
use super::gate::Gate;
use super::hosts::Hosts;
use super::lookups::Lookups;
use super::note::Note;
use super::question::{self, Question, Unusable};
use super::reply::Reply;
use super::trace::{self, Asked, Finding, Source};
use super::upstream::Failure;
use super::worker::STRANGERS;
use super::{name, question::Envelope};
use egress_common::{Outcome, Protocol, Reason, SandboxId};
use hickory_proto::op::ResponseCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The resolver without its sockets.
pub(super) struct Resolver<G: Gate> {
    pub(super) gate: Arc<G>,
    pub(super) desks: Desks<G::Receipt, G::Sieve>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) counters: Arc<Counters>,
}

/// A question of a sandbox.
pub(super) struct Heard {
    pub(super) sandbox: SandboxId,
    pub(super) question: Question,
    pub(super) begun: Instant,
}

impl<G: Gate> Resolver<G> {
    /// Answers one message. `None` if it deserves no answer.
    pub(super) async fn answer(&self, asked: Asked, bytes: &[u8]) -> Option<Vec<u8>> {
        match self.hear(asked, bytes) {
            Ok(heard) => {
                let concluded = self.answer_heard(asked, heard).await;
                self.finish(&concluded);
                concluded.reply
            }
            Err(turned_away) => turned_away,
        }
    }

    /// Reads a message. What is no question, or none of a sandbox, is dealt with
    /// at once: the error is its reply, if it deserves one.
    pub(super) fn hear(&self, asked: Asked, bytes: &[u8]) -> Result<Heard, Option<Vec<u8>>> {
        count(&self.counters.queries);
        let begun = Instant::now();
        let read = question::read(bytes);
        let envelope = match (asked.sandbox, read) {
            (_, Err(Unusable::Silent)) => {
                count(&self.counters.malformed);
                return Err(None);
            }
            (Some(sandbox), Ok(question)) => {
                return Ok(Heard {
                    sandbox,
                    question,
                    begun,
                });
            }
            (
                Some(sandbox),
                Err(Unusable::Bad {
                    envelope,
                    code,
                    reason,
                }),
            ) => {
                let finding = self.unusable(sandbox, &envelope, code, reason);
                return Err(self.turn_away(asked, begun, &envelope, &finding));
            }
            (None, Ok(question)) => question.envelope,
            (None, Err(Unusable::Bad { envelope, .. })) => envelope,
        };
        count(&self.counters.unknown_asker);
        let finding = refused(&envelope, ResponseCode::Refused, Reason::UnknownAsker);
        Err(self.turn_away(asked, begun, &envelope, &finding))
    }

    /// Records a connection that belongs to no sandbox, or no longer to the one
    /// that opened it.
    pub(super) fn record_stranger(&self, from: SocketAddr) {
        let why = Some(Reason::UnknownAsker);
        if self
            .desks
            .may_record(STRANGERS, self.gate.now(), Outcome::Denied, why)
        {
            self.gate.record(trace::stranger(from));
        }
    }

    /// Records what was done without a record, and throws away what is no longer
    /// good.
    pub(super) fn sweep(&self) {
        self.lookups.upstreams.renew_sockets();
        let tallies = self.desks.sweep(&*self.gate);
        for (sandbox, tally) in tallies {
            self.gate.record(trace::tally(sandbox, tally));
        }
        gauge(&self.counters.cached_answers, self.lookups.cache.len());
        gauge(&self.counters.ready_answers, self.desks.held());
    }

    fn unusable(
        &self,
        sandbox: SandboxId,
        envelope: &Envelope,
        code: ResponseCode,
        reason: Reason,
    ) -> Finding {
        let counter = match reason {
            Reason::MalformedQuery => &self.counters.malformed,
            _ => &self.counters.refused,
        };
        count(counter);
        let ttl = match code {
            ResponseCode::NXDomain => self.gate.limits(sandbox).negative_cache_ttl,
            _ => Duration::ZERO,
        };
        let reply = Reply::refusal(envelope, code, (reason, None), ttl);
        Finding::denied(reply, reason)
    }

    /// What is found out about a question, and what is then good for whoever asks it again.
    pub(super) async fn resolve(
        &self,
        sandbox: SandboxId,
        question: &Question,
    ) -> (Finding, Option<Again<G::Receipt>>) {
        if name::is_localhost(&question.name) {
            count(&self.counters.answered);
            let mut finding = Finding::allowed(Reply::localhost(question));
            finding.notes.push("loopback name, answered here".into());
            return (finding, None);
        }
        let admitted = match self.admit(sandbox, question) {
            Ok(admitted) => admitted,
            Err(finding) => return (*finding, None),
        };
        let sources = self.gate.sources(sandbox, &question.name);
        let key = Key {
            name: question.name.clone(),
            query_type: question.query_type,
            view: sources.view,
        };
        let own = sources
            .addresses
            .and_then(|own| Hosts::answer(&own, &key, "hosts of the policy", Instant::now()));
        let cached = match own {
            Some(own) => Some((own, Note::from("the policy itself says so"))),
            None => self.known(&key, &admitted),
        };
        let beyond = match self.spend(sandbox, question, &admitted, cached.is_none()) {
            Ok(beyond) => beyond,
            Err(finding) => return (*finding, None),
        };
        let was_known = cached.is_some();
        let looked_up = match cached {
            Some(found) => Ok(found),
            None => self.look_up(&key).await,
        };
        let (lookup, source) = match looked_up {
            Ok(found) => found,
            Err(failure) => {
                count(&self.counters.failed);
                let text = failure.to_string();
                let code = failure.extended_code();
                let reply = Reply::failure(&question.envelope, code, &text);
                let mut finding = Finding::denied(reply, Reason::UpstreamFailed);
                finding.notes.push(text.into());
                return (finding, None);
            }
        };
        // Asked again if the policy changed while the upstream thought.
        // From here to the reply nothing waits.
        let admitted = if self.still_holds(&admitted) {
            admitted
        } else {
            match self.admit(sandbox, question) {
                Ok(admitted) => admitted,
                Err(finding) => return (*finding, None),
            }
        };
        let generation = admitted.generation;
        let mut receipt = None;
        let mut finding = match &lookup.learned {
            Learned::Nothing { no_such_name, .. } => {
                let remaining = lookup.remaining(Instant::now());
                let ttl = remaining.min(admitted.limits.negative_cache_ttl);
                let mut finding = Finding::allowed(Reply::nothing(question, *no_such_name, ttl));
                finding
                    .notes
                    .push("the upstream knows no such record".into());
                finding
            }
            Learned::Records(chain) => {
                let handed = self.hand_out(sandbox, question, &admitted, (&lookup, chain));
                receipt = handed.1;
                handed.0
            }
        };
        finding.notes.push(source);
        finding.source = Some(Source {
            upstream: Arc::clone(&lookup.upstream),
            cache: match (lookup.is_stale, was_known) {
                (true, _) => "stale",
                (false, true) => "hit",
                (false, false) => "miss",
            },
        });
        if finding.rule.is_none() {
            finding.rule = admitted.rule;
        }
        if finding.outcome == Outcome::Allowed {
            finding.outcome = admitted.outcome;
            finding.reason = finding.reason.or(admitted.reason);
            finding.notes.extend(admitted.help.map(Note::from));
        }
        if let Some(beyond) = beyond {
            finding.note_beyond(beyond);
        }
        if lookup.is_stale {
            finding.reply.say_stale();
            return (finding, None);
        }
        let names_nothing = matches!(lookup.learned, Learned::Nothing { .. });
        if finding.outcome == Outcome::Allowed
            && finding.reason.is_none()
            && (names_nothing || receipt.is_some())
        {
            let again = Again {
                lookup,
                limits: admitted.limits,
                generation,
                standing: receipt,
            };
            return (finding, Some(again));
        }
        (finding, None)
    }

    /// What is known without asking anybody, with a note that says from where.
    fn known(&self, key: &Key, admitted: &Admitted<G::Permit>) -> Option<(Arc<Lookup>, Note)> {
        let (now, limits) = (Instant::now(), &admitted.limits);
        let lookup = self.lookups.known(key, admitted.is_named(), now)?;
        let bound = match &lookup.learned {
            Learned::Records(_) => limits.cache_ttl,
            Learned::Nothing { .. } => limits.negative_cache_ttl,
        };
        let age = now.saturating_duration_since(lookup.received);
        if age >= bound {
            return None;
        }
        count(&self.counters.cache_hits);
        if self.lookups.prefetch && lookup.refresh_after().is_some_and(|after| age >= after) {
            self.lookups.refresh(key.clone());
        }
        Some((lookup, Note::Cached(age)))
    }

    /// What an upstream says, with a note that says which.
    async fn look_up(&self, key: &Key) -> Result<(Arc<Lookup>, Note), Failure> {
        let began = Instant::now();
        let lookup = self.lookups.ask(key).await?;
        let upstream = Arc::clone(&lookup.upstream);
        let note = if lookup.is_stale {
            Note::Stale(upstream)
        } else {
            Note::Fresh(upstream, began.elapsed())
        };
        Ok((lookup, note))
    }
}

/// The answer to a query that found too many others under way.
pub(super) fn overloaded(bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope = match question::read(bytes) {
        Ok(question) => question.envelope,
        Err(Unusable::Bad { envelope, .. }) => envelope,
        Err(Unusable::Silent) => return None,
    };
    let text = "too many queries of this sandbox are under way";
    Reply::failure(&envelope, 0, text).encode(Protocol::Tcp)
}

fn refused(envelope: &Envelope, code: ResponseCode, reason: Reason) -> Finding {
    let reply = Reply::refusal(envelope, code, (reason, None), Duration::ZERO);
    Finding::denied(reply, reason)
}
