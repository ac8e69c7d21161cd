//! The resolver as something that runs.

use super::admission::Admission;
use super::cache::Cache;
use super::coalesce::InFlight;
use super::counters::{Counters, count};
use super::gate::Gate;
use super::listen::{self, BindError, Ports, Sockets};
use super::resolver::Resolver;
use super::stream;
use super::trace::Asked;
use super::upstream::{Patience, Upstreams};
use egress_common::Protocol;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// After an error of `recv` or `accept`, so that a lasting one does not spin.
pub(super) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);
/// No query is longer; what is cut off does not parse.
const RECEIVE: usize = 4096;

/// How the resolver runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Asked in this order.
    pub upstreams: Vec<SocketAddr>,
    /// How long one upstream may think.
    pub attempt_timeout: Duration,
    /// How long all of them may. Below the 5 s after which glibc gives up, so
    /// that the client hears why.
    pub deadline: Duration,
    /// Upstream answers that are remembered.
    pub cached_answers: usize,
    /// Queries to upstreams at once, each with one descriptor.
    pub exchanges: usize,
    /// Queries of one sandbox at once; further UDP queries are dropped and
    /// counted, and TCP queries get SERVFAIL.
    pub queries_per_sandbox: usize,
    /// Queries of all sandboxes at once.
    pub queries: usize,
    /// TCP connections of one sandbox; further ones are closed and counted.
    pub connections_per_sandbox: usize,
    /// TCP connections of all sandboxes, each with one descriptor.
    pub connections: usize,
    /// How long a TCP connection may stay silent.
    pub idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            attempt_timeout: Duration::from_millis(1500),
            deadline: Duration::from_millis(4500),
            cached_answers: 16_384,
            exchanges: 1024,
            queries_per_sandbox: 256,
            queries: 16_384,
            connections_per_sandbox: 32,
            connections: 1024,
            idle_timeout: Duration::from_secs(10),
        }
    }
}

/// A resolver that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    v4: Sockets,
    v6: Option<Sockets>,
    config: Config,
}

/// What every task of a running resolver shares.
pub(super) struct Shared<G> {
    pub(super) resolver: Resolver<G>,
    pub(super) queries: Arc<Admission>,
    pub(super) connections: Arc<Admission>,
    pub(super) idle_timeout: Duration,
}

/// A resolver that answers. Dropping it stops it at once.
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    counters: Arc<Counters>,
    serve: Serve,
}

/// Answers on further sockets until told to stop.
pub(super) type Serve = Arc<dyn Fn(Sockets, watch::Receiver<bool>) + Send + Sync>;

impl Server {
    /// Binds UDP and TCP on `127.0.0.1` and `::1`; a wanted port of 0 lets the
    /// kernel choose. Without IPv6 on the host it goes on with IPv4 alone and
    /// says so.
    pub async fn bind(wanted: Ports, config: Config) -> Result<Self, BindError> {
        let v4 = listen::v4(wanted.v4).await?;
        let v6 = listen::v6(wanted.v6).await?;
        if v6.is_none() {
            tracing::warn!("the host has no IPv6 loopback; the resolver answers on 127.0.0.1 only");
        }
        Ok(Self { v4, v6, config })
    }

    /// Where it listens. The kernel programs must know it before any sandbox asks.
    pub fn ports(&self) -> Ports {
        Ports {
            v4: self.v4.port,
            v6: self.v6.as_ref().map_or(0, |sockets| sockets.port),
        }
    }

    /// Begins to answer.
    pub fn serve<G: Gate>(self, gate: Arc<G>) -> Running {
        let Self { v4, v6, config } = self;
        let counters = Arc::new(Counters::default());
        let patience = Patience {
            attempt: config.attempt_timeout,
            total: config.deadline,
        };
        let shared = Arc::new(Shared {
            resolver: Resolver {
                gate,
                cache: Cache::new(config.cached_answers),
                in_flight: InFlight::default(),
                upstreams: Upstreams::new(
                    &config.upstreams,
                    patience,
                    config.exchanges,
                    counters.clone(),
                ),
                counters: counters.clone(),
            },
            queries: Admission::new(config.queries_per_sandbox, config.queries),
            connections: Admission::new(config.connections_per_sandbox, config.connections),
            idle_timeout: config.idle_timeout,
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for Sockets { udp, tcp, port: _ } in [Some(v4), v6].into_iter().flatten() {
            tasks.spawn(datagrams(shared.clone(), Arc::new(udp), stopped.clone()));
            tasks.spawn(stream::connections(shared.clone(), tcp, stopped.clone()));
        }
        let serve: Serve = Arc::new(move |Sockets { udp, tcp, port: _ }, stopped| {
            tokio::spawn(datagrams(shared.clone(), Arc::new(udp), stopped.clone()));
            tokio::spawn(stream::connections(shared.clone(), tcp, stopped));
        });
        Running {
            stop,
            tasks,
            counters,
            serve,
        }
    }
}

impl Running {
    /// The running totals.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What opens further places where this resolver answers.
    pub fn places(&self) -> super::Places {
        super::Places::new(self.serve.clone())
    }

    /// Takes nothing new, lets what is under way end, and says whether all of it
    /// did within `patience`.
    pub async fn stop(mut self, patience: Duration) -> bool {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

/// Reads datagrams until told to stop, and answers each in a task of its own.
async fn datagrams<G: Gate>(
    shared: Arc<Shared<G>>,
    socket: Arc<UdpSocket>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut buffer = [0; RECEIVE];
    loop {
        let received = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            received = socket.recv_from(&mut buffer) => received,
        };
        reap(&mut tasks);
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "the resolver cannot receive");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default().to_vec();
        let asked = Asked {
            from,
            protocol: Protocol::Udp,
            sandbox: shared.resolver.gate.asker(from, Protocol::Udp),
        };
        let Some(sandbox) = asked.sandbox else {
            // Refused without asking anybody, so it needs no task and no bound.
            datagram(&shared, &socket, asked, &bytes).await;
            continue;
        };
        let Some(pass) = shared.queries.enter(sandbox) else {
            count(&shared.resolver.counters.overloaded);
            continue;
        };
        let (shared, socket) = (shared.clone(), socket.clone());
        tasks.spawn(async move {
            let _pass = pass;
            datagram(&shared, &socket, asked, &bytes).await;
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn datagram<G: Gate>(shared: &Shared<G>, socket: &UdpSocket, asked: Asked, bytes: &[u8]) {
    if let Some(reply) = shared.resolver.answer(asked, bytes).await
        && let Err(error) = socket.send_to(&reply, asked.from).await
    {
        // The client has gone, or its socket is full: it will ask again.
        tracing::debug!(%error, "an answer could not be sent");
    }
}

/// Takes finished tasks out, so that their number stays that of the running ones.
pub(super) fn reap(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended {
            tracing::error!(%error, "a resolver task ended early");
        }
    }
}
