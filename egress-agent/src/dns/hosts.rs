//! Names with addresses of their own, which no upstream is asked for.
//!
//! Policy decides about them as about all others: whether a sandbox may ask, and
//! whether it may be led there.

use super::cache::{Key, Lookup};
use super::chain::{Chain, Learned};
use super::name::wire;
use crate::model::DomainName;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// They change with a restart only; clients need not know.
const TTL: Duration = Duration::from_secs(60);

/// Static entries by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hosts(BTreeMap<DomainName, Vec<IpAddr>>);

impl Hosts {
    /// Adds an address to a name.
    pub fn add(&mut self, name: DomainName, address: IpAddr) {
        let addresses = self.0.entry(name).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// Adds what stands in the form of `/etc/hosts`. Loopback entries are left
    /// out, since such names have one meaning everywhere.
    pub fn add_file(&mut self, text: &str) -> Result<(), String> {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(address) = words.next() else {
                continue;
            };
            // An address of an interface (`fe80::1%eth0`) has no meaning elsewhere.
            if address.contains('%') {
                continue;
            }
            let at = |problem: String| format!("line {}: {problem}", number + 1);
            let address: IpAddr = address
                .parse()
                .map_err(|_| at(format!("`{address}` is no address")))?;
            if address.is_loopback() || address.is_multicast() {
                continue;
            }
            for name in words {
                let name = DomainName::parse(name).map_err(|error| at(error.to_string()))?;
                self.add(name, address);
            }
        }
        Ok(())
    }

    /// The entry of a name, as an answer from nobody.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<Arc<Lookup>> {
        Self::answer(self.0.get(&key.name)?, key, "hosts", now)
    }

    /// The answer that addresses make for a name, in the words of who named them.
    pub(super) fn answer(
        addresses: &[IpAddr],
        key: &Key,
        source: &str,
        now: Instant,
    ) -> Option<Arc<Lookup>> {
        let owner = wire(&key.name)?;
        let record = |address: &IpAddr| {
            let data = match (address, key.query_type) {
                (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                (IpAddr::V4(_) | IpAddr::V6(_), _) => return None,
            };
            Some(Record::from_rdata(
                owner.clone(),
                TTL.as_secs() as u32,
                data,
            ))
        };
        let records: Vec<Record> = addresses.iter().filter_map(record).collect();
        let learned = if records.is_empty() {
            Learned::Nothing {
                no_such_name: false,
                ttl: TTL,
            }
        } else {
            Learned::Records(Chain {
                aliases: Vec::new(),
                records,
                ttl: TTL,
                unrelated: 0,
            })
        };
        Some(Arc::new(Lookup {
            learned,
            received: now,
            upstream: source.into(),
            is_stale: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, query_type: RecordType) -> Key {
        Key {
            view: None,
            name: DomainName::parse(name).expect("a name"),
            query_type,
        }
    }

    #[test]
    fn a_hosts_file_is_read_and_loopback_is_left_out() {
        let mut hosts = Hosts::default();
        let text = "127.0.0.1 localhost\n# 10.0.0.9 no.example\n10.0.0.5 db.example db # two\n\
                    2001:db8::5\tDB.example\nfe80::1%eth0 router.example\n\n";
        hosts.add_file(text).expect("a hosts file");
        let now = Instant::now();
        let found = |name, query_type| match &hosts.find(&key(name, query_type), now)?.learned {
            Learned::Records(chain) => Some(chain.records.len()),
            Learned::Nothing { .. } => Some(0),
        };
        assert_eq!(found("db.example", RecordType::A), Some(1));
        assert_eq!(found("db.example", RecordType::AAAA), Some(1));
        assert_eq!(
            found("db", RecordType::AAAA),
            Some(0),
            "known, without such a record"
        );
        assert_eq!(found("localhost", RecordType::A), None);
        assert_eq!(found("router.example", RecordType::AAAA), None);
        let problem = hosts.add_file("10.0.0.5 a.example\nhere a.example\n");
        assert_eq!(problem, Err("line 2: `here` is no address".to_owned()));
    }
}
