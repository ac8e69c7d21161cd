//! The agent: what joins the parts. Its order of start is the order of its
//! promises: enforcement is in force before anything else can happen.

use super::book::{Book, Generation, Member};
use super::config::Config;
use super::emergency::{Button, StateFile};
use super::error::AgentError;
use super::lifecycle::Upkeep;
use super::losses::LastReadings;
use super::recording::Recording;
use super::runtime::Runtime;
use super::source::Source;
use super::supervisor;
use crate::alerts::Delivery;
use crate::audit::{Options as StoreOptions, Store};
use crate::dns::{self, BindError, Endpoint, Hosts, Ports, Running, Server};
use crate::enforcer::{Enforcer, Place, Started};
use crate::grants::Adopted;
use crate::image::Image;
use crate::policy::PolicySet;
use crate::policy::render::{Colour, diagnostics_text};
use crate::sandbox::{GovernedRoot, Hierarchy};
use crate::telemetry::metrics::Metrics;
use egress_common::Sandbox;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// How long what is left in a sandbox has to die.
pub(super) const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A running agent.
pub struct Agent {
    config: Config,
    root: GovernedRoot,
    upkeep: Upkeep,
    enforcer: Enforcer,
    book: Mutex<Book>,
    pub(super) generation: Generation,
    runtime: Mutex<Runtime>,
    source: Mutex<Source>,
    store: Store,
    recording: Recording,
    delivery: OnceLock<Delivery>,
    upstreams: Vec<Endpoint>,
    hosts: Hosts,
    resolver: OnceLock<ResolverState>,
    since: Timestamp,
    stop: tokio::sync::watch::Sender<bool>,
    findings: Mutex<Vec<String>>,
    last_readings: Mutex<LastReadings>,
    emergency: Mutex<Button>,
    /// Whether the off switch was used. Held while programs are put back or
    /// taken out, so that the one never undoes the other.
    disarmed: Mutex<bool>,
    links: super::links::Links,
    revoked: super::connections::Revoked,
}

/// What is told of the running resolver.
struct ResolverState {
    ports: Ports,
    /// Why it is not where the last one was.
    moved: Option<String>,
    counters: Arc<dns::Counters>,
    renewals: Sender<dns::Renewal>,
    places: dns::Places,
}

/// The resolver of a started agent; it stops when this is dropped.
pub struct Services {
    pub(super) resolver: Running,
}

impl Agent {
    /// Starts: locks, reads the policies, puts enforcement in force, takes over
    /// what an earlier agent left, and opens the resolver last.
    ///
    /// What fails before enforcement leaves the machine as it was; what fails
    /// after leaves it as strict as the maps are.
    pub async fn start(config: Config) -> Result<(Arc<Self>, Services), AgentError> {
        let now = Timestamp::now();
        let runtime = Runtime::open(&config.runtime_directory)?;
        let mut source = Source::open(&config).map_err(AgentError::Policy)?;
        let loaded = source.read_at_start(now).map_err(AgentError::Policy)?;
        if !loaded.warnings.is_empty() {
            let warnings = diagnostics_text(&loaded.warnings, Colour::No);
            tracing::warn!("\n{}", warnings.trim_end());
        }
        let upstreams = upstreams(&config)?;
        let hosts = config.dns.all_hosts().map_err(AgentError::Hosts)?;
        let audit = config.state_directory.join("audit.db");
        let options = StoreOptions {
            decisions: Some(config.runtime_directory.join("decisions")),
            ..config.audit.options()?
        };
        let opening = Store::open_with(&audit, options);
        let store = supervisor::patiently(opening).await?;
        let hierarchy = Hierarchy::find()?;
        let root = GovernedRoot::ensure(&hierarchy, &config.root)?;
        let upkeep = Upkeep::new(&hierarchy, &root).map_err(AgentError::Watch)?;
        let place = Place {
            path: root.path().to_owned(),
            cgroup: root.id(),
            level: root.level(),
        };
        let emergency = StateFile::within(&config.state_directory);
        let stopped = emergency.read().is_some();
        let enforcer = match Enforcer::start(place, config.events_per_second, stopped) {
            Ok(enforcer) => enforcer,
            Err(error) => {
                if root.was_made() {
                    // Nothing is in it; what is told is why the start failed.
                    let _ = root.remove();
                }
                return Err(error.into());
            }
        };

        enforcer.limit_queries(config.dns.queries_per_second)?;
        enforcer.count_bytes(config.count_bytes)?;
        let image = enforcer.image()?;
        let book = Book::new(&image);
        let sandbox_labels = config.metrics.as_ref().and_then(|it| it.sandbox_labels);
        let metrics = Arc::new(Metrics::new(sandbox_labels));
        let recording = Recording::new(store.recorder(), metrics);
        let agent = Arc::new(Self {
            config,
            root,
            upkeep,
            enforcer,
            generation: book.generation(),
            book: Mutex::new(book),
            runtime: Mutex::new(runtime),
            source: Mutex::new(source),
            store,
            recording,
            delivery: OnceLock::new(),
            upstreams,
            hosts,
            resolver: OnceLock::new(),
            since: now,
            stop: tokio::sync::watch::channel(false).0,
            findings: Mutex::new(Vec::new()),
            last_readings: Mutex::new(Vec::new()),
            emergency: Mutex::new(Button::new(emergency)),
            disarmed: Mutex::new(false),
            links: super::links::Links::default(),
            revoked: super::connections::Revoked::default(),
        });
        agent.take_over(&image, loaded.policies.clone(), now)?;
        agent.note_policies_at_start(&loaded, now);
        // Policies may have changed while no agent ran.
        if let Err(error) = agent.end_revoked() {
            tracing::warn!(%error, "connections that lost their rule were not ended at once");
        }
        agent.look_after_emergency();
        let services = agent.open_resolver().await?;
        tokio::task::block_in_place(|| agent.adopt_interfaces());
        agent.tell(format!(
            "agent {} started: {}",
            env!("CARGO_PKG_VERSION"),
            agent.started_in_words()
        ));
        Ok((agent, services))
    }

    /// Reads what an earlier agent knew, and brings policies into force over it.
    fn take_over(
        &self,
        image: &Image,
        policies: PolicySet,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        let mut book = self.book();
        let mut runtime = self.runtime();
        let names = runtime.names()?;
        let blocked = runtime.blocked();
        for member in runtime.sandboxes()? {
            let is_blocked = blocked.contains(&member.id);
            if member.link.is_some() || self.is_alive(&member, &image.sandboxes, is_blocked) {
                if is_blocked {
                    book.set_blocked(member.id, true);
                }
                book.adopt(member);
            } else {
                runtime.forget(&member.name)?;
            }
        }
        // Numbers of sandboxes that are gone may be given again.
        runtime.remember_blocked(book.blocked())?;
        let adopted = image.grants.iter().map(|(key, grant)| Adopted {
            key: *key,
            grant: *grant,
            name: names.get(&grant.name).cloned(),
        });
        book.ledger_mut().adopt(adopted);
        let in_use: std::collections::BTreeSet<_> =
            image.grants.values().map(|grant| grant.name).collect();
        runtime.rewrite_names(
            names
                .iter()
                .filter(|(id, _)| in_use.contains(id))
                .map(|(id, name)| (*id, name)),
        )?;
        drop(runtime);
        // Sandboxes that nobody knows any more go out of the kernel here, and
        // with them their grants: `load` asks every one of them again.
        let changes = book.load(policies, now)?;
        self.carry_out(&mut book, &changes)?;
        drop(book);
        self.resume_limits();
        Ok(())
    }

    /// Whether a sandbox of an earlier agent is the one that the kernel knows:
    /// a cgroup that was removed and made again under its name is not. A blocked
    /// one is unknown to the kernel; then the cgroup alone tells.
    fn is_alive(
        &self,
        member: &Member,
        in_force: &std::collections::BTreeMap<egress_common::CgroupId, Sandbox>,
        is_blocked: bool,
    ) -> bool {
        in_force
            .get(&member.cgroup)
            .map_or(is_blocked, |sandbox| sandbox.id == member.id)
            && self
                .cgroup_of(member)
                .is_ok_and(|cgroup| cgroup.id() == member.cgroup)
    }

    /// Opens the resolver where the last one was, so that redirected sockets
    /// find it again; elsewhere if somebody has taken that port since.
    async fn open_resolver(self: &Arc<Self>) -> Result<Services, AgentError> {
        let (v4, v6) = self.enforcer.resolver()?;
        let config = || {
            let (own, standard) = (&self.config.dns, dns::Config::default());
            dns::Config {
                upstreams: self.upstreams.clone(),
                hosts: self.hosts.clone(),
                strategy: own.strategy,
                mixed_case: own.mixed_case,
                attempt_timeout: own.attempt_timeout,
                deadline: own.deadline,
                cached_answers: own.cached_answers,
                prefetch: own.prefetch,
                serve_stale: own.serve_stale,
                workers: own.workers.unwrap_or(standard.workers),
                ..standard
            }
        };
        let wanted = Ports {
            v4: v4.unwrap_or(0),
            v6: v6.unwrap_or(0),
        };
        let (server, taken) = match Server::bind(wanted, config()).await {
            Err(taken @ BindError::Occupied { .. }) if wanted.v4 != 0 || wanted.v6 != 0 => {
                let elsewhere = Server::bind(Ports { v4: 0, v6: 0 }, config()).await?;
                (elsewhere, Some(taken))
            }
            other => (other?, None),
        };
        let ports = server.ports();
        let moved = taken.map(|taken| {
            format!(
                "the resolver moved to port {}, since the earlier one is taken: {taken}; \
                 sockets that had asked there already get no more answers",
                ports.v4
            )
        });
        if let Some(moved) = &moved {
            self.tell(moved.clone());
        }
        let some = |port: u16| Some(port).filter(|port| *port != 0);
        {
            let mut book = self.book();
            let settings = self.enforcer.set_resolver(some(ports.v4), some(ports.v6))?;
            book.note_settings(settings);
        }
        let resolver = server.serve(Arc::clone(self));
        let counters = Arc::clone(resolver.counters());
        let renewals = resolver.renewals();
        // There is one start, so nobody has set it before.
        let _ = self.resolver.set(ResolverState {
            ports,
            moved,
            counters,
            renewals,
            places: resolver.places(),
        });
        Ok(Services { resolver })
    }

    /// The book. A panic elsewhere cannot have left it half changed for longer
    /// than until the next change, which is planned from what the kernel holds.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn runtime(&self) -> MutexGuard<'_, Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn enforcer(&self) -> &Enforcer {
        &self.enforcer
    }

    pub(super) const fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    pub(super) const fn root(&self) -> &GovernedRoot {
        &self.root
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn recorder(&self) -> Recording {
        self.recording.clone()
    }

    pub(super) fn set_delivery(&self, delivery: Delivery) {
        // There is one watcher.
        let _ = self.delivery.set(delivery);
    }

    pub(super) fn delivery(&self) -> Option<&Delivery> {
        self.delivery.get()
    }

    pub(super) const fn since(&self) -> Timestamp {
        self.since
    }

    pub(super) fn upstreams(&self) -> &[Endpoint] {
        &self.upstreams
    }

    pub(super) fn resolver(&self) -> Option<(Ports, dns::Counts)> {
        self.resolver
            .get()
            .map(|state| (state.ports, state.counters.read()))
    }

    pub(super) fn renewals(&self) -> Option<&Sender<dns::Renewal>> {
        self.resolver.get().map(|state| &state.renewals)
    }

    pub(super) fn resolver_latency(&self) -> Option<(f64, Vec<(f64, u64)>)> {
        self.resolver
            .get()
            .map(|state| state.counters.latency().read())
    }

    /// Where the running resolver can answer besides.
    pub(super) fn places(&self) -> Option<&dns::Places> {
        self.resolver.get().map(|state| &state.places)
    }

    /// Where the running resolver listens on the host's loopback device.
    pub(super) fn resolver_ports(&self) -> Option<Ports> {
        self.resolver.get().map(|state| state.ports)
    }

    pub(super) const fn revoked(&self) -> &super::connections::Revoked {
        &self.revoked
    }

    pub(super) const fn links(&self) -> &super::links::Links {
        &self.links
    }

    pub(super) fn started_in_words(&self) -> String {
        match self.enforcer.started() {
            Started::Fresh => "enforcement was not in force before".into(),
            Started::TookOver {
                replaced: 0,
                added: 0,
            } => "took over the programs and maps in force, unchanged".into(),
            Started::TookOver { replaced, added } => {
                format!("took over the maps in force, replaced {replaced} programs, added {added}")
            }
        }
    }

    /// What somebody should look at.
    pub(super) fn warnings(&self) -> Vec<String> {
        let moved = self.resolver.get().and_then(|state| state.moved.clone());
        let mut warnings: Vec<String> = moved.into_iter().collect();
        warnings.extend(self.source().warnings().cloned());
        warnings.extend(self.findings().iter().cloned());
        warnings
    }

    /// What the last look at the attachments found.
    pub(super) fn findings(&self) -> MutexGuard<'_, Vec<String>> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The emergency button. Held while it is pressed or released.
    pub(super) fn emergency(&self) -> MutexGuard<'_, Button> {
        self.emergency
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disarmed(&self) -> MutexGuard<'_, bool> {
        self.disarmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the last reading of a sandbox's loss counter, which is about to go.
    pub(super) fn note_last_reading(&self, member: &Member) {
        let meters = self.enforcer.meters().unwrap_or_default();
        if let Some((_, meter)) = meters
            .into_iter()
            .find(|(cgroup, _)| *cgroup == member.cgroup)
        {
            let mut readings = self
                .last_readings
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            readings.push((member.id, meter.lost));
        }
    }

    pub(super) fn take_last_readings(&self) -> LastReadings {
        std::mem::take(
            &mut self
                .last_readings
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Ends the agent's loops; enforcement stays.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.upkeep.watch.wake();
    }

    /// Whether the agent is to end.
    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves when the agent is to end.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives in the agent, which the caller holds.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Writes what waits and closes the audit store.
    pub async fn close(self: Arc<Self>, services: Services, patience: Duration) {
        if !services.resolver.stop(patience).await {
            tracing::warn!("queries were still under way when the resolver stopped");
        }
        if let Err(error) = self.recorder().flush(patience).await {
            tracing::error!(%error, "records were lost at the end");
        }
        if let Some(agent) = Arc::into_inner(self)
            && let Err(error) = agent.store.close(patience).await
        {
            tracing::error!(%error, "the audit store did not close in time");
        }
    }
}

/// The configured upstreams, and the host's where none of them is for all names.
fn upstreams(config: &Config) -> Result<Vec<Endpoint>, AgentError> {
    let listed = config.upstreams.iter().copied().map(Endpoint::from);
    let mut found: Vec<Endpoint> = listed.chain(config.dns.upstreams.iter().cloned()).collect();
    if !found.iter().any(|upstream| upstream.domains.is_empty()) {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        found.extend(dns::host_upstreams(&text).into_iter().map(Endpoint::from));
    }
    if found.is_empty() {
        return Err(AgentError::NoUpstream);
    }
    for upstream in &found {
        upstream.check().map_err(|error| AgentError::Upstream {
            upstream: upstream.to_string(),
            error,
        })?;
    }
    Ok(found)
}
