//! Names that are answered here, or by those who are there for them.

use super::upstream::{Upstream, address, answer, bytes};
use super::world::{World, addresses, config};
use crate::dns::{Config, Endpoint, Renewal};
use crate::model::{DomainName, DomainPattern};
use egress_common::{Mode, Outcome, SandboxId};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use std::time::Duration;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("a name")
}

/// Says that every name has this address.
async fn upstream(ip: &'static str) -> Upstream {
    Upstream::new(move |query, _| {
        let asked = query.queries[0].name.to_ascii();
        let record = address(asked.trim_end_matches('.'), 60, ip);
        vec![bytes(&answer(query, vec![record]))]
    })
    .await
}

#[tokio::test]
async fn names_of_this_network_are_answered_here_unless_an_upstream_is_there_for_them() {
    let outer = upstream("203.0.113.1").await;
    let inner = upstream("203.0.113.2").await;
    let world = World::with(Config {
        upstreams: vec![
            outer.address.into(),
            Endpoint {
                domains: vec![DomainPattern::parse("**.corp.local").expect("a pattern")],
                ..inner.address.into()
            },
        ],
        ..config(&[])
    })
    .await;
    world.policy(|policy| {
        for domain in ["local", "home.arpa", "invalid", "onion", "in-addr.arpa"] {
            policy.allowed.insert(name(domain));
        }
    });
    for asked in [
        "printer.local",
        "nas.home.arpa",
        "a.invalid",
        "x.onion",
        "1.2.0.192.in-addr.arpa",
    ] {
        let answer = world.ask(asked, RecordType::A).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{asked}"
        );
        assert_eq!(
            answer.authorities.len(),
            1,
            "{asked}: how long it may be believed"
        );
        let record = world.record();
        assert_eq!(record.outcome, Some(Outcome::Allowed), "it is no refusal");
        let upstream = record.upstream.unwrap_or_default();
        assert!(upstream.contains("RFC"), "{asked}: {upstream}");
    }
    assert_eq!(outer.asked(), 0);
    let found = world.ask("db.corp.local", RecordType::A).await;
    assert_eq!(addresses(&found), ["203.0.113.2"]);
    assert_eq!((outer.asked(), inner.asked()), (0, 1));
}

#[tokio::test]
async fn what_only_shadow_mode_lets_through_is_no_name_for_tests() {
    let upstream = upstream("203.0.113.1").await;
    let world = World::new(&upstream).await;
    world.policy(|policy| policy.limits.mode = Mode::Shadow);
    let unnamed = world.ask("nobody.names.test", RecordType::A).await;
    assert_eq!(unnamed.metadata.response_code, ResponseCode::NXDomain);
    let named = world.ask("ok.test", RecordType::A).await;
    assert_eq!(addresses(&named), ["203.0.113.1"]);
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn a_policys_own_addresses_are_told_opened_and_asked_of_nobody() {
    let upstream = upstream("203.0.113.1").await;
    let world = World::new(&upstream).await;
    world.policy(|policy| {
        let own = vec!["203.0.113.9".parse().expect("an address")];
        policy.hosts.insert(name("db.ok.test"), own);
    });
    let found = world.ask("db.ok.test", RecordType::A).await;
    assert_eq!(addresses(&found), ["203.0.113.9"]);
    assert_eq!(world.opened()[0].name, "db.ok.test");
    let other = world.ask("db.ok.test", RecordType::AAAA).await;
    assert_eq!(other.metadata.response_code, ResponseCode::NoError);
    assert!(
        other.answers.is_empty(),
        "the name is there, without such a record"
    );
    assert_eq!(upstream.asked(), 0);
    // What it leads to is screened as everything.
    world.policy(|policy| {
        let own = vec!["10.0.0.1".parse().expect("an address")];
        policy.hosts.insert(name("db.ok.test"), own);
    });
    let private = world.ask("db.ok.test", RecordType::A).await;
    assert!(private.answers.is_empty());
}

#[tokio::test]
async fn each_view_has_upstreams_and_a_memory_of_its_own() {
    let outer = upstream("203.0.113.1").await;
    let inner = upstream("203.0.113.2").await;
    let world = World::with(Config {
        upstreams: vec![
            outer.address.into(),
            Endpoint {
                view: Some("corp".into()),
                ..inner.address.into()
            },
        ],
        ..config(&[])
    })
    .await;
    let outside = world.ask("www.ok.test", RecordType::A).await;
    assert_eq!(addresses(&outside), ["203.0.113.1"]);
    world.policy(|policy| policy.view = Some("corp".into()));
    let inside = world.ask("www.ok.test", RecordType::A).await;
    assert_eq!(
        addresses(&inside),
        ["203.0.113.2"],
        "not what the other view said"
    );
    world.policy(|policy| policy.view = Some("nobody".into()));
    let nowhere = world.ask("www.ok.test", RecordType::A).await;
    assert_eq!(nowhere.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((outer.asked(), inner.asked()), (1, 1));
}

#[tokio::test]
async fn a_renewal_opens_what_upstreams_say_now_and_nothing_that_policy_took_back() {
    let upstream = upstream("203.0.113.1").await;
    let world = World::new(&upstream).await;
    world.ask("www.ok.test", RecordType::A).await;
    let renew = async |text: &str| {
        let renewal = Renewal {
            sandbox: SandboxId(1),
            name: name(text),
            is_v6: false,
        };
        world
            .running
            .renewals()
            .send(renewal)
            .await
            .expect("it runs");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    renew("www.ok.test").await;
    assert_eq!(upstream.asked(), 2, "anew, although it is in the cache");
    assert_eq!(world.opened().len(), 2);
    assert_eq!(world.running.counters().read().kept_fresh, 1);
    world.policy(|policy| policy.allowed.clear());
    renew("www.ok.test").await;
    assert_eq!((upstream.asked(), world.opened().len()), (2, 2));
}
