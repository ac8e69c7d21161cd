//! What clients may see of HTTPS and SVCB records (RFC 9460).

use super::name::canonical;
use crate::model::DomainName;
use hickory_proto::rr::rdata::svcb::{Mandatory, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{HTTPS, SVCB as SvcbData};
use hickory_proto::rr::{RData, Record};

/// Reduces a record to what cannot lead past the policy; `None` drops it.
///
/// Address hints go: they are addresses that no grant covers, so a client that
/// tries them first only fails. ECH configurations go, because they hide the
/// server name from whoever must check it. What is not known goes too, and with
/// it a record that declares it indispensable.
pub(super) fn reduce(record: &Record, may_lead_to: impl Fn(&DomainName) -> bool) -> Option<Record> {
    let reduced = |svcb: &SVCB| {
        let target = &svcb.target_name;
        // "." means the owner itself.
        if !target.is_root() && *target != record.name && !may_lead_to(&canonical(target)?) {
            return None;
        }
        parameters(svcb)
    };
    let data = match &record.data {
        RData::HTTPS(https) => RData::HTTPS(HTTPS(reduced(&https.0)?)),
        RData::SVCB(svcb) => RData::SVCB(reduced(svcb)?),
        _ => return Some(record.clone()),
    };
    let mut record = record.clone();
    record.data = data;
    Some(record)
}

fn parameters(svcb: &SVCB) -> Option<SvcbData> {
    let mut kept = Vec::new();
    for (key, value) in &svcb.svc_params {
        match (key, value) {
            (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(keys))) => {
                if !keys.iter().all(is_kept) {
                    return None;
                }
                kept.push((*key, value.clone()));
            }
            (key, value) if is_kept(key) => kept.push((*key, value.clone())),
            _ => {}
        }
    }
    Some(SVCB::new(svcb.svc_priority, svcb.target_name.clone(), kept))
}

fn is_kept(key: &SvcParamKey) -> bool {
    matches!(
        key,
        SvcParamKey::Alpn | SvcParamKey::NoDefaultAlpn | SvcParamKey::Port
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::name::wire;
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::rdata::svcb::{Alpn, EchConfigList, IpHint};
    use std::net::Ipv4Addr;

    fn name(text: &str) -> Name {
        wire(&DomainName::parse(text).expect("a name")).expect("wire")
    }

    fn record(target: Name, params: Vec<(SvcParamKey, SvcParamValue)>) -> Record {
        let data = RData::HTTPS(HTTPS(SVCB::new(1, target, params)));
        Record::from_rdata(name("a.example"), 60, data)
    }

    fn alpn() -> (SvcParamKey, SvcParamValue) {
        let value = SvcParamValue::Alpn(Alpn(vec!["h2".to_owned()]));
        (SvcParamKey::Alpn, value)
    }

    fn hint() -> (SvcParamKey, SvcParamValue) {
        let address = A(Ipv4Addr::new(203, 0, 113, 9));
        (
            SvcParamKey::Ipv4Hint,
            SvcParamValue::Ipv4Hint(IpHint(vec![address])),
        )
    }

    fn ech() -> (SvcParamKey, SvcParamValue) {
        let value = SvcParamValue::EchConfigList(EchConfigList(vec![1, 2]));
        (SvcParamKey::EchConfigList, value)
    }

    #[test]
    fn hints_and_ech_are_removed_and_the_rest_stays() {
        let full = record(Name::root(), vec![alpn(), hint(), ech()]);
        let expected = record(Name::root(), vec![alpn()]);
        assert_eq!(reduce(&full, |_| false), Some(expected));
    }

    #[test]
    fn a_record_that_insists_on_what_was_removed_is_dropped() {
        let keys = Mandatory(vec![SvcParamKey::EchConfigList]);
        let mandatory = (SvcParamKey::Mandatory, SvcParamValue::Mandatory(keys));
        assert_eq!(
            reduce(&record(Name::root(), vec![mandatory, ech()]), |_| true),
            None
        );
    }

    #[test]
    fn another_target_is_kept_only_if_policy_allows_its_name() {
        let elsewhere = record(name("b.example"), vec![alpn()]);
        assert_eq!(reduce(&elsewhere, |_| false), None);
        assert_eq!(
            reduce(&elsewhere, |target| target.as_str() == "b.example"),
            Some(elsewhere.clone())
        );
        let own = record(name("a.example"), vec![alpn()]);
        assert_eq!(reduce(&own, |_| false), Some(own.clone()));
    }
}
