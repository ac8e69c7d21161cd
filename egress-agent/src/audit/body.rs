//! The canonical record: what is hashed, kept, shipped and exported.

use crate::model::{Record, Relaxation, ResourceUse};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// A record as a JSON object in the form of RFC 8785: members in the order of
/// their names, no white space, nothing that is absent. Integers are written in
/// decimal digits, also above 2^53.
///
/// Serializing writes the fields in the order of this declaration, so it must be
/// that of their names; a test compares.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'a str>,
    #[serde(serialize_with = "uuid_as_text")]
    id: &'a uuid::Uuid,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hash: Option<&'a str>,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Relaxation]>::is_empty")]
    relaxations: &'a [Relaxation],
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<u32>,
    sequence: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    time: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a ResourceUse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a str>,
}

#[derive(Serialize)]
struct Rule<'a> {
    #[serde(serialize_with = "as_text")]
    file: &'a Path,
    line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

fn uuid_as_text<S: serde::Serializer>(id: &uuid::Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    let mut buffer = uuid::Uuid::encode_buffer();
    serializer.serialize_str(id.hyphenated().encode_lower(&mut buffer))
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// What the store adds to a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The node.
    pub node: &'a str,
    /// The record's id.
    pub id: &'a uuid::Uuid,
    /// The place in the chain.
    pub sequence: i64,
}

/// Keyed hashes that stand for names and addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Hidden {
    /// For the address.
    pub address: Option<String>,
    /// For the name.
    pub name: Option<String>,
}

/// The time of a record as it is kept, in microseconds since 1970.
pub(super) fn microseconds(time: jiff::Timestamp) -> i64 {
    time.as_microsecond()
}

/// Writes the canonical record. With `hidden`, names and addresses are replaced,
/// and what could repeat them in other words is left out.
pub(super) fn write(
    record: &Record,
    place: Place<'_>,
    hidden: Option<&Hidden>,
) -> Result<String, serde_json::Error> {
    let open = hidden.is_none();
    // A decision's detail quotes its destination; that of anything else does not.
    let decision = record.name.is_some() || record.address.is_some();
    let attribution = record.attribution.as_deref();
    let body = Body {
        actor: record.actor.as_deref(),
        address: record.address.filter(|_| open),
        address_hash: hidden.and_then(|hidden| hidden.address.as_deref()),
        cache: record.cache,
        command: record.command.as_deref(),
        count: record.count.clamp(1, i64::MAX as u64),
        detail: record.detail.as_deref().filter(|_| open || !decision),
        diff: record.diff.as_deref(),
        digest: record.digest.as_deref(),
        hook: record.hook,
        id: place.id,
        kind: record.kind.name(),
        labels: attribution
            .map(|said| &said.labels)
            .filter(|labels| !labels.is_empty()),
        latency_us: record.latency_us,
        name: record.name.as_deref().filter(|_| open),
        name_hash: hidden.and_then(|hidden| hidden.name.as_deref()),
        node: place.node,
        on_behalf_of: attribution.and_then(|said| said.on_behalf_of.as_deref()),
        policy: record.policy.as_deref(),
        port: record.port,
        process: record.process,
        project: attribution.and_then(|said| said.project.as_deref()),
        protocol: record.protocol.as_deref(),
        query_type: record.query_type.as_deref(),
        reason: record.reason.map(|reason| reason.name()),
        relaxations: &record.relaxations,
        rule: record.rule.as_ref().map(|rule| Rule {
            file: &rule.file,
            line: rule.line,
            text: Some(&*rule.text).filter(|_| open),
        }),
        sandbox: record.sandbox.as_deref(),
        sandbox_id: record.sandbox_id.map(|id| id.0),
        sequence: place.sequence,
        session: attribution.and_then(|said| said.session.as_deref()),
        task: attribution.and_then(|said| said.task.as_deref()),
        time: whole_microseconds(record.time),
        upstream: record.upstream.as_deref(),
        usage: record.usage.as_deref().filter(|usage| !usage.is_empty()),
        user: record.user,
        verdict: record.outcome.map(|outcome| outcome.name()),
    };
    serde_json::to_string(&body)
}

/// What is kept has no finer time, so that it reads back as it was written.
fn whole_microseconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(microseconds(time)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::StoredRecord;
    use crate::audit::tests::full;
    use serde_json::Value;

    const ID: uuid::Uuid = uuid::Uuid::from_u128(0x0193_7b1c_4a00_7000_8000_0000_0000_0001);
    const PLACE: Place<'_> = Place {
        node: "host-1",
        id: &ID,
        sequence: 7,
    };

    #[test]
    fn the_body_is_in_canonical_form() {
        let body = write(&full(), PLACE, None).expect("JSON");
        let value: Value = serde_json::from_str(&body).expect("JSON");
        // serde_json keeps maps ordered by name and escapes as RFC 8785 does.
        assert_eq!(serde_json::to_string(&value).expect("JSON"), body);
    }

    #[test]
    fn every_field_of_a_record_that_has_all_is_read_back() {
        let body = write(&full(), PLACE, None).expect("JSON");
        let written: Value = serde_json::from_str(&body).expect("JSON");
        let stored: StoredRecord = serde_json::from_str(&body).expect("a record");
        let read = serde_json::to_value(&stored).expect("JSON");
        for (name, value) in read.as_object().expect("an object") {
            let hides = name.ends_with("_hash");
            assert_eq!(value.is_null(), hides, "`full` or the body lacks {name}");
            assert_eq!(written.get(name).unwrap_or(&Value::Null), value, "{name}");
        }
    }

    #[test]
    fn hidden_names_and_addresses_stand_nowhere_in_the_record() {
        let record = Record {
            detail: Some("add api.example.com 2001:db8::7".to_owned()),
            ..full()
        };
        let hidden = Hidden {
            address: Some("a1".to_owned()),
            name: Some("b2".to_owned()),
        };
        let body = write(&record, PLACE, Some(&hidden)).expect("JSON");
        assert!(!body.contains("api.example"), "{body}");
        assert!(!body.contains("2001:db8"), "{body}");
        assert!(body.contains("\"address_hash\":\"a1\"") && body.contains("\"name_hash\":\"b2\""));
    }
}
