//! The servers that are compared, as their Debian packages run them, and the
//! authoritative server behind all of them.

use crate::Failure;
use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::process::Running;
use egress_tests::servers::{Threads, hearing};
use std::fmt::Write;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

/// Names that are asked over and over.
pub const HOT_NAMES: u32 = 2_000;
/// Addresses that they share.
const ADDRESSES: u32 = 250;
/// Below it, every name exists.
pub const ZONE: &str = "bench.example";
/// Below it, every name is refused.
pub const REFUSED: &str = "refused.example";
/// How long a server may take to answer its first query.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Server {
    /// The agent's resolver, as a sandbox reaches it.
    Egress,
    /// One thread, iterator only.
    Unbound,
    /// It has one thread only.
    Dnsmasq,
    /// With a packet cache.
    Dnsdist,
    /// Hands each datagram on and knows nothing: what anybody in between costs here. It is
    /// only asked cold names.
    Relay,
}

impl Server {
    pub const ALL: [Self; 5] = [
        Self::Egress,
        Self::Unbound,
        Self::Dnsmasq,
        Self::Dnsdist,
        Self::Relay,
    ];
    /// Those that know what they have been asked before.
    pub const RESOLVERS: [Self; 4] = [Self::Egress, Self::Unbound, Self::Dnsmasq, Self::Dnsdist];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
            Self::Dnsdist => "dnsdist",
            Self::Relay => "relay",
        }
    }

    /// Where a client finds it. A sandbox's query to any address at port 53
    /// comes to the agent.
    pub const fn address(self) -> (&'static str, u16) {
        match self {
            Self::Egress => ("192.0.2.53", 53),
            Self::Unbound => ("127.0.0.1", 5301),
            Self::Dnsmasq => ("127.0.0.1", 5302),
            Self::Dnsdist => ("127.0.0.1", 5303),
            Self::Relay => ("127.0.0.1", 5304),
        }
    }
}

/// A name that is asked over and over.
pub fn hot_name(number: u32) -> String {
    format!("h{number}.{ZONE}")
}

/// The policy under which every client runs, whichever server it asks. Two
/// thousand names at once are what the limits on names are there to stop.
pub fn policy() -> String {
    format!(
        "apiVersion: egress/v1\nname: bench\nallowlist:\n  bench:\n    \
         - {{ domain: \"*.{ZONE}\", protocols: [https] }}\n    \
         - {{ domain: localhost, ports: [5301-5304], protocols: [udp] }}\n\
         dns:\n  limits: {{ names: 1000000, bytes: 1000000, entropy: 1000000, \
         names_per_wildcard: 1000000, bytes_per_wildcard: 1000000, entropy_per_wildcard: 1000000 }}\n"
    )
}

/// The authoritative server and the peers, until this is dropped.
pub struct Servers {
    _authority: Running,
    peers: Vec<(Server, Running)>,
    _relay: Threads,
}

impl Servers {
    /// The process of a peer.
    pub fn pid(&self, server: Server) -> Option<u32> {
        let peer = self.peers.iter().find(|(peer, _)| *peer == server);
        peer.map(|(_, running)| running.pid())
    }
}

/// Seconds of processor that a process has had, with its threads that have ended.
pub fn processor(process: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything; the state is the first field there.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

/// Starts the authoritative server and the peers.
pub fn start(world: &World) -> Result<Servers, Failure> {
    let directory = world.fresh_directory();
    let authority = world
        .far
        .run(|| Running::start(&mut nsd(&directory)))
        .map_err(|error| Failure::new(format!("nsd: {error}")))?;
    let mut peers = Vec::new();
    await_answer(world, (&ALLOWED_V4.to_string(), 53))?;
    for server in Server::ALL {
        let Some(mut command) = peer(server, &directory) else {
            continue;
        };
        let started = world.near.run(|| Running::start(&mut command));
        let started = started.map_err(|e| Failure::new(format!("{}: {e}", server.name())))?;
        peers.push((server, started));
        await_answer(world, server.address())?;
    }
    let relay = relay(world).map_err(|error| Failure::new(format!("relay: {error}")))?;
    await_answer(world, Server::Relay.address())?;
    Ok(Servers {
        _authority: authority,
        peers,
        _relay: relay,
    })
}

/// One datagram after the other, each by a socket of its own, as a resolver's questions are.
fn relay(world: &World) -> io::Result<Threads> {
    let mut threads = Threads::default();
    let (address, port) = Server::Relay.address();
    let address = address.parse().map_err(io::Error::other)?;
    let at = SocketAddr::new(address, port);
    let patience = Duration::from_secs(2);
    hearing(
        &mut threads,
        &world.near,
        at,
        move |client, peer, question| match exchange((ALLOWED_V4, 53), question, patience) {
            // A client that is gone misses nothing.
            Ok(answer) => drop(client.send_to(&answer, peer)),
            Err(error) => eprintln!("relay: {error}"),
        },
    )?;
    Ok(threads)
}

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    // The directory was made for this run.
    if let Err(error) = fs::write(&path, text) {
        eprintln!("bench dns: {}: {error}", path.display());
    }
    path.display().to_string()
}

fn nsd(directory: &Path) -> Command {
    let mut zone = format!(
        "$ORIGIN {ZONE}.\n$TTL 3600\n@ SOA ns.{ZONE}. nobody.{ZONE}. 1 3600 600 86400 300\n\
         @ NS ns.{ZONE}.\nns A 203.0.113.10\n* A 203.0.113.251\n"
    );
    for number in 0..HOT_NAMES {
        // Writing into a string cannot fail.
        let _ = writeln!(zone, "h{number} A 203.0.113.{}", 1 + number % ADDRESSES);
    }
    let zone = file(directory, "bench.zone", &zone);
    let at = directory.display();
    let text = format!(
        "server:\n  ip-address: {ALLOWED_V4}@53\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{at}\"\n  \
         pidfile: \"{at}/nsd.pid\"\n  database: \"\"\n  zonelistfile: \"{at}/zone.list\"\n  \
         xfrdfile: \"{at}/xfrd.state\"\n  rrl-ratelimit: 0\n  server-count: 1\nremote-control:\n  \
         control-enable: no\nzone:\n  name: {ZONE}\n  zonefile: {zone}\n"
    );
    let mut command = Command::new("/usr/sbin/nsd");
    command.args(["-d", "-c", &file(directory, "nsd.conf", &text)]);
    command
}

fn peer(server: Server, directory: &Path) -> Option<Command> {
    let (address, port) = server.address();
    let mut command;
    match server {
        // Ours is started beside them, and the relay is a thread of this program.
        Server::Egress | Server::Relay => return None,
        Server::Unbound => {
            let text = format!(
                "server:\n  interface: {address}@{port}\n  num-threads: 1\n  do-daemonize: no\n  username: \"\"\n  \
                 chroot: \"\"\n  directory: \"{}\"\n  pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  \
                 module-config: \"iterator\"\n  do-not-query-localhost: no\n  \
                 local-zone: \"{REFUSED}.\" always_nxdomain\nremote-control:\n  control-enable: no\n\
                 forward-zone:\n  name: \".\"\n  forward-addr: {ALLOWED_V4}@53\n",
                directory.display()
            );
            command = Command::new("/usr/sbin/unbound");
            command.args(["-d", "-c", &file(directory, "unbound.conf", &text)]);
        }
        Server::Dnsmasq => {
            command = Command::new("/usr/sbin/dnsmasq");
            command.args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--bind-interfaces",
            ]);
            command.args([
                "--no-resolv",
                "--no-hosts",
                "--cache-size=10000",
                "--user=root",
            ]);
            command.args(["--pid-file=", "--dns-forward-max=1000"]);
            command.arg(format!("--listen-address={address}"));
            command.arg(format!("--port={port}"));
            command.arg(format!("--server={ALLOWED_V4}"));
            command.arg(format!("--address=/{REFUSED}/"));
        }
        Server::Dnsdist => {
            let text = format!(
                "setLocal(\"{address}:{port}\")\nnewServer({{address=\"{ALLOWED_V4}:53\", healthCheckMode=\"up\"}})\n\
                 getPool(\"\"):setCache(newPacketCache(100000))\n\
                 addAction(\"{REFUSED}.\", RCodeAction(DNSRCode.NXDOMAIN))\nsetSecurityPollSuffix(\"\")\n"
            );
            command = Command::new("/usr/bin/dnsdist");
            let configuration = file(directory, "dnsdist.conf", &text);
            command.args([
                "--supervised",
                "--disable-syslog",
                "--config",
                &configuration,
            ]);
        }
    }
    Some(command)
}

/// Asks until an answer comes.
fn await_answer(world: &World, (address, port): (&str, u16)) -> Result<(), Failure> {
    let query = query(&hot_name(0));
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let patience = Duration::from_millis(200);
        let answered = world
            .near
            .run(|| exchange((address, port), &query, patience));
        if answered.is_ok_and(|answer| answer.len() > query.len()) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Failure::new(format!("nobody answers at {address}:{port}")))
}

/// What a server says to a message, by a socket for nothing else.
fn exchange(server: impl ToSocketAddrs, message: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(server)?;
    socket.send(message)?;
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// A query for an IPv4 address.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
