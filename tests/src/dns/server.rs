//! The server: UDP and TCP on the given addresses, port 53.

use super::manner::Manner;
use super::wire::{Data, NOERROR, NXDOMAIN, Query, Record, kind, soa};
use crate::Namespace;
use crate::servers::{Threads, accepting, hearing};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// How a query came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// A query that the server got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The name, lower case.
    pub name: String,
    /// The record type.
    pub kind: u16,
    /// How it came.
    pub transport: Transport,
    /// The address of the server that was asked.
    pub server: IpAddr,
}

/// A DNS server that knows what the test told it, and NXDOMAIN for the rest.
#[derive(Debug)]
pub struct DnsServer {
    shared: Arc<Mutex<Shared>>,
    _threads: Threads,
}

#[derive(Debug, Default)]
struct Shared {
    records: BTreeMap<(String, u16), Vec<Record>>,
    below: Vec<(String, Vec<IpAddr>)>,
    manners: BTreeMap<String, Manner>,
    negative: Option<(String, u32)>,
    asked: Vec<Asked>,
}

impl DnsServer {
    /// Starts it in `namespace`.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> io::Result<Self> {
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let mut threads = Threads::default();
        for &server in addresses {
            let address = SocketAddr::new(server, 53);
            let state = Arc::clone(&shared);
            hearing(
                &mut threads,
                namespace,
                address,
                move |socket, peer, datagram| {
                    hear(&state, (socket, peer), datagram, server);
                },
            )?;
            let state = Arc::clone(&shared);
            accepting(&mut threads, namespace, address, move |stream| {
                // The client decides when the stream ends.
                let _ = serve_stream(&state, stream, server);
            })?;
        }
        Ok(Self {
            shared,
            _threads: threads,
        })
    }

    /// Answers queries for the addresses of `name` with `addresses`.
    pub fn resolve(&self, name: &str, addresses: &[IpAddr]) {
        for (kind, is_this) in [
            (kind::A, IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            (kind::AAAA, IpAddr::is_ipv6),
        ] {
            let records = addresses
                .iter()
                .filter(|address| is_this(address))
                .map(|&address| Record {
                    owner: name.into(),
                    ttl: 60,
                    data: Data::Address(address),
                });
            self.answer(name, kind, records.collect());
        }
    }

    /// Answers queries for the IPv4 addresses of every name below `suffix` with
    /// one of these, each in turn: `n7` gets the eighth.
    pub fn resolve_below(&self, suffix: &str, addresses: &[IpAddr]) {
        let below = (format!(".{suffix}"), addresses.to_vec());
        lock(&self.shared).below.push(below);
    }

    /// Answers queries of type `kind` for `name` with exactly these records.
    pub fn answer(&self, name: &str, kind: u16, records: Vec<Record>) {
        lock(&self.shared)
            .records
            .insert((name.into(), kind), records);
    }

    /// Answers for `name` in this manner from now on.
    pub fn behave(&self, name: &str, manner: Manner) {
        lock(&self.shared).manners.insert(name.into(), manner);
    }

    /// Says in negative answers, from now on, that they are good for so long, in the
    /// name of this zone.
    pub fn say_how_long(&self, zone: &str, ttl: u32) {
        lock(&self.shared).negative = Some((zone.into(), ttl));
    }

    /// Everything that was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared).asked.clone()
    }

    /// Says whether `name` was ever asked for, by any type and transport.
    pub fn heard_of(&self, name: &str) -> bool {
        self.times_asked(name) > 0
    }

    /// How often `name` was asked for, by any type and transport.
    pub fn times_asked(&self, name: &str) -> usize {
        let shared = lock(&self.shared);
        shared
            .asked
            .iter()
            .filter(|asked| asked.name == name)
            .count()
    }
}

impl Shared {
    /// The address of a name below a suffix, by the number in the name.
    fn numbered(&self, name: &str) -> Option<IpAddr> {
        let (label, addresses) = self
            .below
            .iter()
            .find_map(|(suffix, addresses)| Some((name.strip_suffix(suffix)?, addresses)))?;
        let number: usize = label.trim_start_matches('n').parse().ok()?;
        addresses.get(number % addresses.len()).copied()
    }
}

/// The answer, and in which manner it is given.
fn answer(
    shared: &Mutex<Shared>,
    query: &Query,
    transport: Transport,
    server: IpAddr,
) -> (Vec<u8>, Manner) {
    let mut shared = lock(shared);
    shared.asked.push(Asked {
        name: query.name.clone(),
        kind: query.kind,
        transport,
        server,
    });
    let manner = shared.manners.get(&query.name).copied().unwrap_or_default();
    if let Some(address) = shared.numbered(&query.name) {
        let record = Record {
            owner: query.name.clone(),
            ttl: 60,
            data: Data::Address(address),
        };
        let records = if query.kind == kind::A {
            &[record][..]
        } else {
            &[]
        };
        return (query.answer(NOERROR, false, records), manner);
    }
    let records = shared.records.get(&(query.name.clone(), query.kind));
    let known = shared.records.keys().any(|(name, _)| *name == query.name);
    let code = if known { NOERROR } else { NXDOMAIN };
    let records = records.map_or(&[][..], Vec::as_slice);
    let authority: Vec<Record> = match &shared.negative {
        Some((zone, ttl)) if records.is_empty() => vec![soa(zone, *ttl)],
        _ => Vec::new(),
    };
    (query.answer_with(code, false, records, &authority), manner)
}

fn hear(
    shared: &Mutex<Shared>,
    (socket, peer): (&UdpSocket, SocketAddr),
    bytes: &[u8],
    server: IpAddr,
) {
    let Some(query) = Query::decode(bytes) else {
        return;
    };
    let (answer, manner) = answer(shared, &query, Transport::Udp, server);
    // What cannot be sent is the client's to miss.
    let _ = manner.send(&query, answer, socket, peer);
}

fn serve_stream(shared: &Mutex<Shared>, mut stream: TcpStream, server: IpAddr) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(query) = Query::decode(&query) else {
            return Ok(());
        };
        let (answer, manner) = answer(shared, &query, Transport::Tcp, server);
        manner.write(answer, &mut stream)?;
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
