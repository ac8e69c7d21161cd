//! What a sandbox may say in names below wildcards.

use super::upstream::{Upstream, address};
use super::world::{World, extended_error};
use crate::dns::Below;
use crate::model::{AtBound, NameBudget, NameLimits, RecordAs};
use egress_common::{Outcome, Reason};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

/// Three names a minute below a wildcard.
fn limits() -> NameLimits {
    let budget = NameBudget {
        names: 3,
        bytes: 1000,
        entropy: 1000,
    };
    NameLimits {
        sandbox: budget,
        wildcard: budget,
        ..NameLimits::default()
    }
}

async fn world(limits: NameLimits) -> (World, Upstream) {
    let upstream = Upstream::saying(vec![address("n0.ok.test", 120, "203.0.113.7")]).await;
    let world = World::new(&upstream).await;
    world.policy(|policy| {
        policy.limits.names = limits;
        policy.below = Some(Below {
            wildcard: 1,
            labels: 1,
        });
    });
    (world, upstream)
}

#[tokio::test]
async fn beyond_the_bound_nothing_leaves_and_the_client_hears_why() {
    let (world, upstream) = world(limits()).await;
    for n in 0..3 {
        let answer = world.ask(&format!("n{n}.ok.test"), RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    }
    let refused = world.ask("n3.ok.test", RecordType::A).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    let (code, text) = extended_error(&refused).expect("a reason");
    assert!(code == 15 && text.contains("3 names"), "{code} {text}");
    assert_eq!(upstream.asked(), 3, "the fourth stayed here");
    let record = world.record();
    assert_eq!(record.reason, Some(Reason::NameBudget));
    assert_eq!(record.outcome, Some(Outcome::Denied));
    assert_eq!(record.name.as_deref(), Some("n3.ok.test"));
    let known = world.ask("n0.ok.test", RecordType::A).await;
    assert_eq!(known.answers.len(), 1, "what the cache knows costs nothing");
    let counts = world.running.counters().read();
    assert_eq!(counts.over_name_budget, 1);
}

#[tokio::test]
async fn alert_and_shadow_answer_and_record() {
    for (at_bound, outcome) in [
        (AtBound::Alert, Outcome::Allowed),
        (AtBound::Shadow, Outcome::WouldDeny),
    ] {
        let limits = NameLimits {
            at_bound,
            record: RecordAs::Hash,
            ..limits()
        };
        let (world, upstream) = world(limits).await;
        for n in 0..4 {
            let answer = world.ask(&format!("n{n}.ok.test"), RecordType::A).await;
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        }
        assert_eq!(upstream.asked(), 4);
        let record = world.record();
        assert_eq!(record.outcome, Some(outcome));
        assert_eq!(record.reason, Some(Reason::NameBudget));
        // From `printf n3 | sha256sum`.
        let name = record.name.expect("a name");
        assert!(
            name.starts_with("sha256:") && name.ends_with(".ok.test"),
            "{name}"
        );
        assert!(!name.contains("n3"), "{name}");
    }
}

#[tokio::test]
async fn asking_too_often_is_refused_also_for_what_is_at_hand() {
    let limits = NameLimits {
        queries_per_second: Some(2),
        ..limits()
    };
    let (world, _upstream) = world(limits).await;
    world.policy(|policy| policy.grants_last = true);
    let mut codes = Vec::new();
    for _ in 0..4 {
        let answer = world.ask("n0.ok.test", RecordType::A).await;
        codes.push(answer.metadata.response_code);
    }
    assert_eq!(codes[..2], [ResponseCode::NoError; 2]);
    assert!(codes.contains(&ResponseCode::Refused), "{codes:?}");
    assert_eq!(world.record().reason, Some(Reason::QueryBudget));
}
