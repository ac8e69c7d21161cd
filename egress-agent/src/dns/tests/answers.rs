//! What of an upstream's answer reaches a sandbox.

use super::super::chain::{Learned, follow};
use super::super::screen::blocked_alias;
use super::upstream::{Upstream, address, alias, answer, bytes, code, name, question};
use super::world::{FakeGate, Policy, World, addresses, bare_query, config, extended_error, query};
use crate::dns::Config;
use crate::model::DomainName;
use egress_common::{Outcome, Reason, SandboxId};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::HTTPS;
use hickory_proto::rr::rdata::svcb::SVCB;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use jiff::Timestamp;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[tokio::test]
async fn an_allowed_name_is_opened_before_it_is_answered() {
    let upstream = Upstream::saying(vec![address("ok.test", 120, "203.0.113.7")]).await;
    let world = World::new(&upstream).await;
    // The gate itself looks whether the client has received anything yet.
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(addresses(&answer), ["203.0.113.7"]);
    assert!(!answer.metadata.authentic_data && answer.metadata.recursion_available);
    let opened = world.opened();
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].sandbox, SandboxId(1));
    assert_eq!(opened[0].name, "ok.test");
    assert_eq!((opened[0].ttl, opened[0].answer_ttl), (120, 120));
    let record = world.record();
    assert_eq!(record.outcome, Some(Outcome::Allowed));
    let detail = record.detail.expect("details");
    assert!(detail.contains("granted 203.0.113.7"), "{detail}");
    assert!(detail.contains(&upstream.address.to_string()), "{detail}");
}

#[tokio::test]
async fn the_upstream_learns_nothing_but_name_and_type() {
    let upstream = Upstream::saying(vec![address("ok.test", 120, "203.0.113.7")]).await;
    let world = World::new(&upstream).await;
    let mut message = query("oK.tEsT", RecordType::A);
    let edns = message.edns.as_mut().expect("edns");
    edns.set_dnssec_ok(true);
    let cookie = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(10, vec![7; 8]);
    edns.options_mut().insert(cookie);
    message.metadata.checking_disabled = true;
    let answer = world.send(&message).await;
    assert_eq!(question(&answer).0, "oK.tEsT.", "the client's letter case");
    assert_eq!(answer.answers[0].name.to_ascii(), "oK.tEsT.");
    assert!(answer.metadata.checking_disabled);
    let seen = upstream.seen.lock().expect("lock");
    let seen = seen.first().expect("asked");
    assert_eq!(question(seen).0, "ok.test.");
    let edns = seen.edns.as_ref().expect("edns");
    assert!(edns.options().options.is_empty() && !edns.flags().dnssec_ok);
    assert!(!seen.metadata.checking_disabled);
    assert_ne!(seen.metadata.id, message.metadata.id);
}

#[tokio::test]
async fn only_the_chain_from_the_question_is_handed_out() {
    let upstream = Upstream::saying(vec![
        alias("ok.test", "cdn.other.test"),
        address("cdn.other.test", 60, "203.0.113.8"),
        address("evil.test", 60, "203.0.113.66"),
        address("sub.ok.test", 60, "203.0.113.67"),
    ])
    .await;
    let world = World::new(&upstream).await;
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(addresses(&answer), ["203.0.113.8"]);
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.answers.iter().all(|record| record.ttl == 60));
    let granted: Vec<String> = world.opened()[0]
        .addresses
        .iter()
        .map(|a| a.to_string())
        .collect();
    assert_eq!(granted, ["203.0.113.8"]);
    assert_eq!(world.running.counters().read().unrelated, 2);
}

#[tokio::test]
async fn a_chain_through_a_blocked_name_is_refused() {
    let upstream = Upstream::saying(vec![
        alias("ok.test", "x.bad.test"),
        alias("x.bad.test", "fine.test"),
        address("fine.test", 60, "203.0.113.8"),
    ])
    .await;
    let world = World::new(&upstream).await;
    for query_type in [RecordType::A, RecordType::CNAME] {
        let answer = world.ask("ok.test", query_type).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(world.record().reason, Some(Reason::ChainRefused));
    }
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn protected_addresses_are_removed_and_recorded() {
    let upstream = Upstream::new(|query, _| {
        let records = match question(query).0.as_str() {
            "mixed.ok.test." => vec![
                address("mixed.ok.test", 60, "10.0.0.5"),
                address("mixed.ok.test", 60, "203.0.113.8"),
            ],
            _ => vec![address("inside.ok.test", 60, "127.0.0.1")],
        };
        vec![bytes(&answer(query, records))]
    })
    .await;
    let world = World::new(&upstream).await;
    assert_eq!(
        addresses(&world.ask("mixed.ok.test", RecordType::A).await),
        ["203.0.113.8"]
    );
    let record = world.record();
    assert_eq!(record.reason, Some(Reason::Rebinding));
    assert!(
        record
            .detail
            .expect("details")
            .contains("removed 10.0.0.5: rebinding")
    );

    let none = world.ask("inside.ok.test", RecordType::A).await;
    assert_eq!(none.metadata.response_code, ResponseCode::NoError);
    assert!(none.answers.is_empty());
    assert_eq!(extended_error(&none).expect("an explanation").0, 17);
    assert_eq!(world.record().outcome, Some(Outcome::Denied));
    assert_eq!(world.opened().len(), 1);
    assert_eq!(world.running.counters().read().removed, 2);
}

#[tokio::test]
async fn thousands_of_addresses_are_cut_to_the_bound() {
    let records: Vec<Record> = (0..1500)
        .map(|n| address("ok.test", 60, &format!("203.0.{}.{}", n / 250, n % 250 + 1)))
        .collect();
    let upstream = Upstream::new(move |query, protocol| {
        let mut message = answer(query, records.clone());
        if protocol == egress_common::Protocol::Udp {
            message = message.truncate();
        }
        vec![bytes(&message)]
    })
    .await;
    let world = World::new(&upstream).await;
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(addresses(&answer).len(), 4);
    assert_eq!(world.opened()[0].addresses.len(), 4);
    assert_eq!(upstream.asked(), 2, "UDP, then TCP");
}

#[tokio::test]
async fn hints_are_removed_and_foreign_targets_must_be_allowed() {
    let https = |target: Name| {
        Record::from_rdata(
            name("ok.test"),
            60,
            RData::HTTPS(HTTPS(SVCB::new(1, target, Vec::new()))),
        )
    };
    let records = vec![
        https(Name::root()),
        https(name("b.ok.test")),
        https(name("evil.test")),
    ];
    let upstream = Upstream::saying(records).await;
    let world = World::new(&upstream).await;
    let answer = world.ask("ok.test", RecordType::HTTPS).await;
    assert_eq!(answer.answers.len(), 2);
    assert!(world.opened()[0].addresses.is_empty());
}

#[tokio::test]
async fn ttls_are_bounded_and_a_zero_ttl_is_not_cached() {
    let upstream = Upstream::new(|query, _| {
        let (owner, ttl) = match question(query).0.as_str() {
            "zero.ok.test." => ("zero.ok.test", 0),
            _ => ("long.ok.test", 86_400),
        };
        vec![bytes(&answer(
            query,
            vec![address(owner, ttl, "203.0.113.7")],
        ))]
    })
    .await;
    let world = World::new(&upstream).await;
    let long = world.ask("long.ok.test", RecordType::A).await;
    assert_eq!(long.answers[0].ttl, 300, "cache_ttl");
    for _ in 0..2 {
        let zero = world.ask("zero.ok.test", RecordType::A).await;
        assert_eq!(zero.answers[0].ttl, 0);
    }
    assert_eq!(upstream.asked(), 3);
}

#[tokio::test]
async fn a_cache_hit_is_judged_screened_and_opened_for_who_asks() {
    let upstream = Upstream::saying(vec![address("ok.test", 300, "203.0.113.7")]).await;
    let world = World::new(&upstream).await;
    assert_eq!(
        addresses(&world.ask("ok.test", RecordType::A).await).len(),
        1
    );
    let client = world.client(2).await;
    client
        .send(&query("OK.test", RecordType::A).to_vec().expect("encodes"))
        .await
        .expect("sent");
    let mut buffer = [0; 512];
    client.recv(&mut buffer).await.expect("an answer");
    assert_eq!(upstream.asked(), 1);
    let sandboxes: Vec<u32> = world.opened().iter().map(|o| o.sandbox.0).collect();
    assert_eq!(sandboxes, [1, 2]);
    assert_eq!(world.running.counters().read().cache_hits, 1);

    // What is known does not help once the policy says no.
    world.policy(|policy| policy.allowed.clear());
    let refused = world.ask("ok.test", RecordType::A).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(world.opened().len(), 2);
}

/// Asks for a name that is allowed until `change` happens, while the upstream thinks; why it is
/// refused then.
async fn changed_meanwhile(
    until_expiry: Duration,
    change: impl Fn(&mut Policy) + Send + Sync + 'static,
) -> Option<Reason> {
    let gate: Arc<OnceLock<Arc<FakeGate>>> = Arc::default();
    let reached = gate.clone();
    let upstream = Upstream::new(move |query, _| {
        let gate = reached.get().expect("the world is complete");
        change(&mut gate.policy.lock().expect("lock"));
        vec![bytes(&answer(
            query,
            vec![address("ok.test", 60, "203.0.113.7")],
        ))]
    })
    .await;
    // It thinks for longer than other upstreams may.
    let world = World::with(Config {
        attempt_timeout: Duration::from_secs(4),
        deadline: Duration::from_secs(4),
        ..config(&[&upstream])
    })
    .await;
    assert!(gate.set(world.gate.clone()).is_ok());
    let expiry = Timestamp::now() + until_expiry;
    world.gate.policy.lock().expect("lock").limits.rules_until = Some(expiry);
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(upstream.asked(), 1, "it was allowed when it was asked");
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(world.opened().is_empty());
    world.record().reason
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_policy_that_changes_while_the_upstream_thinks_counts() {
    let reason = changed_meanwhile(HOUR, |policy| {
        policy.generation += 1;
        policy.allowed.clear();
    });
    assert_eq!(reason.await, Some(Reason::NameNotAllowed));
}

#[tokio::test]
async fn a_rule_that_expires_while_the_upstream_thinks_counts() {
    // The agent has not noticed yet: the generation stays.
    let reason = changed_meanwhile(Duration::from_secs(1), |policy| {
        while policy
            .limits
            .rules_until
            .is_some_and(|expiry| Timestamp::now() < expiry)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        policy.allowed.clear();
    });
    assert_eq!(reason.await, Some(Reason::NameNotAllowed));
}

#[tokio::test]
async fn an_emergency_while_the_upstream_thinks_counts() {
    // Whoever presses the button need not be the agent: the generation stays.
    let reason = changed_meanwhile(HOUR, |policy| policy.is_stopped = true);
    assert_eq!(reason.await, Some(Reason::Emergency));
}

#[tokio::test]
async fn an_alias_counts_as_blocked_where_everything_is_stopped() {
    let upstream = Upstream::new(|_, _| Vec::new()).await;
    let world = World::new(&upstream).await;
    let question = bare_query("ok.test", RecordType::A);
    let records = vec![
        alias("ok.test", "elsewhere.test"),
        address("elsewhere.test", 60, "203.0.113.7"),
    ];
    let asked = DomainName::parse("ok.test").expect("a name");
    let learned = follow(&asked, RecordType::A, &answer(&question, records));
    let Ok(Learned::Records(chain)) = learned else {
        panic!("{learned:?}");
    };
    let is_blocked = || blocked_alias(&*world.gate, SandboxId(1), &chain).is_err();
    assert!(!is_blocked(), "no rule has to allow an alias");
    world.gate.policy.lock().expect("lock").is_stopped = true;
    assert!(is_blocked(), "nobody could say");
}

#[tokio::test]
async fn what_does_not_exist_is_said_and_remembered() {
    let upstream = Upstream::new(|query, _| {
        let mut message = code(query, ResponseCode::NXDomain);
        let root = Name::root;
        let soa = hickory_proto::rr::rdata::SOA::new(root(), root(), 1, 2, 3, 4, 20);
        message.authorities = vec![Record::from_rdata(name("ok.test"), 900, RData::SOA(soa))];
        vec![bytes(&message)]
    })
    .await;
    let world = World::new(&upstream).await;
    for _ in 0..2 {
        let answer = world.send(&bare_query("no.ok.test", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(answer.authorities[0].ttl <= 20);
    }
    assert_eq!(upstream.asked(), 1);
    assert_eq!(world.record().outcome, Some(Outcome::Allowed));
}
