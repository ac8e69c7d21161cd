//! What policy says about a question, and for how long that holds.

use super::budget::Below;
use super::counters::count;
use super::gate::{Gate, Judgement, Limits, Refusal};
use super::note::Note;
use super::question::Question;
use super::reply::Reply;
use super::resolver::Resolver;
use super::trace::Finding;
use crate::model::RuleOrigin;
use egress_common::{Mode, Outcome, Reason, SandboxId};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use jiff::Timestamp;
use std::time::Duration;

/// What policy says at one moment.
pub(super) struct Admitted<P> {
    /// Under which it was judged.
    pub(super) generation: u64,
    pub(super) permit: P,
    pub(super) limits: Limits,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Reason>,
    pub(super) rule: Option<RuleOrigin>,
    pub(super) help: Option<String>,
    pub(super) below: Option<Below>,
}

impl<P> Admitted<P> {
    /// Whether a rule names what was asked for, and not only shadow mode lets it pass.
    pub(super) fn is_named(&self) -> bool {
        self.reason.is_none()
    }
}

impl<G: Gate> Resolver<G> {
    /// Whether the name and the type may be resolved at all.
    pub(super) fn admit(
        &self,
        sandbox: SandboxId,
        question: &Question,
    ) -> Result<Admitted<G::Permit>, Box<Finding>> {
        let generation = self.gate.generation();
        let limits = self.gate.limits(sandbox);
        let admitted = match self.gate.judge(sandbox, &question.name) {
            Judgement::Allow {
                permit,
                rule,
                below,
            } => Admitted {
                generation,
                permit,
                below,
                limits,
                outcome: Outcome::Allowed,
                reason: None,
                rule,
                help: None,
            },
            Judgement::Shadow { permit, refusal } => Admitted {
                generation,
                permit,
                limits,
                outcome: Outcome::WouldDeny,
                reason: Some(refusal.reason),
                rule: refusal.rule,
                help: refusal.help,
                below: None,
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

    /// Whether nothing has changed since by what the name, the type and the bounds were judged.
    pub(super) fn still_holds(&self, admitted: &Admitted<G::Permit>) -> bool {
        self.gate.generation() == admitted.generation
            && admitted
                .limits
                .rules_until
                .is_none_or(|expiry| Timestamp::now() < expiry)
            && !self.gate.in_emergency()
    }
}

fn refusal_of_name(question: &Question, refusal: Refusal, limits: Limits) -> Finding {
    let why = (refusal.reason, refusal.help.as_deref());
    let ttl = limits.negative_cache_ttl;
    let reply = Reply::refusal(&question.envelope, ResponseCode::NXDomain, why, ttl);
    Finding {
        rule: refusal.rule,
        notes: refusal.help.map(Note::from).into_iter().collect(),
        ..Finding::denied(reply, refusal.reason)
    }
}

/// Types that ask for something else than records: ANY, transfers, and the
/// numbers that RFC 6895 section 3.1 keeps for such. No policy opens them.
fn is_meta(query_type: RecordType) -> bool {
    let number = u16::from(query_type);
    query_type == RecordType::OPT || number == 0 || (128..=255).contains(&number)
}
