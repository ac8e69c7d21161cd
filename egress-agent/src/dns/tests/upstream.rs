//! An upstream resolver that says what a test wants.

use crate::dns::name::wire;
use crate::model::DomainName;
use egress_common::Protocol;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// What to send back for a query; several datagrams, or none.
type Script = dyn Fn(&Message, Protocol) -> Vec<Vec<u8>> + Send + Sync;

pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    pub(super) seen: Arc<Mutex<Vec<Message>>>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn new(
        script: impl Fn(&Message, Protocol) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let script: Arc<Script> = Arc::new(script);
        let (udp, tcp) = both().await;
        let address = udp.local_addr().expect("bound");
        let asked = Arc::new(AtomicUsize::new(0));
        let seen: Arc<Mutex<Vec<Message>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let answer = {
            let (asked, seen) = (asked.clone(), seen.clone());
            move |bytes: &[u8], protocol| {
                asked.fetch_add(1, Ordering::Relaxed);
                let query = Message::from_vec(bytes).expect("a query");
                seen.lock().expect("lock").push(query.clone());
                script(&query, protocol)
            }
        };
        let over_udp = answer.clone();
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                for reply in over_udp(&buffer[..length], Protocol::Udp) {
                    udp.send_to(&reply, from).await.expect("sent");
                }
            }
        });
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.expect("a length");
                let mut bytes = vec![0; usize::from(length)];
                stream.read_exact(&mut bytes).await.expect("a query");
                for reply in answer(&bytes, Protocol::Tcp) {
                    stream.write_u16(reply.len() as u16).await.expect("sent");
                    stream.write_all(&reply).await.expect("sent");
                }
            }
        });
        Self {
            address,
            asked,
            seen,
            _tasks: tasks,
        }
    }

    /// Answers every query with these records.
    pub(super) async fn saying(records: Vec<Record>) -> Self {
        Self::new(move |query, _| vec![bytes(&answer(query, records.clone()))]).await
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// UDP and TCP on one port, which another test may have for TCP already.
async fn both() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = udp.local_addr().expect("bound");
        if let Ok(tcp) = TcpListener::bind(address).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

pub(super) fn answer(query: &Message, records: Vec<Record>) -> Message {
    let mut message = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    message.metadata.recursion_available = true;
    message.add_queries(query.queries.clone());
    message.answers = records;
    message
}

pub(super) fn code(query: &Message, code: ResponseCode) -> Message {
    let mut message = answer(query, Vec::new());
    message.metadata.response_code = code;
    message
}

pub(super) fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("encodes")
}

pub(super) fn name(text: &str) -> Name {
    wire(&DomainName::parse(text).expect("a name")).expect("wire")
}

pub(super) fn address(owner: &str, ttl: u32, ip: &str) -> Record {
    let data = match ip.parse().expect("an address") {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(name(owner), ttl, data)
}

pub(super) fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::CNAME(CNAME(name(target))))
}

/// The name and type of the only question.
pub(super) fn question(query: &Message) -> (String, RecordType) {
    let question = query.queries.first().expect("a question");
    (question.name.to_ascii(), question.query_type)
}
