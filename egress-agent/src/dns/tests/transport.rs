//! Datagrams, streams, sizes and bounds.

use super::upstream::{Upstream, address, answer, bytes, question};
use super::world::{World, addresses, bare_query, config, query};
use crate::dns::{Config, Ports, Server};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

async fn upstream() -> Upstream {
    Upstream::new(|query, _| {
        let (name, query_type) = question(query);
        let owner = name.trim_end_matches('.');
        let ip = match query_type {
            RecordType::AAAA => "2001:db8::7",
            _ => "203.0.113.7",
        };
        vec![bytes(&answer(query, vec![address(owner, 60, ip)]))]
    })
    .await
}

/// A TCP connection that the gate takes for sandbox 1's.
async fn connect(world: &World) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bound");
    world.place(socket.local_addr().expect("bound").port(), 1);
    socket.connect(world.address()).await.expect("connected")
}

fn frame(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().expect("encodes");
    let mut frame = (bytes.len() as u16).to_be_bytes().to_vec();
    frame.extend(bytes);
    frame
}

async fn read(stream: &mut TcpStream) -> Option<Message> {
    let length = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(Message::from_vec(&bytes).expect("a message"))
}

#[tokio::test]
async fn several_queries_in_one_stream_are_all_answered() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let mut stream = connect(&world).await;
    // As glibc does with `use-vc`: A and AAAA without waiting, here cut in odd places.
    let queries = [
        query("ok.test", RecordType::A),
        query("ok.test", RecordType::AAAA),
        query("other.test", RecordType::A),
    ];
    let all: Vec<u8> = queries.iter().flat_map(frame).collect();
    for piece in all.chunks(9) {
        stream.write_all(piece).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut ids = BTreeSet::new();
    for _ in &queries {
        let answer = read(&mut stream).await.expect("an answer");
        let query = queries.iter().find(|q| q.metadata.id == answer.metadata.id);
        assert_eq!(query.expect("a known id").queries, answer.queries);
        ids.insert(answer.metadata.id);
    }
    assert_eq!(ids.len(), 3);
    assert_eq!(world.record().protocol.as_deref(), Some("tcp"));
}

#[tokio::test]
async fn a_half_closed_stream_still_gets_its_answers() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let mut stream = connect(&world).await;
    stream
        .write_all(&frame(&query("ok.test", RecordType::A)))
        .await
        .expect("sent");
    stream.shutdown().await.expect("half closed");
    assert!(read(&mut stream).await.is_some());
    assert!(read(&mut stream).await.is_none(), "and then the end");
}

#[tokio::test]
async fn a_stream_that_changes_hands_is_closed() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let mut stream = connect(&world).await;
    let port = stream.local_addr().expect("bound").port();
    stream
        .write_all(&frame(&query("ok.test", RecordType::A)))
        .await
        .expect("sent");
    assert!(read(&mut stream).await.is_some());
    world.place(port, 2);
    stream
        .write_all(&frame(&query("ok.test", RecordType::A)))
        .await
        .expect("sent");
    assert!(read(&mut stream).await.is_none());

    let mut nobody = connect(&world).await;
    world.displace(nobody.local_addr().expect("bound").port());
    nobody
        .write_all(&frame(&query("ok.test", RecordType::A)))
        .await
        .expect("sent");
    assert!(read(&mut nobody).await.is_none());
    assert_eq!(world.running.counters().read().unknown_asker, 2);
}

#[tokio::test]
async fn silent_streams_end_and_connections_are_bounded() {
    let upstream = upstream().await;
    let world = World::with(Config {
        connections_per_sandbox: 2,
        idle_timeout: Duration::from_millis(150),
        ..config(&[&upstream])
    })
    .await;
    let mut held = [connect(&world).await, connect(&world).await];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = connect(&world).await;
    assert!(read(&mut third).await.is_none(), "closed at the bound");
    assert_eq!(world.running.counters().read().overloaded, 1);
    // Half a message does not hold a connection longer than silence does.
    held[0].write_all(&[0, 40, 1]).await.expect("sent");
    for stream in &mut held {
        let end = tokio::time::timeout(Duration::from_secs(2), read(stream)).await;
        assert!(end.expect("it ends").is_none());
    }
    let mut next = connect(&world).await;
    next.write_all(&frame(&query("ok.test", RecordType::A)))
        .await
        .expect("sent");
    assert!(read(&mut next).await.is_some(), "room again");
}

#[tokio::test]
async fn one_sandbox_at_its_bound_leaves_others_alone() {
    let upstream = Upstream::new(|query, _| match question(query).0.as_str() {
        "slow.ok.test." => Vec::new(),
        _ => vec![bytes(&answer(
            query,
            vec![address("ok.test", 60, "203.0.113.7")],
        ))],
    })
    .await;
    let world = World::with(Config {
        queries_per_sandbox: 2,
        ..config(&[&upstream])
    })
    .await;
    let greedy = world.client(1).await;
    for _ in 0..10 {
        let slow = query("slow.ok.test", RecordType::A)
            .to_vec()
            .expect("encodes");
        greedy.send(&slow).await.expect("sent");
    }
    let other = world.client(2).await;
    let fast = query("ok.test", RecordType::A).to_vec().expect("encodes");
    other.send(&fast).await.expect("sent");
    let mut buffer = [0; 512];
    let received = tokio::time::timeout(Duration::from_millis(500), other.recv(&mut buffer)).await;
    assert!(received.is_ok(), "the other one is served meanwhile");
    assert_eq!(world.running.counters().read().overloaded, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_from_many_sandboxes_is_answered_at_the_first_try() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    let mut clients = Vec::new();
    for n in 0..300 {
        clients.push(world.client(1 + n % 20).await);
    }
    // An early answer to one of several clients is not early for the others.
    world.watch_nobody();
    for (n, client) in clients.iter().enumerate() {
        let name = format!("n{}.ok.test", n % 100);
        let message = bytes(&query(&name, RecordType::A));
        client.send(&message).await.expect("sent");
    }
    let mut answered = 0;
    for client in &clients {
        let mut buffer = [0; 512];
        let received = tokio::time::timeout(Duration::from_secs(3), client.recv(&mut buffer)).await;
        let length = received.expect("in time").expect("received");
        let answer = Message::from_vec(&buffer[..length]).expect("a message");
        answered += addresses(&answer).len();
    }
    assert_eq!(answered, 300);
    assert_eq!(world.opened().len(), 300, "one grant per answer");
    assert!(upstream.asked() <= 100, "each name was asked for once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_told_when_everything_that_waited_was_read() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    world.watch_nobody();
    let client = world.client(1).await;
    let told = || {
        world
            .gate
            .drained
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    // Whole batches, after which it has to look again by itself.
    for burst in [1, 32, 64, 200] {
        let before = told();
        for _ in 0..burst {
            let message = bytes(&query("refused.test", RecordType::A));
            client.send(&message).await.expect("sent");
        }
        let mut buffer = [0; 512];
        for _ in 0..burst {
            let answer = tokio::time::timeout(Duration::from_secs(3), client.recv(&mut buffer));
            answer.await.expect("in time").expect("received");
        }
        // The look after the last batch may come after its answers.
        let deadline = std::time::Instant::now() + Duration::from_secs(3);
        while told() == before {
            assert!(
                std::time::Instant::now() < deadline,
                "{burst}: nobody was told"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn answers_that_do_not_fit_are_truncated_for_udp_and_whole_over_tcp() {
    let many = || -> Vec<Record> {
        (1..=60)
            .map(|n| address("ok.test", 60, &format!("2001:db8::{n:x}")))
            .collect()
    };
    let upstream = Upstream::new(move |query, _| vec![bytes(&answer(query, many()))]).await;
    let world = World::new(&upstream).await;
    world.policy(|policy| policy.limits.max_addresses = 60);
    let message = query("ok.test", RecordType::AAAA);
    let short = world.send(&message).await;
    assert!(short.metadata.truncation && short.answers.is_empty());
    let mut stream = connect(&world).await;
    stream.write_all(&frame(&message)).await.expect("sent");
    let whole = read(&mut stream).await.expect("an answer");
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole).len(), 60);
}

#[tokio::test]
async fn a_client_without_edns_gets_at_most_512_bytes() {
    let many = || -> Vec<Record> {
        (1..=40)
            .map(|n| address("ok.test", 60, &format!("203.0.113.{n}")))
            .collect()
    };
    let upstream = Upstream::new(move |query, _| vec![bytes(&answer(query, many()))]).await;
    let world = World::new(&upstream).await;
    world.policy(|policy| policy.limits.max_addresses = 40);
    let bare = world.send(&bare_query("ok.test", RecordType::A)).await;
    assert!(bare.metadata.truncation && bare.edns.is_none());
    let modern = world.send(&query("ok.test", RecordType::A)).await;
    assert!(!modern.metadata.truncation, "under 700 bytes fit into 1232");
    assert_eq!(addresses(&modern).len(), 40);
}

#[tokio::test]
async fn ipv6_clients_are_served_where_the_host_has_ipv6() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    if world.ports.v6 == 0 {
        // Nothing to show on a host without ::1; that it goes on is what `new` showed.
        assert_ne!(world.ports.v4, 0);
        return;
    }
    let client = UdpSocket::bind("[::1]:0").await.expect("bound");
    world.place(client.local_addr().expect("bound").port(), 1);
    let message = query("ok.test", RecordType::AAAA)
        .to_vec()
        .expect("encodes");
    client
        .send_to(&message, ("::1", world.ports.v6))
        .await
        .expect("sent");
    let mut buffer = [0; 512];
    let (length, from) = client.recv_from(&mut buffer).await.expect("an answer");
    assert_eq!(from.port(), world.ports.v6);
    let answer = Message::from_vec(&buffer[..length]).expect("a message");
    assert_eq!(addresses(&answer), ["2001:db8::7"]);
}

#[tokio::test]
async fn stopping_lets_what_is_under_way_end_and_frees_the_ports() {
    let upstream = upstream().await;
    let world = World::new(&upstream).await;
    assert_eq!(
        world
            .ask("ok.test", RecordType::A)
            .await
            .metadata
            .response_code,
        ResponseCode::NoError
    );
    let ports = world.ports;
    assert!(world.running.stop(Duration::from_secs(2)).await);
    let again = Server::bind(ports, Config::default()).await;
    assert_eq!(again.expect("the ports are free").ports(), ports);
    let taken = Server::bind(Ports::default(), Config::default())
        .await
        .expect("bound");
    let error = Server::bind(taken.ports(), Config::default())
        .await
        .expect_err("taken");
    assert!(
        error.to_string().contains("in use by another program"),
        "{error}"
    );
}

/// A query that is on its way to an upstream, and whoever sent it.
async fn under_way(world: &World, upstream: &Upstream) -> Arc<UdpSocket> {
    let client = world.client(1).await;
    let message = query("ok.test", RecordType::A).to_vec().expect("encodes");
    client.send(&message).await.expect("sent");
    while upstream.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_waits_for_an_upstream_that_thinks() {
    let upstream = Upstream::new(|query, _| {
        std::thread::sleep(Duration::from_millis(300));
        vec![bytes(&answer(
            query,
            vec![address("ok.test", 60, "203.0.113.7")],
        ))]
    })
    .await;
    let world = World::new(&upstream).await;
    let client = under_way(&world, &upstream).await;
    assert!(world.running.stop(Duration::from_secs(10)).await);
    let mut buffer = [0; 512];
    let received = tokio::time::timeout(Duration::from_secs(1), client.recv(&mut buffer));
    let length = received
        .await
        .expect("it was answered before")
        .expect("received");
    let answer = Message::from_vec(&buffer[..length]).expect("a message");
    assert_eq!(addresses(&answer), ["203.0.113.7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_gives_up_on_an_upstream_that_is_silent() {
    let upstream = Upstream::new(|_, _| Vec::new()).await;
    let world = World::with(Config {
        attempt_timeout: Duration::from_secs(60),
        deadline: Duration::from_secs(60),
        ..config(&[&upstream])
    })
    .await;
    let ports = world.ports;
    let _client = under_way(&world, &upstream).await;
    assert!(!world.running.stop(Duration::from_millis(100)).await);
    // The threads that read have the ports.
    for _ in 0..500 {
        if Server::bind(ports, Config::default()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a thread waits for an answer that nobody wants");
}
