//! Which upstream is asked for what, and what is said when none answers.

use super::upstream::{Upstream, address, answer, bytes};
use super::world::{World, addresses, config, extended_error};
use crate::dns::{Config, Endpoint, Hosts, Strategy};
use crate::model::{DomainName, DomainPattern};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn saying(ttl: u32, ip: &'static str) -> impl Fn(&Message) -> Vec<u8> + Send + Sync {
    move |query| {
        let name = query.queries[0].name.to_ascii();
        bytes(&answer(
            query,
            vec![address(name.trim_end_matches('.'), ttl, ip)],
        ))
    }
}

async fn upstream(ttl: u32, ip: &'static str) -> Upstream {
    let say = saying(ttl, ip);
    Upstream::new(move |query, _| vec![say(query)]).await
}

fn for_domain(upstream: &Upstream, domain: &str) -> Endpoint {
    Endpoint {
        domains: vec![DomainPattern::parse(domain).expect("a pattern")],
        ..upstream.address.into()
    }
}

#[tokio::test]
async fn a_domain_with_an_upstream_of_its_own_is_asked_of_nobody_else() {
    let outer = upstream(60, "203.0.113.1").await;
    let corp = upstream(60, "203.0.113.2").await;
    let deep = upstream(60, "203.0.113.3").await;
    let world = World::with(Config {
        upstreams: vec![
            outer.address.into(),
            for_domain(&corp, "**.corp.ok.test"),
            for_domain(&deep, "*.lab.corp.ok.test"),
        ],
        ..config(&[])
    })
    .await;
    for (name, expected) in [
        ("www.ok.test", "203.0.113.1"),
        ("corp.ok.test", "203.0.113.2"),
        ("lab.corp.ok.test", "203.0.113.2"),
        ("x.lab.corp.ok.test", "203.0.113.3"),
    ] {
        let answer = world.ask(name, RecordType::A).await;
        assert_eq!(addresses(&answer), [expected], "{name}");
    }
    assert_eq!((outer.asked(), corp.asked(), deep.asked()), (1, 2, 1));
}

#[tokio::test]
async fn when_a_domains_own_upstream_is_silent_its_names_stay_here() {
    let outer = upstream(60, "203.0.113.1").await;
    let silent = Upstream::new(|_, _| Vec::new()).await;
    let world = World::with(Config {
        upstreams: vec![outer.address.into(), for_domain(&silent, "**.corp.ok.test")],
        ..config(&[])
    })
    .await;
    let answer = world.ask("db.corp.ok.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(outer.asked(), 0);
}

#[tokio::test]
async fn the_fastest_is_asked_once_all_are_known() {
    let slow = Upstream::new(|query, _| {
        std::thread::sleep(Duration::from_millis(60));
        vec![saying(0, "203.0.113.1")(query)]
    })
    .await;
    let quick = upstream(0, "203.0.113.2").await;
    let world = World::with(Config {
        upstreams: vec![slow.address.into(), quick.address.into()],
        strategy: Strategy::Fastest,
        ..config(&[])
    })
    .await;
    for _ in 0..12 {
        world.ask("ok.test", RecordType::A).await;
    }
    assert_eq!((slow.asked(), quick.asked()), (1, 11));
}

#[tokio::test]
async fn static_entries_ask_nobody_and_obey_policy() {
    let upstream = upstream(60, "203.0.113.1").await;
    let mut hosts = Hosts::default();
    for (name, address) in [
        ("db.ok.test", "203.0.113.9"),
        ("inner.ok.test", "10.0.0.9"),
        ("other.test", "203.0.113.9"),
    ] {
        let name = DomainName::parse(name).expect("a name");
        hosts.add(name, address.parse().expect("an address"));
    }
    let world = World::with(Config {
        hosts,
        ..config(&[&upstream])
    })
    .await;
    let answer = world.ask("db.ok.test", RecordType::A).await;
    assert_eq!(addresses(&answer), ["203.0.113.9"]);
    assert_eq!(world.opened().len(), 1, "opened like any other");
    assert_eq!(world.record().upstream.as_deref(), Some("hosts"));
    let answer = world.ask("db.ok.test", RecordType::AAAA).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    let private = world.ask("inner.ok.test", RecordType::A).await;
    assert!(private.answers.is_empty(), "screened like any other");
    let refused = world.ask("other.test", RecordType::A).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(upstream.asked(), 0);
}

/// An upstream that can be silenced.
async fn silenceable(ttl: u32) -> (Upstream, Arc<AtomicBool>) {
    let silent = Arc::new(AtomicBool::new(false));
    let (is_silent, say) = (silent.clone(), saying(ttl, "203.0.113.7"));
    let upstream = Upstream::new(move |query, _| {
        if is_silent.load(Ordering::Relaxed) {
            Vec::new()
        } else {
            vec![say(query)]
        }
    });
    (upstream.await, silent)
}

#[tokio::test]
async fn what_was_known_is_told_when_no_upstream_answers_if_ops_want_that() {
    for (serve_stale, expected) in [
        (Duration::from_secs(60), ResponseCode::NoError),
        (Duration::ZERO, ResponseCode::ServFail),
    ] {
        let (upstream, silent) = silenceable(1).await;
        let world = World::with(Config {
            serve_stale,
            ..config(&[&upstream])
        })
        .await;
        world.ask("ok.test", RecordType::A).await;
        silent.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let answer = world.ask("ok.test", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, expected);
        if expected == ResponseCode::NoError {
            assert_eq!(addresses(&answer), ["203.0.113.7"]);
            assert!(answer.answers[0].ttl <= 30);
            assert_eq!(extended_error(&answer).expect("a reason").0, 3);
            assert_eq!(world.opened().len(), 2, "opened anew");
            let record = world.record();
            assert_eq!(record.cache, Some("stale"));
            assert_eq!(record.upstream, Some(upstream.address.to_string()));
            assert!(record.latency_us.is_some());
            assert_eq!(world.running.counters().read().stale, 1);
        }
        // Back at once when the upstream is.
        silent.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let asked = upstream.asked();
        world.ask("b.ok.test", RecordType::A).await;
        assert!(upstream.asked() > asked);
    }
}

#[tokio::test]
async fn a_name_in_use_is_asked_for_again_before_its_time_is_over() {
    let upstream = upstream(10, "203.0.113.7").await;
    let world = World::new(&upstream).await;
    world.ask("ok.test", RecordType::A).await;
    // In the last tenth of its life.
    tokio::time::sleep(Duration::from_millis(9100)).await;
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(
        addresses(&answer),
        ["203.0.113.7"],
        "answered from the cache"
    );
    for _ in 0..100 {
        if upstream.asked() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.asked(), 2, "asked for in the background");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    world.ask("ok.test", RecordType::A).await;
    assert_eq!(upstream.asked(), 2, "and known now");
    assert_eq!(world.running.counters().read().prefetched, 1);
}

#[tokio::test]
async fn random_letters_are_sent_must_come_back_and_are_not_shown_to_clients() {
    let upstream = Upstream::new(|query, _| {
        let mut forged = answer(query, vec![address("ok.test", 60, "203.0.113.66")]);
        forged.queries[0].name = forged.queries[0].name.to_lowercase();
        vec![bytes(&forged), saying(60, "203.0.113.7")(query)]
    })
    .await;
    let world = World::with(Config {
        mixed_case: true,
        ..config(&[&upstream])
    })
    .await;
    // Long enough that nobody sees it all in lower case by chance.
    let name = format!("{}.ok.test", "abcdefghijklmnopqrst".repeat(3));
    let answer = world.ask(&name, RecordType::A).await;
    assert_eq!(
        addresses(&answer),
        ["203.0.113.7"],
        "not what a forger said"
    );
    assert_eq!(answer.answers[0].name.to_ascii(), format!("{name}."));
    let seen = upstream.seen.lock().expect("lock");
    let asked = seen[0].queries[0].name.to_ascii();
    assert!(asked != asked.to_lowercase() && asked.eq_ignore_ascii_case(&format!("{name}.")));
    assert_eq!(world.running.counters().read().forged, 1);
}
