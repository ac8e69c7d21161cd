//! One query from bytes to bytes.

use super::cache::{Cache, Key, Lookup};
use super::chain::{Chain, Learned};
use super::coalesce::InFlight;
use super::counters::{Counters, count, count_many};
use super::gate::{Gate, Judgement, Limits, Refusal};
use super::question::{self, Question, Unusable};
use super::reply::Reply;
use super::screen::{Blocked, blocked_alias, screen};
use super::trace::{self, Asked, Finding, judged, unusable};
use super::upstream::{Failure, Upstreams};
use super::{name, question::Envelope};
use egress_common::{Mode, Outcome, Protocol, Reason, SandboxId};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The resolver without its sockets.
pub(super) struct Resolver<G> {
    pub(super) gate: Arc<G>,
    pub(super) cache: Cache,
    pub(super) in_flight: InFlight,
    pub(super) upstreams: Upstreams,
    pub(super) counters: Arc<Counters>,
}

/// What policy says at one moment.
struct Admitted<P> {
    permit: P,
    limits: Limits,
    outcome: Outcome,
    reason: Option<Reason>,
    rule: Option<crate::model::RuleOrigin>,
    help: Option<String>,
}

impl<G: Gate> Resolver<G> {
    /// Answers one message. `None` if it deserves no answer.
    pub(super) async fn answer(&self, asked: Asked, bytes: &[u8]) -> Option<Vec<u8>> {
        count(&self.counters.queries);
        let begun = Instant::now();
        let read = question::read(bytes);
        let (finding, record) = match (asked.sandbox, read) {
            (_, Err(Unusable::Silent)) => {
                count(&self.counters.malformed);
                return None;
            }
            (None, read) => {
                count(&self.counters.unknown_asker);
                let envelope = match read {
                    Ok(question) => question.envelope,
                    Err(Unusable::Bad { envelope, .. }) => envelope,
                    Err(Unusable::Silent) => return None,
                };
                let finding = refused(&envelope, ResponseCode::Refused, Reason::UnknownAsker);
                let record = unusable(asked, &envelope, &finding);
                (finding, record)
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
                let record = unusable(asked, &envelope, &finding);
                (finding, record)
            }
            (Some(sandbox), Ok(question)) => {
                let finding = self.resolve(sandbox, &question).await;
                let record = judged(asked, &question, &finding);
                (finding, record)
            }
        };
        self.gate.record(record);
        self.counters.latency.observe(begun.elapsed());
        finding.reply.encode(asked.protocol)
    }

    /// Records a connection that belongs to no sandbox, or no longer to the one
    /// that opened it.
    pub(super) fn record_stranger(&self, from: SocketAddr) {
        self.gate.record(trace::stranger(from));
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

    async fn resolve(&self, sandbox: SandboxId, question: &Question) -> Finding {
        if name::is_localhost(&question.name) {
            count(&self.counters.answered);
            let mut finding = Finding::allowed(Reply::localhost(question));
            finding
                .notes
                .push("loopback name, answered here".to_owned());
            return finding;
        }
        if let Err(finding) = self.admit(sandbox, question) {
            return *finding;
        }
        let (lookup, source) = match self.look_up(sandbox, question).await {
            Ok(found) => found,
            Err(failure) => {
                count(&self.counters.failed);
                let text = failure.to_string();
                let code = failure.extended_code();
                let reply = Reply::failure(&question.envelope, code, &text);
                let mut finding = Finding::denied(reply, Reason::UpstreamFailed);
                finding.notes.push(text);
                return finding;
            }
        };
        // Asked again: the policy may have changed while the upstream thought.
        // From here to the reply nothing waits.
        let admitted = match self.admit(sandbox, question) {
            Ok(admitted) => admitted,
            Err(finding) => return *finding,
        };
        let mut finding = match &lookup.learned {
            Learned::Nothing { no_such_name, .. } => {
                let remaining = lookup.remaining(Instant::now());
                let ttl = remaining.min(admitted.limits.negative_cache_ttl);
                let mut finding = Finding::allowed(Reply::nothing(question, *no_such_name, ttl));
                finding
                    .notes
                    .push("the upstream knows no such record".to_owned());
                finding
            }
            Learned::Records(chain) => {
                self.hand_out(sandbox, question, &admitted, (&lookup, chain))
            }
        };
        finding.notes.push(source);
        if finding.rule.is_none() {
            finding.rule = admitted.rule;
        }
        if finding.outcome == Outcome::Allowed {
            finding.outcome = admitted.outcome;
            finding.reason = finding.reason.or(admitted.reason);
            finding.notes.extend(admitted.help);
        }
        finding
    }

    /// Whether the name and the type may be resolved at all.
    fn admit(
        &self,
        sandbox: SandboxId,
        question: &Question,
    ) -> Result<Admitted<G::Permit>, Box<Finding>> {
        let limits = self.gate.limits(sandbox);
        let admitted = match self.gate.judge(sandbox, &question.name) {
            Judgement::Allow { permit, rule } => Admitted {
                permit,
                limits,
                outcome: Outcome::Allowed,
                reason: None,
                rule,
                help: None,
            },
            Judgement::Shadow { permit, refusal } => Admitted {
                permit,
                limits,
                outcome: Outcome::WouldDeny,
                reason: Some(refusal.reason),
                rule: refusal.rule,
                help: refusal.help,
            },
            Judgement::Refuse(refusal) => {
                count(&self.counters.refused);
                return Err(Box::new(refusal_of_name(question, refusal, limits)));
            }
        };
        let query_type = question.query_type;
        let refusal = if is_meta(query_type) {
            Some((ResponseCode::Refused, Duration::ZERO))
        } else if self.gate.query_type_allowed(sandbox, query_type.into()) {
            None
        } else {
            Some((ResponseCode::NoError, limits.negative_cache_ttl))
        };
        match refusal {
            None => Ok(admitted),
            Some((ResponseCode::NoError, _)) if limits.mode == Mode::Shadow => Ok(Admitted {
                outcome: Outcome::WouldDeny,
                reason: admitted.reason.or(Some(Reason::QueryType)),
                ..admitted
            }),
            Some((code, ttl)) => {
                count(&self.counters.refused);
                let why = (Reason::QueryType, None);
                let reply = Reply::refusal(&question.envelope, code, why, ttl);
                Err(Box::new(Finding {
                    rule: admitted.rule,
                    ..Finding::denied(reply, Reason::QueryType)
                }))
            }
        }
    }

    /// From the cache or from an upstream, with a note that says which.
    async fn look_up(
        &self,
        sandbox: SandboxId,
        question: &Question,
    ) -> Result<(Arc<Lookup>, String), Failure> {
        let key = Key {
            name: question.name.clone(),
            query_type: question.query_type,
        };
        let began = Instant::now();
        if let Some(lookup) = self.cache.find(&key, began) {
            let limits = self.gate.limits(sandbox);
            let bound = match &lookup.learned {
                Learned::Records(_) => limits.cache_ttl,
                Learned::Nothing { .. } => limits.negative_cache_ttl,
            };
            let age = began.saturating_duration_since(lookup.received);
            if age < bound {
                count(&self.counters.cache_hits);
                let note = format!("from the cache, {} s old", age.as_secs());
                return Ok((lookup, note));
            }
        }
        let ask = async {
            let lookup = self.upstreams.ask(&key).await?;
            self.cache.keep(key.clone(), lookup.clone(), Instant::now());
            Ok(lookup)
        };
        let lookup = self.in_flight.join(&key, ask).await?;
        let took = began.elapsed().as_millis();
        let note = format!("from upstream {} in {took} ms", lookup.upstream);
        Ok((lookup, note))
    }

    /// Screens, opens, and only then answers.
    fn hand_out(
        &self,
        sandbox: SandboxId,
        question: &Question,
        admitted: &Admitted<G::Permit>,
        (lookup, chain): (&Lookup, &Chain),
    ) -> Finding {
        let (gate, limits) = (&*self.gate, &admitted.limits);
        let envelope = &question.envelope;
        let negative_ttl = limits.negative_cache_ttl;
        let mut would_deny = None;
        if let Err(Blocked(target)) = blocked_alias(gate, sandbox, chain) {
            let help = format!("`{target}` is on the way");
            if limits.mode == Mode::Enforce {
                count(&self.counters.refused);
                let why = (Reason::ChainRefused, Some(help.as_str()));
                let reply = Reply::refusal(envelope, ResponseCode::NXDomain, why, negative_ttl);
                let mut finding = Finding::denied(reply, Reason::ChainRefused);
                finding.notes.push(help);
                return finding;
            }
            would_deny = Some((Reason::ChainRefused, help));
        }
        let screened = screen(gate, sandbox, &admitted.permit, limits, chain);
        let removed = screened.removed.clone();
        let first = removed.first().map(|(_, reason)| *reason);
        count_many(&self.counters.removed, removed.len());

        let mut finding = if screened.is_empty() {
            match first {
                Some(reason) => {
                    count(&self.counters.refused);
                    let why = (reason, None);
                    let reply = Reply::refusal(envelope, ResponseCode::NoError, why, negative_ttl);
                    Finding::denied(reply, reason)
                }
                // Service bindings that lead elsewhere: as if there were none.
                None => Finding::allowed(Reply::nothing(question, false, negative_ttl)),
            }
        } else {
            let ttl = lookup.remaining(Instant::now());
            let permit = &admitted.permit;
            match screened.open(gate, sandbox, permit, &question.name, (ttl, limits)) {
                Ok(opened) => {
                    count(&self.counters.answered);
                    let addresses: Vec<String> =
                        opened.addresses().iter().map(ToString::to_string).collect();
                    let mut finding = Finding::allowed(Reply::positive(question, opened));
                    if !addresses.is_empty() {
                        finding
                            .notes
                            .push(format!("granted {}", addresses.join(", ")));
                    }
                    finding
                }
                Err(error) => {
                    count(&self.counters.failed);
                    let reply = Reply::failure(envelope, 0, error.reason.sentence());
                    let mut finding = Finding::denied(reply, error.reason);
                    finding.notes.push(error.detail);
                    return finding;
                }
            }
        };
        for (address, reason) in &removed {
            finding
                .notes
                .push(format!("removed {address}: {}", reason.name()));
        }
        // What was taken out of an answer is evidence, although the rest passed.
        if finding.outcome == Outcome::Allowed {
            finding.reason = first;
            if let Some((reason, help)) = would_deny {
                finding.reason = Some(reason);
                finding.notes.push(help);
            }
            if limits.mode == Mode::Shadow && finding.reason.is_some() {
                finding.outcome = Outcome::WouldDeny;
            }
        }
        finding
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

fn refusal_of_name(question: &Question, refusal: Refusal, limits: Limits) -> Finding {
    let why = (refusal.reason, refusal.help.as_deref());
    let ttl = limits.negative_cache_ttl;
    let reply = Reply::refusal(&question.envelope, ResponseCode::NXDomain, why, ttl);
    Finding {
        rule: refusal.rule,
        notes: refusal.help.into_iter().collect(),
        ..Finding::denied(reply, refusal.reason)
    }
}

/// Types that ask for something else than records: ANY, transfers, and the
/// numbers that RFC 6895 section 3.1 keeps for such. No policy opens them.
fn is_meta(query_type: RecordType) -> bool {
    let number = u16::from(query_type);
    query_type == RecordType::OPT || number == 0 || (128..=255).contains(&number)
}
