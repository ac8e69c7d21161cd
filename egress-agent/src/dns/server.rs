//! The resolver as something that runs.

use super::admission::Admission;
use super::backlog::{Backlog, Queue};
use super::begun::Begun;
use super::cache::Cache;
use super::coalesce::InFlight;
use super::counters::Counters;
use super::desk::{Bounds, Desks};
use super::endpoint::Endpoint;
use super::gate::Gate;
use super::hosts::Hosts;
use super::listen::{self, BindError, Ports, Sockets};
use super::lookups::Lookups;
use super::places;
use super::reactor::Reactor;
use super::renewal::{self, Renewal};
use super::resolver::Resolver;
use super::stream;
use super::upstream::{Patience, Strategy, Upstreams};
use super::worker::Worker;
use egress_common::{Protocol, SandboxId};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// After an error of `recv` or `accept`, so that a lasting one does not spin.
pub(super) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);
/// How often it is recorded what was answered without a record of its own.
const SWEEP: Duration = Duration::from_secs(10);

/// How the resolver runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who is asked.
    pub upstreams: Vec<Endpoint>,
    /// In which order.
    pub strategy: Strategy,
    /// Whether plain questions are put in random letter case (0x20).
    pub mixed_case: bool,
    /// Names that nobody is asked for.
    pub hosts: Hosts,
    /// How long after its time an answer may be told when no upstream answers;
    /// zero never.
    pub serve_stale: Duration,
    /// Whether names that are asked for shortly before their time is over are asked
    /// for anew.
    pub prefetch: bool,
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
    /// Threads that read datagrams, for each address family.
    pub workers: usize,
    /// Answers of one sandbox that are kept ready to be given again.
    pub ready_per_sandbox: usize,
    /// The same of all sandboxes; one takes some 350 bytes.
    pub ready: usize,
    /// Queries of one sandbox per second that get a record each; further ones
    /// are counted in one record by outcome and reason.
    pub records_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            strategy: Strategy::Order,
            mixed_case: false,
            hosts: Hosts::default(),
            serve_stale: Duration::ZERO,
            prefetch: true,
            attempt_timeout: Duration::from_millis(1500),
            deadline: Duration::from_millis(4500),
            cached_answers: 16_384,
            exchanges: 1024,
            queries_per_sandbox: 256,
            queries: 16_384,
            connections_per_sandbox: 32,
            connections: 1024,
            idle_timeout: Duration::from_secs(10),
            workers: std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
            ready_per_sandbox: 4096,
            ready: 262_144,
            records_per_second: 500,
        }
    }
}

/// A resolver that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    v4: Sockets,
    v6: Option<Sockets>,
    config: Config,
    lookups: Arc<Lookups>,
}

/// What every task of a running resolver shares.
pub(super) struct Shared<G: Gate> {
    pub(super) resolver: Resolver<G>,
    pub(super) queries: Arc<Admission>,
    pub(super) connections: Arc<Admission>,
    pub(super) backlog: Backlog,
    pub(super) idle_timeout: Duration,
}

impl<G: Gate> Shared<G> {
    /// Who asks: whose the socket is where only one sandbox reaches it, else whom
    /// the kernel saw.
    pub(super) fn asker(
        &self,
        only: Option<SandboxId>,
        from: SocketAddr,
        protocol: Protocol,
    ) -> Option<SandboxId> {
        only.or_else(|| self.resolver.gate.asker(from, protocol))
    }
}

/// A resolver that answers. Dropping it stops it at once.
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    workers: Workers,
    /// Ends last, so that what was counted until then is recorded.
    finish: watch::Sender<bool>,
    sweeper: JoinSet<()>,
    counters: Arc<Counters>,
    renewals: mpsc::Sender<Renewal>,
    serve: Serve,
}

/// The threads that read datagrams.
#[derive(Debug)]
struct Workers {
    stop: Arc<AtomicBool>,
    sockets: Vec<Arc<UdpSocket>>,
    threads: Vec<JoinHandle<()>>,
    /// What they have begun.
    begun: Arc<Begun>,
}

impl Workers {
    /// None yet. What they begin goes on in the runtime of the caller.
    fn none() -> Self {
        Self {
            stop: Arc::default(),
            sockets: Vec::new(),
            threads: Vec::new(),
            begun: Arc::new(Begun::new(Handle::current())),
        }
    }

    /// Starts the threads of one socket.
    fn start<G: Gate>(
        &mut self,
        count: usize,
        (queue, udp): (Queue, UdpSocket),
        shared: &Arc<Shared<G>>,
    ) {
        let socket = Arc::new(udp);
        for _ in 0..count.max(1) {
            let reactor = match Reactor::new(&*socket) {
                Ok(reactor) => Arc::new(reactor),
                Err(error) => {
                    tracing::error!(%error, "a thread of the resolver cannot wait");
                    continue;
                }
            };
            let worker = Worker {
                shared: Arc::clone(shared),
                socket: Arc::clone(&socket),
                queue,
                stop: Arc::clone(&self.stop),
                begun: Arc::clone(&self.begun),
                runtime: Handle::current(),
            };
            let thread = std::thread::Builder::new().name("resolver".into());
            match thread.spawn(move || worker.run(&reactor)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => tracing::error!(%error, "a thread of the resolver cannot be started"),
            }
        }
        self.sockets.push(socket);
    }

    /// Wakes the threads to their end.
    fn tell_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
        for socket in &self.sockets {
            // An unconnected socket says ENOTCONN, and wakes its readers all the same.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Read);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.begun.end();
        self.tell_to_stop();
    }
}
/// Answers on further sockets until told to stop; those that only one sandbox can
/// reach, for that one.
pub(super) type Serve = Arc<
    dyn Fn(tokio::net::UdpSocket, TcpListener, Option<SandboxId>, watch::Receiver<bool>)
        + Send
        + Sync,
>;

impl Server {
    /// Binds UDP and TCP on `127.0.0.1` and `::1`; a wanted port of 0 lets the
    /// kernel choose. Without IPv6 on the host it goes on with IPv4 alone and
    /// says so.
    pub async fn bind(wanted: Ports, config: Config) -> Result<Self, BindError> {
        let counters = Arc::new(Counters::default());
        let patience = Patience {
            attempt: config.attempt_timeout,
            total: config.deadline,
        };
        let upstreams = Upstreams::new(
            &config.upstreams,
            (config.strategy, config.mixed_case),
            patience,
            config.exchanges,
            Arc::clone(&counters),
        )?;
        let lookups = Arc::new(Lookups {
            hosts: config.hosts.clone(),
            cache: Cache::new(config.cached_answers, config.serve_stale),
            in_flight: InFlight::default(),
            upstreams,
            prefetch: config.prefetch,
            counters,
        });
        let v4 = listen::v4(wanted.v4).await?;
        let v6 = listen::v6(wanted.v6).await?;
        if v6.is_none() {
            tracing::warn!("the host has no IPv6 loopback; the resolver answers on 127.0.0.1 only");
        }
        Ok(Self {
            v4,
            v6,
            config,
            lookups,
        })
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
        let Self {
            v4,
            v6,
            config,
            lookups,
        } = self;
        let counters = Arc::clone(&lookups.counters);
        let shared = Arc::new(Shared {
            resolver: Resolver {
                gate,
                desks: Desks::new(Bounds {
                    per_sandbox: config.ready_per_sandbox,
                    total: config.ready,
                    records_per_second: config.records_per_second,
                }),
                lookups,
                counters: counters.clone(),
            },
            queries: Admission::new(config.queries_per_sandbox, config.queries),
            connections: Admission::new(config.connections_per_sandbox, config.connections),
            backlog: Backlog::default(),
            idle_timeout: config.idle_timeout,
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut workers = Workers::none();
        let (finish, finished) = watch::channel(false);
        let mut sweeper = JoinSet::new();
        sweeper.spawn(sweep(shared.clone(), finished));
        let (renewals, wanted) = mpsc::channel(renewal::WAITING);
        tasks.spawn(renewal::renewals(shared.clone(), wanted, stopped.clone()));
        let both = [(Queue::V4, Some(v4)), (Queue::V6, v6)];
        for (queue, sockets) in both {
            let Some(Sockets { udp, tcp, port: _ }) = sockets else {
                continue;
            };
            workers.start(config.workers, (queue, udp), &shared);
            tasks.spawn(stream::connections(
                shared.clone(),
                tcp,
                None,
                stopped.clone(),
            ));
        }
        let serve: Serve = Arc::new(move |udp, tcp, only, stopped| {
            let (shared, udp) = (Arc::clone(&shared), Arc::new(udp));
            let stop = stopped.clone();
            tokio::spawn(places::datagrams(Arc::clone(&shared), udp, only, stop));
            tokio::spawn(stream::connections(shared, tcp, only, stopped));
        });
        Running {
            stop,
            tasks,
            workers,
            finish,
            sweeper,
            counters,
            renewals,
            serve,
        }
    }
}

impl Running {
    /// The running totals.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Where names are named whose grants are to be renewed.
    pub fn renewals(&self) -> mpsc::Sender<Renewal> {
        self.renewals.clone()
    }

    /// What opens further places where this resolver answers.
    pub fn places(&self) -> super::Places {
        super::Places::new(self.serve.clone())
    }

    /// Takes nothing new, lets what is under way end, and says whether all of it
    /// did within `patience`.
    pub async fn stop(mut self, patience: Duration) -> bool {
        self.stop.send_replace(true);
        self.workers.tell_to_stop();
        let threads = std::mem::take(&mut self.workers.threads);
        let all = async {
            for thread in threads {
                // One that panicked has said so itself.
                let _ = tokio::task::spawn_blocking(|| thread.join()).await;
            }
            self.workers.begun.ended().await;
            while self.tasks.join_next().await.is_some() {}
            self.finish.send_replace(true);
            while self.sweeper.join_next().await.is_some() {}
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

/// Records what was counted, from time to time and at the end.
async fn sweep<G: Gate>(shared: Arc<Shared<G>>, mut stopped: watch::Receiver<bool>) {
    loop {
        let pause = tokio::time::timeout(SWEEP, stopped.wait_for(|stop| *stop));
        let is_over = pause.await.is_ok();
        shared.resolver.sweep();
        // Once in a while in any case: a count that had gone round to where a
        // sandbox saw it last would keep that one waiting.
        if shared.backlog.is_empty() {
            shared.resolver.gate.drained();
        }
        if is_over {
            return;
        }
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
