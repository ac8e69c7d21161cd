//! Records as they leave the store.

use crate::model::ResourceUse;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A record read from the store: the shape of `-o json` and of the API.
///
/// Field names and the words in them are stable; `docs/audit.md` describes them.
/// Every field is always there, `null` where unknown or not applicable; only
/// `labels` is empty then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredRecord {
    /// A UUIDv7, unique among all nodes.
    pub id: String,
    /// The node that decided.
    pub node: String,
    /// The place in the node's chain, from 1 without gaps.
    pub sequence: i64,
    /// When it happened, UTC, to the microsecond.
    pub time: jiff::Timestamp,
    /// The stable name of what it is about, as in [`crate::model::RecordKind`].
    pub kind: String,
    /// The sandbox's id.
    pub sandbox_id: Option<u32>,
    /// The sandbox's name.
    pub sandbox: Option<String>,
    /// The policy's name.
    pub policy: Option<String>,
    /// The points of the fence that are open for the sandbox, as a policy names them.
    #[serde(default)]
    pub relaxations: Vec<String>,
    /// The task, as whoever started the sandbox said; so are the next four.
    pub task: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The person or account.
    pub on_behalf_of: Option<String>,
    /// Labels by key.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Process (thread group) id.
    pub process: Option<u32>,
    /// The process's command name.
    pub command: Option<String>,
    /// User id.
    pub user: Option<u32>,
    /// Which hook judged.
    pub hook: Option<String>,
    /// Where to, or for inbound packets where from.
    pub address: Option<IpAddr>,
    /// The keyed hash of the address, where the node hides addresses.
    pub address_hash: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// `tcp`, `udp`, or an IANA number.
    pub protocol: Option<String>,
    /// The domain name.
    pub name: Option<String>,
    /// The keyed hash of the name, where the node hides names.
    pub name_hash: Option<String>,
    /// The DNS query type.
    pub query_type: Option<String>,
    /// The upstream resolver that had answered.
    pub upstream: Option<String>,
    /// What the resolver's cache had: `hit`, `miss`, `stale`.
    pub cache: Option<String>,
    /// Microseconds from the query to its answer.
    pub latency_us: Option<u64>,
    /// The rule that decided.
    pub rule: Option<StoredRule>,
    /// `allow`, `deny`, `would_deny`.
    pub verdict: Option<String>,
    /// The stable name of the reason.
    pub reason: Option<String>,
    /// Who acted on the agent.
    pub actor: Option<String>,
    /// SHA-256 of what the record is about, in hexadecimal.
    pub digest: Option<String>,
    /// What changed, as a unified diff.
    pub diff: Option<String>,
    /// What a sandbox that ended had used.
    pub usage: Option<ResourceUse>,
    /// How many alike the record stands for, at least 1.
    pub count: u64,
    /// Anything else worth telling a person.
    pub detail: Option<String>,
}

/// Where the rule that decided stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredRule {
    /// The policy file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The rule in a few words; absent where the node hides names.
    pub text: Option<String>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folded denial with everything that one can have.
    pub fn sample() -> StoredRecord {
        StoredRecord {
            id: "01937b1c-4a00-7000-8000-000000000000".to_owned(),
            node: "host-1".to_owned(),
            sequence: 12,
            time: "2026-11-20T08:30:00Z".parse().expect("a time"),
            kind: "flow".to_owned(),
            sandbox_id: Some(3),
            sandbox: Some("build".to_owned()),
            policy: Some("ci".to_owned()),
            relaxations: vec!["ptrace".to_owned()],
            task: Some("T-17".to_owned()),
            session: None,
            project: None,
            on_behalf_of: None,
            labels: BTreeMap::new(),
            process: Some(4242),
            command: Some("curl".to_owned()),
            user: Some(1000),
            hook: Some("connect".to_owned()),
            address: "203.0.113.7".parse().ok(),
            address_hash: None,
            port: Some(443),
            protocol: Some("tcp".to_owned()),
            name: Some("api.example.com".to_owned()),
            name_hash: None,
            query_type: None,
            upstream: None,
            cache: None,
            latency_us: None,
            rule: Some(StoredRule {
                file: "/etc/egress/policies.d/ci.yaml".to_owned(),
                line: 7,
                text: Some("domain api.example.com".to_owned()),
            }),
            verdict: Some("deny".to_owned()),
            reason: Some("lapsed_grant".to_owned()),
            actor: None,
            digest: None,
            diff: None,
            usage: None,
            count: 41,
            detail: None,
        }
    }

    #[test]
    fn every_field_of_the_shape_is_always_there() {
        let empty = StoredRecord {
            sandbox_id: None,
            task: None,
            rule: None,
            detail: None,
            ..sample()
        };
        let keys = |record: &StoredRecord| -> Vec<String> {
            let value = serde_json::to_value(record).expect("JSON");
            value
                .as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect()
        };
        assert_eq!(keys(&empty), keys(&sample()));
        let documented = include_str!("../../../docs/audit.md");
        for key in keys(&sample()) {
            assert!(
                documented.contains(&format!("| `{key}` |")),
                "docs/audit.md lacks `{key}`"
            );
        }
    }
}
