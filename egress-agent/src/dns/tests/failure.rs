//! Upstreams that are slow, silent, gone, or not who they seem to be.

use super::upstream::{Upstream, address, alias, answer, bytes, code};
use super::world::{World, addresses, config, extended_error};
use crate::dns::Config;
use egress_common::{Outcome, Protocol, Reason};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use std::time::{Duration, Instant};

fn good(query: &Message) -> Vec<u8> {
    bytes(&answer(query, vec![address("ok.test", 60, "203.0.113.7")]))
}

#[tokio::test]
async fn forged_answers_are_dropped_and_counted() {
    let upstream = Upstream::new(|query, _| {
        let evil = |change: &dyn Fn(&mut Message)| {
            let mut message = answer(query, vec![address("ok.test", 60, "203.0.113.66")]);
            change(&mut message);
            bytes(&message)
        };
        vec![
            evil(&|m| m.metadata.id = m.metadata.id.wrapping_add(1)),
            evil(&|m| m.queries[0].query_type = RecordType::AAAA),
            evil(&|m| m.queries[0].name = super::upstream::name("other.test")),
            evil(&|m| m.metadata.message_type = hickory_proto::op::MessageType::Query),
            vec![0; 7],
            good(query),
        ]
    })
    .await;
    let world = World::new(&upstream).await;
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(addresses(&answer), ["203.0.113.7"]);
    assert_eq!(world.running.counters().read().forged, 5);
}

#[tokio::test]
async fn a_flood_of_forgeries_moves_the_question_to_tcp() {
    let upstream = Upstream::new(|query, protocol| match protocol {
        Protocol::Udp | Protocol::Icmp => vec![vec![0; 40]; 64],
        Protocol::Tcp => vec![good(query)],
    })
    .await;
    let world = World::new(&upstream).await;
    assert_eq!(
        addresses(&world.ask("ok.test", RecordType::A).await),
        ["203.0.113.7"]
    );
}

#[tokio::test]
async fn the_next_upstream_is_asked_when_one_is_silent_or_broken() {
    let silent = Upstream::new(|_, _| Vec::new()).await;
    let broken = Upstream::new(|query, _| vec![bytes(&code(query, ResponseCode::ServFail))]).await;
    let fine = Upstream::new(|query, _| vec![good(query)]).await;
    let world = World::with(config(&[&silent, &broken, &fine])).await;
    assert_eq!(
        addresses(&world.ask("ok.test", RecordType::A).await),
        ["203.0.113.7"]
    );
    assert_eq!((silent.asked(), broken.asked(), fine.asked()), (1, 1, 1));
    // The silent one is not waited for again.
    let began = Instant::now();
    world.ask("b.ok.test", RecordType::A).await;
    assert!(began.elapsed() < Duration::from_millis(250));
    assert_eq!(silent.asked(), 1);
}

#[tokio::test]
async fn silence_ends_in_servfail_before_the_deadline_of_clients() {
    let silent = Upstream::new(|_, _| Vec::new()).await;
    let world = World::new(&silent).await;
    let began = Instant::now();
    let answer = world.ask("ok.test", RecordType::A).await;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended_error(&answer).expect("an explanation").0, 22);
    let record = world.record();
    assert_eq!(record.reason, Some(Reason::UpstreamFailed));
    assert_eq!(record.outcome, Some(Outcome::Denied));
    assert!(
        record
            .detail
            .expect("details")
            .contains(&silent.address.to_string())
    );
    assert_eq!(world.running.counters().read().failed, 1);
}

#[tokio::test]
async fn a_refused_connection_shows_at_once() {
    let gone = Upstream::new(|_, _| Vec::new()).await.address;
    let world = World::with(Config {
        upstreams: vec![gone.into()],
        ..config(&[])
    })
    .await;
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended_error(&answer).expect("an explanation").0, 23);
}

#[tokio::test]
async fn no_upstream_at_all_says_what_to_configure() {
    let world = World::with(config(&[])).await;
    let answer = world.ask("ok.test", RecordType::A).await;
    let (code, text) = extended_error(&answer).expect("an explanation");
    assert_eq!(code, 22);
    assert!(text.contains("--upstream"), "{text}");
}

#[tokio::test]
async fn a_looping_answer_is_not_used() {
    let upstream = Upstream::saying(vec![alias("ok.test", "b.test"), alias("b.test", "ok.test")]);
    let world = World::new(&upstream.await).await;
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(world.record().reason, Some(Reason::UpstreamFailed));
}

#[tokio::test]
async fn a_map_that_cannot_be_written_means_servfail() {
    let upstream = Upstream::new(|query, _| vec![good(query)]).await;
    let world = World::new(&upstream).await;
    world.policy(|policy| policy.map_full = true);
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty() && answer.authorities.is_empty());
    let record = world.record();
    assert_eq!(record.reason, Some(Reason::GrantFailed));
    assert_eq!(
        record
            .detail
            .as_deref()
            .map(|d| d.contains("the map is full")),
        Some(true)
    );
}

#[tokio::test]
async fn an_upstream_without_edns_is_asked_again_without() {
    let upstream = Upstream::new(|query, _| {
        let message = match &query.edns {
            Some(_) => code(query, ResponseCode::FormErr),
            None => answer(query, vec![address("ok.test", 60, "203.0.113.7")]),
        };
        vec![bytes(&message)]
    })
    .await;
    let world = World::new(&upstream).await;
    assert_eq!(
        addresses(&world.ask("ok.test", RecordType::A).await),
        ["203.0.113.7"]
    );
}

#[tokio::test]
async fn equal_questions_at_one_time_are_asked_once() {
    let upstream = Upstream::new(|query, _| {
        std::thread::sleep(Duration::from_millis(50));
        vec![good(query)]
    })
    .await;
    let world = World::new(&upstream).await;
    let message = super::world::query("ok.test", RecordType::A)
        .to_vec()
        .expect("encodes");
    let clients = [
        world.client(1).await,
        world.client(2).await,
        world.client(3).await,
    ];
    // An early answer to one of several clients is not early for the others.
    world.watch_nobody();
    for client in &clients {
        client.send(&message).await.expect("sent");
    }
    let mut answered = 0;
    for client in &clients {
        let mut buffer = [0; 512];
        answered += usize::from(client.recv(&mut buffer).await.is_ok());
    }
    assert_eq!(answered, 3);
    assert_eq!(upstream.asked(), 1);
}
