//! What policy refuses, and how that looks.

use super::upstream::{Upstream, address};
use super::world::{World, addresses, bare_query, extended_error, query};
use egress_common::{Mode, Outcome, Reason};
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

async fn upstream() -> Upstream {
    Upstream::saying(vec![address("ok.test", 300, "203.0.113.7")]).await
}

#[tokio::test]
async fn a_name_that_is_not_allowed_is_never_forwarded_in_any_type() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    for number in [
        1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 64, 65, 252, 255, 257, 65_280,
    ] {
        let answer = world
            .ask("secret.other.test", RecordType::from(number))
            .await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{number}"
        );
        assert!(answer.answers.is_empty());
        let (code, text) = extended_error(&answer).expect("an explanation");
        assert_eq!(code, 18);
        assert!(text.contains("no rule allows the name"), "{text}");
        assert!(text.contains("- domain: secret.other.test"), "{text}");
    }
    assert_eq!(upstream.asked(), 0);
    let record = world.record();
    assert_eq!(record.outcome, Some(Outcome::Denied));
    assert_eq!(record.reason, Some(Reason::NameNotAllowed));
    assert_eq!(record.hook, Some("resolver"));
    assert_eq!(record.name.as_deref(), Some("secret.other.test"));
    assert_eq!(
        record.process,
        Some(1001),
        "who asked, as the kernel noted it"
    );
}

#[tokio::test]
async fn a_refusal_may_be_remembered_for_the_negative_ttl() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let answer = world.send(&bare_query("a.other.test", RecordType::A)).await;
    assert!(answer.edns.is_none(), "only to clients that sent one");
    let soa = answer.authorities.first().expect("a SOA");
    assert_eq!(soa.ttl, 60);
    assert_eq!(soa.name.to_ascii(), "other.test.");
    assert!(matches!(&soa.data, RData::SOA(soa) if soa.minimum == 60));
}

#[tokio::test]
async fn a_blocked_name_is_blocked_under_an_allowed_one() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let answer = world.ask("x.bad.ok.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(extended_error(&answer).expect("an explanation").0, 15);
    assert_eq!(upstream.asked(), 0);
    let rule = world.record().rule.expect("the line that blocks it");
    assert_eq!(rule.to_string(), "policy.yaml:7");
}

#[tokio::test]
async fn a_type_that_is_not_allowed_gets_no_data_so_that_clients_go_on() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    for query_type in [
        RecordType::SRV,
        RecordType::TXT,
        RecordType::NS,
        RecordType::SOA,
    ] {
        let answer = world.ask("_http._tcp.ok.test", query_type).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities.len(), 1);
        assert_eq!(extended_error(&answer).expect("an explanation").0, 17);
        assert_eq!(world.record().reason, Some(Reason::QueryType));
    }
    for query_type in [RecordType::ANY, RecordType::AXFR, RecordType::IXFR] {
        let answer = world.ask("ok.test", query_type).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn reverse_zones_are_names_like_others() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let refused = world.ask("7.100.51.11.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::NoError);
    assert_eq!(upstream.asked(), 0);
    world.policy(|policy| {
        policy.types.insert(RecordType::PTR.into());
    });
    let allowed = world.ask("7.100.51.11.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(allowed.metadata.response_code, ResponseCode::NoError);
    assert_eq!(upstream.asked(), 1);
    let v6 = world
        .ask("1.0.8.b.d.0.1.0.0.2.ip6.arpa", RecordType::PTR)
        .await;
    assert_eq!(v6.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn what_is_no_name_is_refused_and_never_forwarded() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let cases: [&[&[u8]]; 5] = [
        &[b"ok\0", b"test"],
        &[b"evil.ok", b"test"],
        &[b"a%2eok", b"ok", b"test"],
        &[b"\xff\xfe", b"ok", b"test"],
        &[b"203", b"0", b"113", b"7"],
    ];
    for labels in cases {
        let mut message = query("ok.test", RecordType::A);
        let name = Name::from_labels(labels.iter().copied()).expect("labels");
        message.queries = vec![Query::query(name, RecordType::A)];
        let answer = world.send(&message).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{labels:?}"
        );
        assert_eq!(world.record().reason, Some(Reason::NameInvalid));
    }
    let root = world.ask("", RecordType::NS).await;
    assert_eq!(
        root.metadata.response_code,
        ResponseCode::Refused,
        "NXDOMAIN would deny all"
    );
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn only_plain_questions_are_served() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;

    let mut other_class = query("ok.test", RecordType::A);
    other_class.queries[0].query_class = DNSClass::CH;
    let answer = world.send(&other_class).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);

    let mut update = query("ok.test", RecordType::A);
    update.metadata.op_code = OpCode::Status;
    let answer = world.send(&update).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);

    let mut two = query("ok.test", RecordType::A);
    two.add_query(Query::query(
        Name::from_ascii("b.ok.test.").expect("a name"),
        RecordType::A,
    ));
    let answer = world.send(&two).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);

    let mut later = query("ok.test", RecordType::A);
    later.edns.as_mut().expect("edns").set_version(1);
    let answer = world.send(&later).await;
    // BADVERS and BADSIG share the number.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn a_stranger_is_refused_counted_and_recorded() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let message = query("ok.test", RecordType::A).to_vec().expect("encodes");
    stranger
        .send_to(&message, world.address())
        .await
        .expect("sent");
    let mut buffer = [0; 512];
    let length = stranger.recv(&mut buffer).await.expect("an answer");
    let answer = Message::from_vec(&buffer[..length]).expect("a message");
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert_eq!(extended_error(&answer).expect("an explanation").0, 18);
    assert_eq!(world.running.counters().read().unknown_asker, 1);
    let record = world.record();
    assert_eq!(record.reason, Some(Reason::UnknownAsker));
    assert_eq!(
        record.port,
        Some(stranger.local_addr().expect("bound").port())
    );
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn loopback_names_are_answered_here() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    assert_eq!(
        addresses(&world.ask("localhost", RecordType::A).await),
        ["127.0.0.1"]
    );
    assert_eq!(
        addresses(&world.ask("x.localhost", RecordType::AAAA).await),
        ["::1"]
    );
    let other = world.ask("localhost", RecordType::HTTPS).await;
    assert_eq!(other.metadata.response_code, ResponseCode::NoError);
    assert!(other.answers.is_empty());
    assert_eq!(upstream.asked(), 0);
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn shadow_mode_resolves_and_records_what_it_would_have_refused() {
    let upstream = Upstream::saying(vec![
        address("other.example", 300, "203.0.113.9"),
        address("other.example", 300, "10.0.0.5"),
    ])
    .await;
    let world = World::new(&upstream).await;
    world.policy(|policy| policy.limits.mode = Mode::Shadow);
    let answer = world.ask("other.example", RecordType::A).await;
    assert_eq!(addresses(&answer), ["203.0.113.9", "10.0.0.5"]);
    let record = world.record();
    assert_eq!(record.outcome, Some(Outcome::WouldDeny));
    assert_eq!(record.reason, Some(Reason::Rebinding));
    let opened = world.opened();
    assert_eq!(opened[0].addresses.len(), 1, "observing opens nothing more");
}
