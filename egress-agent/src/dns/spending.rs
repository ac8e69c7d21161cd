//! What a query costs the sandbox that asks it.

use super::admitted::Admitted;
use super::counters::count;
use super::gate::Gate;
use super::question::Question;
use super::reply::Reply;
use super::resolver::Resolver;
use super::trace::{Beyond, Finding};
use crate::model::{AtBound, RecordAs};
use egress_common::{Mode, Outcome, Reason, SandboxId};
use hickory_proto::op::ResponseCode;
use std::time::Duration;

impl<G: Gate> Resolver<G> {
    /// Takes a query from the sandbox's budgets: for asking, and for what the name
    /// says if it is about to leave the host. What it passes beyond and is answered
    /// all the same comes back, to be recorded.
    pub(super) fn spend(
        &self,
        sandbox: SandboxId,
        question: &Question,
        admitted: &Admitted<G::Permit>,
        leaves: bool,
    ) -> Result<Option<Beyond>, Box<Finding>> {
        let (limits, now) = (&admitted.limits.names, self.gate.now());
        let asked = (&question.name, question.query_type.into());
        let mut beyond = None;
        if !self.desks.may_ask(sandbox, now, limits.queries_per_second) {
            count(&self.counters.over_query_budget);
            let most = limits.queries_per_second.unwrap_or_default();
            beyond = Some((
                Reason::QueryBudget,
                format!("more than {most} queries in a second"),
            ));
        } else if leaves
            && let Some(below) = admitted.below
            && let Err(passed) = self.desks.pay(sandbox, now, asked, below, limits)
        {
            count(&self.counters.over_name_budget);
            beyond = Some((Reason::NameBudget, passed.to_string()));
        }
        let Some((reason, text)) = beyond else {
            return Ok(None);
        };
        let is_hidden = limits.record == RecordAs::Hash;
        let concealed = admitted
            .below
            .filter(|_| is_hidden)
            .map(|below| below.labels);
        let outcome = match (limits.at_bound, admitted.limits.mode) {
            (AtBound::Refuse, Mode::Enforce) => Outcome::Denied,
            (AtBound::Alert, Mode::Enforce) => Outcome::Allowed,
            (AtBound::Shadow, _) | (_, Mode::Shadow) => Outcome::WouldDeny,
        };
        if outcome == Outcome::Denied {
            count(&self.counters.refused);
            let why = (reason, Some(text.as_str()));
            // Not "no such name": it may well be asked again in a minute.
            let code = ResponseCode::Refused;
            let reply = Reply::refusal(&question.envelope, code, why, Duration::ZERO);
            return Err(Box::new(Finding {
                rule: admitted.rule.clone(),
                notes: vec![text.into()],
                concealed,
                ..Finding::denied(reply, reason)
            }));
        }
        Ok(Some(Beyond {
            reason,
            text,
            outcome,
            concealed,
        }))
    }
}
