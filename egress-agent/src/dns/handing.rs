//! From what is known about a name to what one sandbox is told.

use super::admitted::Admitted;
use super::cache::Lookup;
use super::chain::Chain;
use super::counters::{count, count_many};
use super::gate::Gate;
use super::note::Note;
use super::question::Question;
use super::reply::Reply;
use super::resolver::Resolver;
use super::screen::{Blocked, blocked_alias, screen};
use super::trace::Finding;
use egress_common::{Mode, Outcome, Reason, SandboxId};
use hickory_proto::op::ResponseCode;
use std::time::Instant;

impl<G: Gate> Resolver<G> {
    /// Screens, opens, and only then answers.
    pub(super) fn hand_out(
        &self,
        sandbox: SandboxId,
        question: &Question,
        admitted: &Admitted<G::Permit>,
        (lookup, chain): (&Lookup, &Chain),
    ) -> (Finding, Option<G::Receipt>) {
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
                finding.notes.push(help.into());
                return (finding, None);
            }
            would_deny = Some((Reason::ChainRefused, help));
        }
        let screened = screen(gate, sandbox, &admitted.permit, limits, chain);
        let removed = screened.removed.clone();
        let first = removed.first().map(|(_, reason)| *reason);
        count_many(&self.counters.removed, removed.len());

        let mut receipt = None;
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
                    let addresses = opened.addresses().to_vec();
                    let (reply, proof) = Reply::positive(question, opened);
                    receipt = Some(proof);
                    let mut finding = Finding::allowed(reply);
                    if !addresses.is_empty() {
                        finding.notes.push(Note::Granted(addresses));
                    }
                    finding
                }
                Err(error) => {
                    count(&self.counters.failed);
                    let reply = Reply::failure(envelope, 0, error.reason.sentence());
                    let mut finding = Finding::denied(reply, error.reason);
                    finding.notes.push(error.detail.into());
                    return (finding, None);
                }
            }
        };
        for (address, reason) in &removed {
            finding.notes.push(Note::Removed(*address, *reason));
        }
        // What was taken out of an answer is evidence, although the rest passed.
        if finding.outcome == Outcome::Allowed {
            finding.reason = first;
            if let Some((reason, help)) = would_deny {
                finding.reason = Some(reason);
                finding.notes.push(help.into());
            }
            if limits.mode == Mode::Shadow && finding.reason.is_some() {
                finding.outcome = Outcome::WouldDeny;
            }
        }
        (finding, receipt)
    }
}
