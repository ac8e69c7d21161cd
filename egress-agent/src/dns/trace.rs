//! From an answered query to its audit record.

use super::desk::Tally;
use super::gate::Refusal;
use super::note::{self, Note};
use super::query;
use super::question::{Envelope, Question};
use super::reply::Reply;
use super::worker::STRANGERS;
use crate::model::{DomainName, Record, RecordKind, RuleOrigin};
use egress_common::{Hook, Outcome, Protocol, Reason, SandboxId};
use hickory_proto::rr::RecordType;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;

/// A name from the wire that is no name can be 1,000 characters of escapes.
const MAX_NAME: usize = 300;

/// How a query ended, for the client and for the record.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) reply: Reply,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Reason>,
    pub(super) rule: Option<RuleOrigin>,
    /// Facts in the order in which they became known.
    pub(super) notes: Vec<Note>,
    /// Where the answer came from.
    pub(super) source: Option<Source>,
    /// How many labels of the name are recorded as a hash.
    pub(super) concealed: Option<usize>,
}

/// Where an answer came from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) upstream: Arc<str>,
    /// `hit`, `miss` or `stale`.
    pub(super) cache: &'static str,
}

/// A bound that a query passed, and was answered all the same.
#[derive(Debug)]
pub(super) struct Beyond {
    pub(super) reason: Reason,
    pub(super) text: String,
    pub(super) outcome: Outcome,
    pub(super) concealed: Option<usize>,
}

impl Finding {
    /// Adds that a bound was passed.
    pub(super) fn note_beyond(&mut self, beyond: Beyond) {
        self.notes.push(beyond.text.into());
        self.concealed = beyond.concealed;
        if self.outcome == Outcome::Allowed {
            self.outcome = beyond.outcome;
            self.reason = Some(beyond.reason);
        }
    }

    /// Refused for a reason.
    pub(super) fn denied(reply: Reply, reason: Reason) -> Self {
        Self {
            reply,
            outcome: Outcome::Denied,
            reason: Some(reason),
            rule: None,
            notes: Vec::new(),
            source: None,
            concealed: None,
        }
    }

    /// Answered.
    pub(super) fn allowed(reply: Reply) -> Self {
        Self {
            reply,
            outcome: Outcome::Allowed,
            reason: None,
            rule: None,
            notes: Vec::new(),
            source: None,
            concealed: None,
        }
    }
}

/// Who asked, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) from: SocketAddr,
    pub(super) protocol: Protocol,
    /// `None` if the kernel knows of no sandbox.
    pub(super) sandbox: Option<SandboxId>,
    /// The process, where the kernel knows it.
    pub(super) process: Option<u32>,
}

/// The record of a query that could be judged.
pub(super) fn judged(
    asked: Asked,
    when: Timestamp,
    question: &Question,
    finding: &Finding,
) -> Record {
    let name = match finding.concealed {
        Some(labels) => conceal(&question.name, labels),
        None => question.name.to_string(),
    };
    Record {
        name: Some(name),
        query_type: Some(question.query_type.to_string()),
        rule: finding.rule.clone(),
        ..record(asked, when, finding)
    }
}

/// The name with a hash (half of SHA-256, in hexadecimal) in place of its first labels.
fn conceal(name: &DomainName, labels: usize) -> String {
    let chosen: Vec<&str> = name.labels().take(labels).collect();
    let digest = Sha256::digest(chosen.join("."));
    let hash: String = digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let rest: Vec<&str> = name.labels().skip(labels).collect();
    format!("sha256:{hash}.{}", rest.join("."))
}

/// The record of a message that could not.
pub(super) fn unusable(
    asked: Asked,
    when: Timestamp,
    envelope: &Envelope,
    finding: &Finding,
) -> Record {
    let query = envelope.query.as_ref();
    Record {
        name: query.map(|query| query.name.to_ascii().chars().take(MAX_NAME).collect()),
        query_type: query.map(|query| query.query_type.to_string()),
        ..record(asked, when, finding)
    }
}

/// The record of a query for a name that policy refuses.
pub(super) fn refused(
    (sandbox, process): (SandboxId, Option<u32>),
    name: DomainName,
    query_type: Option<RecordType>,
    refusal: Refusal,
) -> Record {
    Record {
        process,
        name: Some(name.to_string()),
        rule: refusal.rule,
        reason: Some(refusal.reason),
        detail: refusal.help,
        ..of_sandbox(sandbox, query_type, Outcome::Denied)
    }
}

/// The record of what was done without one for each query.
pub(super) fn tally(sandbox: SandboxId, tally: Tally) -> Record {
    match tally {
        Tally::Served {
            key,
            rule,
            upstream,
            count,
        } => Record {
            name: query::name_of(&key).map(|name| name.to_string()),
            rule,
            count,
            upstream: Some(upstream.to_string()),
            cache: Some("hit"),
            ..of_sandbox(sandbox, query::type_of(&key), Outcome::Allowed)
        },
        Tally::Folded {
            outcome,
            reason,
            count,
        } => Record {
            reason,
            count,
            detail: Some("more queries than are recorded one by one; they are counted".into()),
            ..of_sandbox(sandbox, None, outcome)
        },
    }
}

fn of_sandbox(sandbox: SandboxId, query_type: Option<RecordType>, outcome: Outcome) -> Record {
    let mut record = Record::new(Timestamp::now(), RecordKind::Dns);
    record.sandbox_id = Some(sandbox).filter(|sandbox| *sandbox != STRANGERS);
    record.hook = Some(Hook::Resolver.name());
    record.protocol = Some(Protocol::Udp.name().to_owned());
    record.query_type = query_type.map(|query_type| query_type.to_string());
    record.outcome = Some(outcome);
    record
}

/// The record of a TCP connection that was closed unheard.
pub(super) fn stranger(from: SocketAddr) -> Record {
    let mut record = Record::new(Timestamp::now(), RecordKind::Dns);
    record.hook = Some(Hook::Resolver.name());
    record.protocol = Some(Protocol::Tcp.name().to_owned());
    record.address = Some(from.ip());
    record.port = Some(from.port());
    record.outcome = Some(Outcome::Denied);
    record.reason = Some(Reason::UnknownAsker);
    record
}

fn record(asked: Asked, when: Timestamp, finding: &Finding) -> Record {
    let mut record = Record::new(when, RecordKind::Dns);
    record.sandbox_id = asked.sandbox;
    record.process = asked.process;
    record.hook = Some(Hook::Resolver.name());
    record.protocol = Some(asked.protocol.name().to_owned());
    record.outcome = Some(finding.outcome);
    record.reason = finding.reason;
    if let Some(source) = &finding.source {
        record.upstream = Some(source.upstream.to_string());
        record.cache = Some(source.cache);
    }
    if asked.sandbox.is_none() {
        // All that is known about who asked.
        record.address = Some(asked.from.ip());
        record.port = Some(asked.from.port());
    }
    record.detail = note::in_words(&finding.notes);
    record
}
