//! Any bytes, from either side.

use super::upstream::{Upstream, address, alias, answer, bytes};
use super::world::{World, query};
use crate::dns::chain::follow;
use crate::dns::question::{self, Unusable};
use crate::model::DomainName;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

/// A valid message with some bytes changed, and cut or lengthened.
fn mutated(original: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = original.len();
    let changes = prop::collection::vec((0..length, any::<u8>()), 0..6);
    let tail = prop::collection::vec(any::<u8>(), 0..16);
    (changes, 0..=length, tail).prop_map(move |(changes, cut, tail)| {
        let mut bytes = original.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(cut.max(length / 2));
        bytes.extend(tail);
        bytes
    })
}

fn sample_query() -> Vec<u8> {
    bytes(&query("www.ok.test", RecordType::A))
}

fn sample_answer() -> Vec<u8> {
    let query = query("ok.test", RecordType::A);
    let records = vec![
        alias("ok.test", "b.test"),
        address("b.test", 60, "203.0.113.7"),
    ];
    bytes(&answer(&query, records))
}

proptest! {
    #[test]
    fn reading_a_query_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&bytes)?;
    }

    #[test]
    fn reading_a_changed_query_never_panics(bytes in mutated(sample_query())) {
        check(&bytes)?;
    }

    #[test]
    fn following_a_changed_answer_never_panics(bytes in mutated(sample_answer())) {
        let name = DomainName::parse("ok.test").expect("a name");
        if let Ok(message) = Message::from_vec(&bytes)
            && let Ok(super::super::chain::Learned::Records(chain)) =
                follow(&name, RecordType::A, &message)
        {
            prop_assert!(!chain.records.is_empty());
            prop_assert!(chain.records.iter().all(|r| r.record_type() == RecordType::A));
        }
    }
}

/// What is accepted has a canonical name; what is refused repeats the id.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    match question::read(bytes) {
        Ok(question) => {
            let again = DomainName::parse(question.name.as_str());
            prop_assert_eq!(again.as_ref(), Ok(&question.name));
        }
        Err(Unusable::Bad { envelope, code, .. }) => {
            prop_assert_eq!(Some(&envelope.id.to_be_bytes()), bytes.first_chunk());
            prop_assert_ne!(code, ResponseCode::NoError);
        }
        Err(Unusable::Silent) => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
    }
    Ok(())
}

#[test]
fn sixty_five_thousand_announced_questions_cost_nothing() {
    let mut bytes = sample_query();
    bytes[4..6].copy_from_slice(&[0xff, 0xff]);
    let read = question::read(&bytes);
    assert!(matches!(
        read,
        Err(Unusable::Bad {
            code: ResponseCode::FormErr,
            ..
        })
    ));
}

#[tokio::test]
async fn garbage_on_the_wire_leaves_the_resolver_working() {
    let upstream = Upstream::saying(vec![address("ok.test", 60, "203.0.113.7")]).await;
    let world = World::new(&upstream).await;
    let client = world.client(1).await;
    let valid = sample_query();
    for length in 0..valid.len() {
        client.send(&valid[..length]).await.expect("sent");
    }
    // An answer instead of a query gets no answer, or two resolvers could play
    // ping-pong for ever.
    client.send(&sample_answer()).await.expect("sent");
    world.watch_nobody();
    let answer = world.ask("ok.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let counts = world.running.counters().read();
    assert!(counts.malformed > 12, "{counts:?}");
}
