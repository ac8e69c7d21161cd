//! Gives records their place in the chain.

use crate::audit::body::{self, Hidden, Place};
use crate::audit::chain::{self, Hash, Header};
use crate::audit::class::Class;
use crate::audit::hide::Hider;
use crate::audit::subject::{Collected, Subject};
use crate::audit::tree::Frontier;
use crate::model::Record;
use std::net::{IpAddr, Ipv6Addr};
use uuid::Uuid;

/// Where a chain ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// The node's name.
    pub node: String,
    /// The chain's id, a UUID.
    pub chain_id: String,
    /// The last place that was given; 0 in an empty chain.
    pub sequence: i64,
    /// The chain's hash up to there.
    pub chain: Hash,
    /// The Merkle tree up to there.
    pub frontier: Frontier,
    /// Decisions that the records up to there stand for.
    pub settled: u64,
}

impl Head {
    /// The beginning of a new chain.
    pub fn begin(node: String) -> Self {
        let chain_id = Uuid::now_v7().to_string();
        Self {
            chain: chain::genesis(&node, &chain_id),
            node,
            chain_id,
            sequence: 0,
            frontier: Frontier::default(),
            settled: 0,
        }
    }
}

/// A record with its place, ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub header: Header,
    pub chain: Hash,
    pub body: String,
    pub kind: &'static str,
    /// The place of its subject among those of the batch.
    pub subject: Option<usize>,
    pub outcome: Option<&'static str>,
    pub reason: Option<&'static str>,
    pub address_key: Option<Vec<u8>>,
    pub name_key: Option<String>,
}

/// Records of one batch, and whom they are about.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// In their order.
    pub records: Vec<Sealed>,
    /// Each once.
    pub subjects: Vec<Subject>,
}

/// Seals records in their order: what they become, and where the chain ends then.
pub(super) fn seal(
    head: &Head,
    records: &[Record],
    hider: Option<&Hider>,
) -> Result<(Links, Head), serde_json::Error> {
    let mut head = head.clone();
    let mut sealed = Vec::with_capacity(records.len());
    let mut subjects = Collected::default();
    for record in records {
        let subject = subjects.place(record);
        sealed.push(seal_one(&mut head, record, subject, hider)?);
    }
    let links = Links {
        records: sealed,
        subjects: subjects.into_subjects(),
    };
    Ok((links, head))
}

fn seal_one(
    head: &mut Head,
    record: &Record,
    subject: Option<usize>,
    hider: Option<&Hider>,
) -> Result<Sealed, serde_json::Error> {
    let header = Header {
        sequence: head.sequence + 1,
        time: body::microseconds(record.time),
        class: Class::of(record) as u8,
    };
    let hidden = hider.map(|hider| Hidden {
        address: record.address.map(|address| hider.address(address)),
        name: record.name.as_deref().map(|name| hider.name(name)),
    });
    let id = id(record.time);
    let place = Place {
        node: &head.node,
        id: &id,
        sequence: header.sequence,
    };
    let body = body::write(record, place, hidden.as_ref())?;
    let leaf = chain::leaf(&header, &Hash::of(body.as_bytes()));
    head.sequence = header.sequence;
    head.chain = chain::link(&head.chain, &leaf);
    head.frontier.push(leaf);
    let (address_key, name_key) = match hidden {
        Some(hidden) => (hidden.address.map(String::into_bytes), hidden.name),
        None => (
            record.address.map(address_key),
            record.name.as_deref().map(name_key),
        ),
    };
    Ok(Sealed {
        header,
        chain: head.chain,
        body,
        kind: record.kind.name(),
        subject,
        outcome: record.outcome.map(|outcome| outcome.name()),
        reason: record.reason.map(|reason| reason.name()),
        address_key,
        name_key,
    })
}

/// A UUIDv7 of the time at which it happened.
fn id(time: jiff::Timestamp) -> Uuid {
    let milliseconds = u64::try_from(time.as_millisecond()).unwrap_or(0);
    let mut random = [0; 10];
    random.copy_from_slice(&Uuid::new_v4().as_bytes()[..10]);
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid()
}

/// An address as bytes whose order is the order of addresses.
pub(super) fn address_key(address: IpAddr) -> Vec<u8> {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.octets().to_vec()
}

/// A name from its last label to its first: `api.example.com` is `com.example.api`.
pub(super) fn name_key(name: &str) -> String {
    let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let labels: Vec<&str> = bare.rsplit('.').collect();
    labels.join(".")
}
