//! What the control socket offers, carried out.

use super::agent::{Agent, KILL_DEADLINE};
use super::book::{BookError, Newcomer};
use super::error::AgentError;
use super::records::Pusher;
use super::usage::Used;
use crate::api::wire::{
    Created, Ended, Failure, FailureKind, Incident, NewSandbox, PolicyInForce, Reloaded, Sandbox,
    Status,
};
use crate::model::{Attribution, Relaxation, SandboxName};
use crate::policy::render::{Colour, diagnostics_text};
use crate::policy::{Policy, UserSetting};
use crate::sandbox::{CgroupError, SandboxCgroup};
use crate::telemetry::ids;
use egress_common::{Counter, Mode, Outcome};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The name of a mode, as policies write it.
pub(super) const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
    }
}

fn in_force(policy: &Policy) -> PolicyInForce {
    PolicyInForce {
        name: policy.name.clone(),
        file: policy.file.as_ref().clone(),
        digest: policy.digest.clone(),
        mode: mode_name(policy.mode).into(),
        relaxations: policy.relaxations.clone(),
    }
}

impl From<BookError> for Failure {
    fn from(error: BookError) -> Self {
        let kind = match &error {
            BookError::NameTaken(_) => FailureKind::Conflict,
            BookError::NoSuchSandbox(_) => FailureKind::NotFound,
            BookError::Budget(_) => FailureKind::Failed,
            BookError::TooManyServices(_) => FailureKind::BadConfiguration,
        };
        Self::new(kind, error)
    }
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error)
}

impl Agent {
    /// Makes a sandbox: cgroup, then book and kernel, then the record. Nothing
    /// runs in it before all of that is done.
    pub fn create_sandbox(&self, wanted: &NewSandbox) -> Result<Created, Failure> {
        let usage = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Usage, error);
        let attribution = attribution(wanted)?;
        let now = Timestamp::now();
        let mut book = self.book();
        let name = match &wanted.name {
            Some(name) => SandboxName::parse(name).map_err(|error| usage(&error))?,
            None => {
                unused_name(|name| book.by_name(name).is_some()).map_err(|error| usage(&error))?
            }
        };
        if book.by_name(name.as_str()).is_some() {
            return Err(BookError::NameTaken(name).into());
        }
        let policy = book
            .policies()
            .select(&name, wanted.policy.as_deref())
            .map_err(|error| Failure::new(FailureKind::NotFound, error))?;
        self.refuse_own_socket(&policy)?;
        let cgroup = SandboxCgroup::create(self.root(), &name).map_err(|error| match &error {
            CgroupError::Exists { .. } => Failure::new(FailureKind::Conflict, &error),
            _ => failed(&error),
        })?;
        let undo = |failure: Failure| {
            if let Err(error) = cgroup.remove(KILL_DEADLINE) {
                tracing::warn!(%error, "an unused sandbox cgroup stays behind");
            }
            failure
        };
        let left_out = self.limit_new(&cgroup, &policy).map_err(undo)?;
        let (member, changes) = book
            .begin(
                Newcomer {
                    name,
                    cgroup: cgroup.id(),
                    owner: wanted.owner,
                    left_out,
                    attribution,
                    foreign: None,
                    limits: policy.limits.clone(),
                    link: None,
                    own_network: wanted.own_network,
                },
                &policy,
                now,
            )
            .map_err(|error| undo(error.into()))?;
        self.put_in_force(&mut book, &member, &changes)
            .map_err(undo)?;
        drop(book);
        self.watch_limits_of(&member, &cgroup);
        let mode = mode_name(policy.mode);
        self.tell_of_sandbox(
            ids::SANDBOX_BEGAN,
            &member,
            format!(
                "began under policy {} ({}), mode {mode}",
                policy.name, policy.digest
            ),
        );
        Ok(Created {
            name: member.name.to_string(),
            id: member.id.0,
            root: self.config().root.clone(),
            policy: policy.name.clone(),
            user: policy.user.as_ref().map(|user| match user {
                UserSetting::Name(name) => name.clone(),
                UserSetting::Id(id) => id.to_string(),
            }),
            mode: mode.into(),
            relaxations: member.relaxations,
            timeout_ms: policy
                .limits
                .timeout
                .and_then(|timeout| timeout.as_millis().try_into().ok()),
            disk: policy.limits.disk,
            seccomp: policy.seccomp,
            relaxed: member.relaxed,
            hidden: self.config().keeps(),
            read_only: self.config().obeys(),
        })
    }

    /// Ends a sandbox: what is left in it is killed first, so that nothing runs
    /// in a cgroup that is about to be unknown. Blocks up to the kill deadline.
    pub fn remove_sandbox(&self, name: &str) -> Result<Ended, Failure> {
        let member = self
            .book()
            .by_name(name)
            .cloned()
            .ok_or_else(|| Failure::from(BookError::NoSuchSandbox(name.to_owned())))?;
        if member.link.is_some() {
            return self.detach_interface(&member);
        }
        self.refuse_foreign(&member)?;
        let used = match self.cgroup_of(&member) {
            Ok(cgroup) => {
                cgroup.kill(KILL_DEADLINE).map_err(failed)?;
                let used = self.last_look(&member, &cgroup);
                cgroup.remove(KILL_DEADLINE).map_err(failed)?;
                used
            }
            Err(CgroupError::Missing { .. }) => Used::unknown("its cgroup was gone".to_owned()),
            Err(error) => return Err(failed(error)),
        };
        self.note_last_reading(&member);
        if member.network.is_some() {
            let mut table = self.links().lock();
            self.take_network(&mut table, &member)?;
        }
        {
            let mut book = self.book();
            let changes = book.end(member.id)?;
            self.carry_out(&mut book, &changes).map_err(failed)?;
        }
        self.runtime().forget(&member.name).map_err(failed)?;
        let over = self.forget_limits(member.id);
        let Used { words, numbers } = used;
        self.tell_of_end(&member, format!("ended: {words}"), numbers);
        Ok(Ended { over, used: words })
    }

    /// Loads the policies again, for a user or because files changed. Nothing is
    /// changed unless all of them are good.
    pub fn reload_policies(&self, by: Pusher) -> Result<Reloaded, Failure> {
        let now = Timestamp::now();
        let mut source = self.source();
        let refused = |text: &str| {
            self.tell_of_policies(
                Outcome::Denied,
                by,
                None,
                format!("refused; the policies in force stay:\n{text}"),
            );
            Failure::new(
                FailureKind::BadConfiguration,
                format!("nothing was changed; the policies in force stay:\n{text}"),
            )
        };
        let loaded = match source.read(now) {
            Ok(loaded) => loaded,
            Err(problems) => {
                let text = diagnostics_text(&problems, Colour::No);
                source.note_refused(&text);
                return Err(refused(&text));
            }
        };
        {
            let mut book = self.book();
            let changes = match book.load(loaded.policies.clone(), now) {
                Ok(changes) => changes,
                Err(error) => {
                    let text = error.to_string();
                    source.note_refused(&text);
                    drop(refused(&text));
                    return Err(error.into());
                }
            };
            self.carry_out(&mut book, &changes).map_err(failed)?;
        }
        source.note_accepted();
        let change = source.change(&loaded, now);
        source.note_in_force(&loaded, now);
        drop(source);
        self.renew_limits();
        self.look_at_interfaces();
        let connections_ended = self.end_revoked().unwrap_or_else(|error| {
            // They are cut all the same, packet by packet.
            tracing::warn!(%error, "revoked connections were not ended at once");
            0
        });
        let policies: Vec<_> = self
            .book()
            .policies()
            .iter()
            .map(|policy| in_force(policy))
            .collect();
        let names: Vec<_> = policies
            .iter()
            .map(|p| format!("{} {}", p.name, p.digest))
            .collect();
        self.tell_of_policies(
            Outcome::Allowed,
            by,
            Some(change),
            format!(
                "in force: {}; from {}; {connections_ended} connections ended",
                names.join(", "),
                loaded.from
            ),
        );
        Ok(Reloaded {
            policies,
            connections_ended,
            warnings: diagnostics_text(&loaded.warnings, Colour::No),
        })
    }

    /// The control socket is no socket that a sandbox may reach: whoever is root
    /// there could have itself disarmed.
    fn refuse_own_socket(&self, policy: &Policy) -> Result<(), Failure> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let own = real(&self.config().socket);
        let opened = policy
            .relaxed
            .iter()
            .any(|point| matches!(point, Relaxation::HostSocket(path) if real(path) == own));
        if opened {
            return Err(Failure::new(
                FailureKind::BadConfiguration,
                format!(
                    "policy {} opens {}, which is the agent's own socket; take it out of `sandbox.relax`",
                    policy.name,
                    own.display()
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn describe_sandboxes(&self) -> Vec<Sandbox> {
        let lost: BTreeMap<_, _> = self
            .enforcer()
            .meters()
            .unwrap_or_default()
            .into_iter()
            .map(|(cgroup, meter)| (cgroup, meter.lost))
            .collect();
        let book = self.book();
        let mut sandboxes: Vec<_> = book
            .members()
            .map(|member| {
                let (state, processes, used) = self.look_into(member);
                Sandbox {
                    name: member.name.to_string(),
                    id: member.id.0,
                    policy: member.policy.clone(),
                    mode: book
                        .policy_of(member.id)
                        .map_or("denied", |compiled| mode_name(compiled.policy.mode))
                        .into(),
                    began: member.began.to_string(),
                    processes,
                    grants: book.ledger().grants(member.id).count(),
                    reports_lost: lost.get(&member.cgroup).copied().unwrap_or(0),
                    relaxations: member.relaxations.clone(),
                    relaxed: member.relaxed.clone(),
                    attribution: member.attribution.as_deref().cloned().unwrap_or_default(),
                    state: state.into(),
                    owner: member.owner,
                    progress: member.progress.clone(),
                    time_left_ms: self.time_left(member),
                    used,
                    interface: member.link.as_ref().map(|link| link.interface.clone()),
                }
            })
            .collect();
        sandboxes.sort_by(|a: &Sandbox, b| a.name.cmp(&b.name));
        sandboxes
    }

    pub(super) fn describe(&self) -> Status {
        let mut counters: BTreeMap<String, u64> = Counter::ALL
            .iter()
            .filter_map(|counter| {
                Some((
                    format!("kernel_{}", counter.name()),
                    self.enforcer().counter(*counter).ok()?,
                ))
            })
            .collect();
        counters.extend(
            self.enforcer()
                .lsm_refusals()
                .into_iter()
                .map(|(hook, count)| (format!("lsm_{hook}"), count)),
        );
        let mut resolver = Vec::new();
        if let Some((ports, counts)) = self.resolver() {
            resolver.push(format!("127.0.0.1:{}", ports.v4));
            if ports.v6 != 0 {
                resolver.push(format!("[::1]:{}", ports.v6));
            }
            counters.extend(
                counts
                    .named()
                    .into_iter()
                    .map(|(name, value)| (format!("dns_{name}"), value)),
            );
        }
        let health = self.store().health();
        let warnings = self.warnings();
        let emergency = self.incident().map(Incident::from);
        let policies = self.source().in_force().cloned();
        let book = self.book();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            state: if emergency.is_some() {
                "stopped by an emergency block"
            } else if warnings.is_empty() {
                "enforcing"
            } else {
                "enforcing, with warnings"
            }
            .into(),
            root: self.root().path().to_owned(),
            started: self.started_in_words(),
            since: self.since().to_string(),
            sandboxes: book.members().count(),
            lsm: self.enforcer().lsm(),
            relaxed: book
                .members()
                .filter(|member| !member.relaxed.is_empty())
                .map(|member| (member.name.to_string(), member.relaxed.clone()))
                .collect(),
            policies: book
                .policies()
                .iter()
                .map(|policy| in_force(policy))
                .collect(),
            policies_from: policies.as_ref().map(|it| it.from.clone()),
            policies_since: policies.as_ref().map(|it| it.since.to_string()),
            resolver,
            upstreams: self.upstreams().iter().map(ToString::to_string).collect(),
            counters,
            audit_file: self.store().path().to_owned(),
            audit_queued: health.queued,
            audit_written: health.written,
            audit_lost: health.lost,
            audit_error: health.error,
            warnings,
            emergency,
        }
    }

    /// Takes enforcement out of force, unless sandboxes run.
    pub fn disarm_now(&self, force: bool, caller: u32) -> Result<usize, Failure> {
        let running: Vec<String> = self
            .book()
            .members()
            .map(|member| member.name.to_string())
            .collect();
        if !running.is_empty() && !force {
            return Err(Failure::new(
                FailureKind::Conflict,
                format!(
                    "sandboxes run: {}; stop them first, or add --force to leave them without any limit",
                    running.join(", ")
                ),
            ));
        }
        let programs = {
            let mut disarmed = self.disarmed();
            let programs = crate::enforcer::disarm_at(self.root().path()).map_err(failed)?;
            *disarmed = true;
            self.disarm_interfaces();
            programs
        };
        self.tell_as(
            ids::DISARMED,
            format!(
                "disarmed by uid {caller}: {programs} programs taken out of force; {} sandboxes ran",
                running.len()
            ),
        );
        self.stop();
        Ok(programs)
    }
}

/// What is said about the sandbox, if anything is.
fn attribution(wanted: &NewSandbox) -> Result<Option<Arc<Attribution>>, Failure> {
    let said = &wanted.attribution;
    said.check()
        .map_err(|error| Failure::new(FailureKind::Usage, error))?;
    Ok((!said.is_empty()).then(|| Arc::new(said.clone())))
}

/// A name that is not in use: short, and new for every run of a machine.
pub(super) fn unused_name(
    taken: impl Fn(&str) -> bool,
) -> Result<SandboxName, crate::model::SandboxNameError> {
    loop {
        let id = uuid::Uuid::now_v7().simple().to_string();
        // The tail is the random part.
        let name = format!("run-{}", &id[id.len() - 8..]);
        if !taken(&name) {
            return SandboxName::parse(&name);
        }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let kind = if error.is_configuration() {
            FailureKind::BadConfiguration
        } else {
            FailureKind::Failed
        };
        Self::new(kind, error)
    }
}

impl Agent {
    /// The policy's name, where there is exactly one.
    pub fn only_policy(&self) -> Option<String> {
        let book = self.book();
        let mut names = book.policies().iter().map(|policy| policy.name.clone());
        names.next().filter(|_| names.next().is_none())
    }
}
