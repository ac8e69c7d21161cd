//! Answers that are given again without the long way.

use super::upstream::{Upstream, address};
use super::world::{World, addresses, bare_query, query};
use egress_common::{Outcome, Reason};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn world() -> (World, Upstream) {
    let upstream = Upstream::saying(vec![address("www.ok.test", 120, "203.0.113.7")]).await;
    let world = World::new(&upstream).await;
    world.policy(|policy| policy.grants_last = true);
    (world, upstream)
}

#[tokio::test]
async fn an_answer_whose_grants_stand_is_given_again_without_opening() {
    let (world, upstream) = world().await;
    let first = world.ask("www.ok.test", RecordType::A).await;
    let again = world.ask("WwW.ok.TEST", RecordType::A).await;
    assert_eq!(addresses(&first), addresses(&again));
    let asked = again.queries[0].name.to_ascii();
    assert_eq!(asked, "WwW.ok.TEST.", "in the letters of the question");
    assert_eq!(again.answers[0].name.to_ascii(), asked);
    assert!(again.answers[0].ttl <= 120);
    assert_eq!(again.edns.is_some(), first.edns.is_some());
    let bare = world.send(&bare_query("www.ok.test", RecordType::A)).await;
    assert!(bare.edns.is_none(), "EDNS only to those who speak it");
    assert_eq!(upstream.asked(), 1);
    assert_eq!(world.opened().len(), 1, "opened once");
    let counts = world.running.counters().read();
    assert_eq!(
        (counts.queries, counts.answered, counts.cache_hits),
        (3, 3, 2)
    );
}

#[tokio::test]
async fn a_grant_that_does_not_last_is_renewed_before_each_answer() {
    let (world, _upstream) = world().await;
    world.policy(|policy| policy.grants_last = false);
    for _ in 0..3 {
        world.ask("www.ok.test", RecordType::A).await;
    }
    assert_eq!(world.opened().len(), 3);
}

#[tokio::test]
async fn another_sandbox_gets_nothing_that_was_opened_for_the_first() {
    let (world, _upstream) = world().await;
    world.ask("www.ok.test", RecordType::A).await;
    let client = world.client(2).await;
    let bytes = query("www.ok.test", RecordType::A)
        .to_vec()
        .expect("encodes");
    client.send(&bytes).await.expect("sent");
    let mut buffer = [0; 4096];
    client.recv(&mut buffer).await.expect("an answer");
    let sandboxes: Vec<u32> = world.opened().iter().map(|g| g.sandbox.0).collect();
    assert_eq!(sandboxes, [1, 2], "each has its own grant");
}

#[tokio::test]
async fn a_change_of_policy_counts_from_the_next_query() {
    let (world, _upstream) = world().await;
    world.ask("www.ok.test", RecordType::A).await;
    world.policy(|policy| {
        policy.allowed.clear();
        policy.generation += 1;
    });
    let refused = world.ask("www.ok.test", RecordType::A).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(world.record().reason, Some(Reason::NameNotAllowed));
}

#[tokio::test]
async fn what_a_client_cannot_take_is_truncated_as_ever() {
    let many = (1..=40).map(|n| address("www.ok.test", 120, &format!("203.0.113.{n}")));
    let upstream = Upstream::saying(many.collect()).await;
    let world = World::new(&upstream).await;
    world.policy(|policy| {
        policy.grants_last = true;
        policy.limits.max_addresses = 40;
    });
    let full = world.ask("www.ok.test", RecordType::A).await;
    assert_eq!(full.answers.len(), 40);
    let small = world.send(&bare_query("www.ok.test", RecordType::A)).await;
    assert!(small.metadata.truncation && small.answers.is_empty());
    let full = world.ask("www.ok.test", RecordType::A).await;
    assert_eq!(full.answers.len(), 40);
}

#[tokio::test]
async fn what_was_answered_without_a_record_is_recorded_with_its_count() {
    let (world, _upstream) = world().await;
    for _ in 0..5 {
        world.ask("www.ok.test", RecordType::A).await;
    }
    let gate = world.gate.clone();
    assert!(world.running.stop(Duration::from_secs(5)).await);
    let records = gate.records.lock().expect("lock");
    let counts: Vec<u64> = records.iter().map(|record| record.count).collect();
    assert_eq!(counts, [1, 4]);
    // What the store settles for a record was counted for it before.
    assert_eq!(gate.noted.load(Ordering::SeqCst), 5);
    let last = records.last().expect("a record");
    assert_eq!(last.name.as_deref(), Some("www.ok.test"));
    assert_eq!(last.query_type.as_deref(), Some("A"));
    assert_eq!(last.outcome, Some(Outcome::Allowed));
    assert!(last.rule.is_some() && last.sandbox_id.is_some());
    assert_eq!((records[0].cache, last.cache), (Some("miss"), Some("hit")));
    assert!(last.upstream.is_some() && last.upstream == records[0].upstream);
}

#[tokio::test]
async fn what_is_kept_for_a_sandbox_goes_with_it() {
    for (are_over, kept) in [(false, 1), (true, 0)] {
        let (world, _upstream) = world().await;
        world.ask("www.ok.test", RecordType::A).await;
        world.gate.are_over.store(are_over, Ordering::SeqCst);
        let counters = Arc::clone(world.running.counters());
        // The last sweep is that of the end.
        assert!(world.running.stop(Duration::from_secs(5)).await);
        assert_eq!(counters.read().ready_answers, kept);
    }
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_and_not_written_one_by_one() {
    let upstream = Upstream::saying(Vec::new()).await;
    let mut config = super::world::config(&[&upstream]);
    config.records_per_second = 3;
    let world = World::with(config).await;
    for n in 0..20 {
        let refused = world
            .ask(&format!("n{n}.elsewhere.test"), RecordType::A)
            .await;
        assert_eq!(refused.metadata.response_code, ResponseCode::NXDomain);
    }
    let gate = world.gate.clone();
    assert!(world.running.stop(Duration::from_secs(5)).await);
    let records = gate.records.lock().expect("lock");
    assert!(records.len() < 20, "{}", records.len());
    assert_eq!(records.iter().map(|record| record.count).sum::<u64>(), 20);
    assert_eq!(gate.noted.load(Ordering::SeqCst), 20);
    let told = records.last().expect("a record");
    assert_eq!(told.reason, Some(Reason::NameNotAllowed));
    assert!(told.name.is_none() && told.count > 1);
}
