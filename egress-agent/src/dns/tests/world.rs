//! A resolver between a scripted policy and its clients.

use super::upstream::Upstream;
use crate::dns::{
    Below, Config, Gate, Judgement, Limits, OpenError, Opening, Ports, Refusal, Running, Server,
    Sieve, Sources, Standing,
};
use crate::model::{DomainName, NameLimits, Record, RuleOrigin};
use egress_common::{Mode, Protocol, Reason, SandboxId};
use hickory_proto::op::{Edns, Message, OpCode, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use rustix::net::RecvFlags;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Longer than any deadline of a test's resolver.
const GIVE_UP: Duration = Duration::from_secs(8);

/// What the gate was told to open.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Granted {
    pub(super) sandbox: SandboxId,
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: u64,
    pub(super) answer_ttl: u64,
}

/// Made by [`FakeGate::open`] only; says for how many more answers it is good.
pub(super) struct Receipt(bool);

impl Standing for Receipt {
    fn covers(&self, _: u64, _: Duration) -> bool {
        self.0
    }
}

/// What the scripted policy refused when it was asked for.
#[derive(Clone)]
pub(super) struct Scripted(Policy);

impl Sieve for Scripted {
    fn refuses(&self, name: &str) -> Option<Reason> {
        let name = DomainName::parse(name).expect("canonical");
        Some(self.refusal(&name)?.reason)
    }

    fn refusal(&self, name: &DomainName) -> Option<Refusal> {
        self.0.judge(name).err()
    }

    fn negative_ttl(&self) -> Duration {
        self.0.limits.negative_cache_ttl
    }
}

/// A policy made of sets.
#[derive(Clone)]
pub(super) struct Policy {
    /// Names with everything below them.
    pub(super) allowed: BTreeSet<DomainName>,
    pub(super) blocked: BTreeSet<DomainName>,
    pub(super) types: BTreeSet<u16>,
    pub(super) limits: Limits,
    pub(super) map_full: bool,
    /// Whether a grant covers further answers.
    pub(super) grants_last: bool,
    pub(super) generation: u64,
    pub(super) is_stopped: bool,
    /// What is chosen by the client in every allowed name.
    pub(super) below: Option<Below>,
    pub(super) view: Option<Arc<str>>,
    pub(super) hosts: HashMap<DomainName, Vec<IpAddr>>,
}

impl Policy {
    fn judge(&self, name: &DomainName) -> Result<(), Refusal> {
        if self.is_stopped {
            return Err(Refusal {
                reason: Reason::Emergency,
                rule: None,
                help: None,
            });
        }
        let within = |set: &BTreeSet<DomainName>| set.iter().any(|own| name.is_within(own));
        if within(&self.blocked) {
            return Err(Refusal {
                reason: Reason::NameBlocked,
                rule: Some(origin("blocklist")),
                help: None,
            });
        }
        if within(&self.allowed) {
            return Ok(());
        }
        Err(Refusal {
            reason: Reason::NameNotAllowed,
            rule: None,
            help: Some(format!("add `- domain: {name}`")),
        })
    }
}

pub(super) struct FakeGate {
    began: Instant,
    pub(super) policy: Mutex<Policy>,
    /// Source port → sandbox; who is not listed is nobody.
    askers: Mutex<HashMap<u16, SandboxId>>,
    /// Sockets that must not have received anything when something is opened.
    watched: Mutex<Vec<Arc<UdpSocket>>>,
    /// How often everything was read.
    pub(super) drained: AtomicU64,
    pub(super) opened: Mutex<Vec<Granted>>,
    /// Whether all sandboxes have ended.
    pub(super) are_over: AtomicBool,
    /// Decisions that were counted.
    pub(super) noted: AtomicU64,
    pub(super) records: Mutex<Vec<Record>>,
}

fn origin(text: &str) -> RuleOrigin {
    RuleOrigin {
        file: Arc::new("policy.yaml".into()),
        line: 7,
        text: text.into(),
    }
}

impl Gate for FakeGate {
    type Receipt = Receipt;
    type Permit = DomainName;
    type Sieve = Scripted;

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a short test")
    }

    fn generation(&self) -> u64 {
        self.policy.lock().expect("lock").generation
    }

    fn drained(&self) {
        self.drained.fetch_add(1, Ordering::Relaxed);
    }

    fn sender(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId> {
        self.asker(from, protocol)
    }

    fn asker(&self, from: SocketAddr, _: Protocol) -> Option<SandboxId> {
        self.askers.lock().expect("lock").get(&from.port()).copied()
    }

    fn process(&self, from: SocketAddr, protocol: Protocol) -> Option<u32> {
        // As good as any that belongs to the asker.
        self.asker(from, protocol).map(|sandbox| 1000 + sandbox.0)
    }

    fn sieve(&self, _: SandboxId) -> Option<Scripted> {
        let policy = self.policy.lock().expect("lock");
        (policy.limits.mode == Mode::Enforce).then(|| Scripted(policy.clone()))
    }

    fn in_emergency(&self) -> bool {
        self.policy.lock().expect("lock").is_stopped
    }

    fn judge(&self, _: SandboxId, name: &DomainName) -> Judgement<DomainName> {
        let policy = self.policy.lock().expect("lock");
        let refusal = match policy.judge(name) {
            Ok(()) => {
                return Judgement::Allow {
                    permit: name.clone(),
                    rule: Some(origin("domain")),
                    below: policy.below,
                };
            }
            Err(refusal) => refusal,
        };
        match policy.limits.mode {
            Mode::Enforce => Judgement::Refuse(refusal),
            Mode::Shadow => Judgement::Shadow {
                permit: name.clone(),
                refusal,
            },
        }
    }

    fn screen(&self, _: SandboxId, _: &DomainName, address: IpAddr) -> Result<(), Reason> {
        match address {
            IpAddr::V4(v4) if v4.is_private() || v4.is_loopback() => Err(Reason::Rebinding),
            IpAddr::V6(v6) if v6.is_loopback() => Err(Reason::Rebinding),
            _ => Ok(()),
        }
    }

    fn sources(&self, _: SandboxId, name: &DomainName) -> Sources {
        let policy = self.policy.lock().expect("lock");
        Sources {
            view: policy.view.clone(),
            addresses: policy.hosts.get(name).cloned(),
        }
    }

    fn query_type_allowed(&self, _: SandboxId, query_type: u16) -> bool {
        self.policy
            .lock()
            .expect("lock")
            .types
            .contains(&query_type)
    }

    fn limits(&self, _: SandboxId) -> Limits {
        self.policy.lock().expect("lock").limits
    }

    fn open(
        &self,
        sandbox: SandboxId,
        permit: &DomainName,
        opening: Opening<'_>,
    ) -> Result<Receipt, OpenError> {
        assert_eq!(permit, opening.name, "the permit is for the asked name");
        for socket in &*self.watched.lock().expect("lock") {
            let mut byte = [0; 1];
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let received = rustix::net::recv(socket, &mut byte, flags);
            assert!(
                received.is_err(),
                "the answer was sent before the map was written"
            );
        }
        if self.policy.lock().expect("lock").map_full {
            let detail = "the map is full".to_owned();
            return Err(OpenError {
                reason: Reason::GrantFailed,
                detail,
            });
        }
        self.opened.lock().expect("lock").push(Granted {
            sandbox,
            name: opening.name.to_string(),
            addresses: opening.addresses.to_vec(),
            ttl: opening.ttl.as_secs(),
            answer_ttl: opening.answer_ttl.as_secs(),
        });
        Ok(Receipt(self.policy.lock().expect("lock").grants_last))
    }

    fn has_policy(&self, _: SandboxId) -> bool {
        !self.are_over.load(Ordering::SeqCst)
    }

    fn note(&self, decisions: u64) {
        self.noted.fetch_add(decisions, Ordering::SeqCst);
    }

    fn record_noted(&self, record: Record) {
        self.records.lock().expect("lock").push(record);
    }
}

pub(super) struct World {
    pub(super) gate: Arc<FakeGate>,
    pub(super) running: Running,
    pub(super) ports: Ports,
}

pub(super) fn config(upstreams: &[&Upstream]) -> Config {
    Config {
        upstreams: upstreams
            .iter()
            .map(|upstream| upstream.address.into())
            .collect(),
        attempt_timeout: Duration::from_millis(300),
        deadline: Duration::from_millis(1500),
        ..Config::default()
    }
}

impl World {
    pub(super) async fn new(upstream: &Upstream) -> Self {
        Self::with(config(&[upstream])).await
    }

    pub(super) async fn with(config: Config) -> Self {
        let names = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| DomainName::parse(t).expect("a name"))
                .collect()
        };
        let gate = Arc::new(FakeGate {
            began: Instant::now(),
            policy: Mutex::new(Policy {
                allowed: names(&["ok.test", "in-addr.arpa"]),
                blocked: names(&["bad.test", "bad.ok.test"]),
                types: [
                    RecordType::A,
                    RecordType::AAAA,
                    RecordType::CNAME,
                    RecordType::HTTPS,
                ]
                .map(u16::from)
                .into(),
                limits: Limits {
                    mode: Mode::Enforce,
                    cache_ttl: Duration::from_secs(300),
                    negative_cache_ttl: Duration::from_secs(60),
                    max_addresses: 4,
                    names: NameLimits::default(),
                    rules_until: None,
                },
                map_full: false,
                grants_last: false,
                generation: 1,
                is_stopped: false,
                below: None,
                view: None,
                hosts: HashMap::new(),
            }),
            askers: Mutex::default(),
            watched: Mutex::default(),
            drained: AtomicU64::new(0),
            opened: Mutex::default(),
            are_over: AtomicBool::default(),
            noted: AtomicU64::default(),
            records: Mutex::default(),
        });
        let server = Server::bind(Ports::default(), config).await.expect("bound");
        let ports = server.ports();
        let running = server.serve(gate.clone());
        Self {
            gate,
            running,
            ports,
        }
    }

    pub(super) fn policy(&self, change: impl FnOnce(&mut Policy)) {
        let mut policy = self.gate.policy.lock().expect("lock");
        change(&mut policy);
        // As the book does: whatever may be refused now was not found out before.
        policy.generation += 1;
    }

    /// Where the resolver listens on IPv4.
    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.v4).into()
    }

    /// Says that whoever sends from this port is in a sandbox.
    pub(super) fn place(&self, port: u16, sandbox: u32) {
        self.gate
            .askers
            .lock()
            .expect("lock")
            .insert(port, SandboxId(sandbox));
    }

    pub(super) fn displace(&self, port: u16) {
        self.gate.askers.lock().expect("lock").remove(&port);
    }

    /// A UDP client in a sandbox, watched for answers that come too early.
    pub(super) async fn client(&self, sandbox: u32) -> Arc<UdpSocket> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("bound"));
        socket.connect(self.address()).await.expect("connected");
        self.place(socket.local_addr().expect("bound").port(), sandbox);
        self.gate.watched.lock().expect("lock").push(socket.clone());
        socket
    }

    /// Lifts the watch on early answers.
    pub(super) fn watch_nobody(&self) {
        self.gate.watched.lock().expect("lock").clear();
    }

    /// Sends bytes from sandbox 1 and reads one answer.
    pub(super) async fn exchange(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let client = self.client(1).await;
        client.send(bytes).await.expect("sent");
        let mut buffer = [0; 4096];
        let received = timeout(GIVE_UP, client.recv(&mut buffer)).await;
        self.watch_nobody();
        Some(buffer[..received.ok()?.expect("received")].to_vec())
    }

    pub(super) async fn send(&self, message: &Message) -> Message {
        let bytes = self.exchange(&message.to_vec().expect("encodes")).await;
        let answer = Message::from_vec(&bytes.expect("an answer")).expect("a message");
        assert_eq!(answer.metadata.id, message.metadata.id);
        answer
    }

    pub(super) async fn ask(&self, name: &str, query_type: RecordType) -> Message {
        self.send(&query(name, query_type)).await
    }

    pub(super) fn opened(&self) -> Vec<Granted> {
        self.gate.opened.lock().expect("lock").clone()
    }

    /// The record of what was decided last. An answer may be there before its record, and the
    /// record of the next answer before that.
    pub(super) fn record(&self) -> Record {
        let begun = Instant::now();
        loop {
            let records = self.gate.records.lock().expect("lock");
            let decisions: u64 = records.iter().map(|record| record.count.max(1)).sum();
            if decisions == self.gate.noted.load(Ordering::SeqCst) {
                let latest = records.iter().max_by_key(|record| record.time);
                return latest.expect("a record").clone();
            }
            drop(records);
            assert!(begun.elapsed() < Duration::from_secs(10), "no record came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A query as `dig` sends it.
pub(super) fn query(name: &str, query_type: RecordType) -> Message {
    let mut message = bare_query(name, query_type);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    message
}

/// A query as an old libc sends it.
pub(super) fn bare_query(name: &str, query_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Query;
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{name}.")).expect("a name");
    message.add_query(Query::query(name, query_type));
    message
}

/// The extended error: its code and its text.
pub(super) fn extended_error(message: &Message) -> Option<(u16, String)> {
    match message.edns.as_ref()?.option(EdnsCode::Unknown(15))? {
        EdnsOption::Unknown(_, data) => {
            let code = u16::from_be_bytes([*data.first()?, *data.get(1)?]);
            Some((code, String::from_utf8(data[2..].to_vec()).expect("text")))
        }
        _ => None,
    }
}

/// The addresses in the answer section.
pub(super) fn addresses(message: &Message) -> Vec<String> {
    let found = message
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr());
    found.map(|address| address.to_string()).collect()
}
