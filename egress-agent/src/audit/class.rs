//! How long records are kept.

use crate::model::{Record, RecordKind};
use egress_common::{Outcome, Reason};

/// What retention tells apart. The numbers are part of what is hashed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Class {
    /// Something was allowed.
    Allowed = 1,
    /// Something was, or in shadow mode would have been, refused.
    Denied = 2,
    /// A rate or a limit was exceeded.
    RateLimit = 3,
    /// A security alert or an emergency.
    Alert = 4,
    /// Everything about the product itself: sandboxes, policies, approvals, the
    /// agent, losses.
    Operation = 5,
    /// What explains the evidence itself; kept for ever.
    Evidence = 6,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] = [
        Self::Allowed,
        Self::Denied,
        Self::RateLimit,
        Self::Alert,
        Self::Operation,
        Self::Evidence,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::RateLimit => "rate_limit",
            Self::Alert => "alert",
            Self::Operation => "operation",
            Self::Evidence => "evidence",
        }
    }

    /// The class of a record.
    pub fn of(record: &Record) -> Self {
        match record.kind {
            RecordKind::Flow | RecordKind::Dns => match (record.outcome, record.reason) {
                (_, Some(Reason::TooManyQueries)) => Self::RateLimit,
                (Some(Outcome::Denied | Outcome::WouldDeny), _) => Self::Denied,
                (Some(Outcome::Allowed) | None, _) => Self::Allowed,
            },
            RecordKind::Limit => Self::RateLimit,
            RecordKind::Alert | RecordKind::Emergency => Self::Alert,
            RecordKind::Sandbox
            | RecordKind::Policy
            | RecordKind::Agent
            | RecordKind::Loss
            | RecordKind::Approval => Self::Operation,
            RecordKind::Evidence => Self::Evidence,
        }
    }
}
