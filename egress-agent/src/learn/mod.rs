//! From what was recorded to policies: a draft that allows what was done, and
//! what another policy would change.
//!
//! Both read records one at a time and keep only what differs. Nothing here
//! decides anything: a draft is for people to review, and what a candidate would
//! do is asked of the policy's own [`explain`](crate::policy::explain()).

#![forbid(unsafe_code)]

mod draft;
mod replay;

pub use draft::Draft;
pub use replay::{Change, Replay};

use crate::audit::StoredRecord;
use egress_common::{Protocol, Reason};

/// The reason of a record, if this version knows it.
fn reason(record: &StoredRecord) -> Option<Reason> {
    let name = record.reason.as_deref()?;
    Reason::ALL
        .iter()
        .copied()
        .find(|known| known.name() == name)
}

/// Whether only a missing rule stood in the way. Everything else is refused
/// whatever a policy says, or is refused as an attack.
fn is_matter_of_policy(reason: Reason) -> bool {
    [
        Reason::NoRule,
        Reason::Lapsed,
        Reason::Revoked,
        Reason::NameNotAllowed,
        Reason::RuleExpired,
    ]
    .contains(&reason)
}

#[cfg(test)]
mod tests;

/// The transport and the port of a record, as a rule would open them; port 0
/// where the transport has no ports. `None` if no rule could.
fn service(record: &StoredRecord) -> Option<(Protocol, u16)> {
    let protocol = match record.protocol.as_deref()? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => return Some((Protocol::Icmp, 0)),
        _ => return None,
    };
    Some((protocol, record.port.filter(|port| *port != 0)?))
}
