//! What an upstream's answer really says about the question.

use super::name::canonical;
use crate::model::DomainName;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use std::time::Duration;

/// Aliases in one answer. Public resolvers give up at 8 to 16.
const MAX_ALIASES: usize = 12;
/// Records that are kept of one answer, however many it holds.
const MAX_RECORDS: usize = 128;
/// RFC 8767 section 4: longer TTLs count as this.
const MAX_TTL: u32 = 7 * 24 * 3600;

/// What was learned about one name and type, for every sandbox alike.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Learned {
    /// The name has records of the type.
    Records(Chain),
    /// It has none.
    Nothing {
        /// Whether the name does not exist at all.
        no_such_name: bool,
        /// How long that may be believed (RFC 2308); zero if the upstream does not say.
        ttl: Duration,
    },
}

impl Learned {
    /// That the name has these addresses itself.
    pub(super) fn addresses(records: Vec<Record>) -> Self {
        let ttls = records.iter().map(|record| seconds(record.ttl));
        Self::Records(Chain {
            aliases: Vec::new(),
            ttl: Duration::from_secs(ttls.min().unwrap_or(0).into()),
            records,
            unrelated: 0,
        })
    }
}

/// The records that the question leads to.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Chain {
    /// CNAME records, from the question on, and where each leads.
    pub(super) aliases: Vec<(Record, DomainName)>,
    /// Records of the asked type at the end of the chain; never empty.
    pub(super) records: Vec<Record>,
    /// The least TTL of all of them.
    pub(super) ttl: Duration,
    /// Records of the answer section that the chain does not reach.
    pub(super) unrelated: usize,
}

/// Why an answer cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ChainError {
    #[error("the aliases form a loop")]
    Loop,
    #[error("more than {MAX_ALIASES} aliases follow each other")]
    TooLong,
    #[error("an alias leads to something that is not a domain name")]
    Name,
}

/// Walks from the question through the answer section. Only what is reached
/// counts; DNAME needs no reading of its own, since it always comes with the
/// CNAME that it stands for (RFC 6672 section 3.1).
pub(super) fn follow(
    question: &DomainName,
    query_type: RecordType,
    message: &Message,
) -> Result<Learned, ChainError> {
    // Names are brought to canonical form once, not once per alias.
    let owners: Vec<(Option<DomainName>, &Record)> = message
        .answers
        .iter()
        .filter(|record| record.dns_class == DNSClass::IN)
        .map(|record| (canonical(&record.name), record))
        .collect();
    let owned = |owner: &DomainName, kind: RecordType| {
        let owner = owner.clone();
        owners.iter().filter_map(move |(own, record)| {
            let is_meant = own.as_ref() == Some(&owner) && record.record_type() == kind;
            is_meant.then_some(*record)
        })
    };
    let mut aliases: Vec<(Record, DomainName)> = Vec::new();
    let mut at = question.clone();
    loop {
        let records: Vec<Record> = owned(&at, query_type).take(MAX_RECORDS).cloned().collect();
        if !records.is_empty() {
            let all = || aliases.iter().map(|(record, _)| record).chain(&records);
            let ttl = all().map(|record| seconds(record.ttl)).min().unwrap_or(0);
            let unrelated = message.answers.len().saturating_sub(all().count());
            return Ok(Learned::Records(Chain {
                aliases,
                records,
                ttl: Duration::from_secs(ttl.into()),
                unrelated,
            }));
        }
        let Some(record) = owned(&at, RecordType::CNAME).next() else {
            return Ok(nothing(message));
        };
        let RData::CNAME(target) = &record.data else {
            return Ok(nothing(message));
        };
        let target = canonical(&target.0).ok_or(ChainError::Name)?;
        if target == *question || aliases.iter().any(|(_, seen)| *seen == target) {
            return Err(ChainError::Loop);
        }
        if aliases.len() == MAX_ALIASES {
            return Err(ChainError::TooLong);
        }
        aliases.push((record.clone(), target.clone()));
        at = target;
    }
}

fn nothing(message: &Message) -> Learned {
    let soa = message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(seconds(record.ttl).min(seconds(soa.minimum))),
            _ => None,
        });
    Learned::Nothing {
        no_such_name: message.metadata.response_code == ResponseCode::NXDomain,
        ttl: Duration::from_secs(soa.unwrap_or(0).into()),
    }
}

/// RFC 2181 section 8: a TTL with the highest bit set counts as zero.
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 {
        0
    } else {
        ttl.min(MAX_TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::name::wire;
    use hickory_proto::op::{Message, MessageType, OpCode};
    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use std::net::Ipv4Addr;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect("a name")
    }

    fn at(owner: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(wire(&name(owner)).expect("wire"), ttl, data)
    }

    fn address(owner: &str, last: u8) -> Record {
        at(owner, 300, RData::A(A(Ipv4Addr::new(203, 0, 113, last))))
    }

    fn alias(owner: &str, target: &str) -> Record {
        at(
            owner,
            60,
            RData::CNAME(CNAME(wire(&name(target)).expect("wire"))),
        )
    }

    fn answer(records: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.answers = records;
        message
    }

    fn learned(records: Vec<Record>) -> Result<Learned, ChainError> {
        follow(&name("a.example"), RecordType::A, &answer(records))
    }

    #[test]
    fn only_what_the_question_leads_to_is_kept() {
        let found = learned(vec![
            address("evil.example", 66),
            address("c.example", 2),
            alias("b.example", "c.example"),
            alias("A.example", "b.example"),
            alias("x.example", "evil.example"),
            address("c.example", 1),
        ]);
        let Ok(Learned::Records(chain)) = found else {
            panic!("records: {found:?}");
        };
        assert_eq!(
            chain.records,
            [address("c.example", 2), address("c.example", 1)]
        );
        assert_eq!(chain.aliases.len(), 2);
        assert_eq!(chain.unrelated, 2);
        assert_eq!(chain.ttl, Duration::from_secs(60), "the least of the chain");
    }

    #[test]
    fn loops_and_endless_chains_end() {
        let looped = learned(vec![
            alias("a.example", "b.example"),
            alias("b.example", "a.example"),
        ]);
        assert_eq!(looped, Err(ChainError::Loop));
        assert_eq!(
            learned(vec![alias("a.example", "a.example")]),
            Err(ChainError::Loop)
        );
        let mut long = vec![alias("a.example", "n0.example")];
        long.extend(
            (0..40).map(|n| alias(&format!("n{n}.example"), &format!("n{}.example", n + 1))),
        );
        assert_eq!(learned(long), Err(ChainError::TooLong));
    }

    #[test]
    fn an_absent_record_is_believed_as_long_as_the_zone_says() {
        let mut message = answer(vec![
            alias("a.example", "b.example"),
            address("c.example", 1),
        ]);
        let root = hickory_proto::rr::Name::root;
        let soa = SOA::new(root(), root(), 1, 2, 3, 4, 90);
        message.authorities = vec![at("example", 600, RData::SOA(soa))];
        let found = follow(&name("a.example"), RecordType::A, &message);
        let expected = Learned::Nothing {
            no_such_name: false,
            ttl: Duration::from_secs(90),
        };
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn ttls_are_bounded_and_negative_ones_are_zero() {
        assert_eq!(seconds(u32::MAX), 0);
        assert_eq!(seconds(i32::MAX as u32), MAX_TTL);
        assert_eq!(seconds(5), 5);
    }
}
