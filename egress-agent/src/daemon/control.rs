//! What the control socket offers, carried out.

use super::agent::{Agent, KILL_DEADLINE};
use super::book::{BookError, Newcomer};
use super::error::AgentError;
use crate::api::Control;
use crate::api::wire::{
    Created, Failure, FailureKind, Incident, NewInterface, NewSandbox, PolicyInForce, Reloaded,
    Sandbox, Status,
};
use crate::model::{Attribution, Relaxation, SandboxName};
use crate::policy::render::{Colour, diagnostics_text};
use crate::policy::{Policy, PolicySet, UserSetting};
use crate::sandbox::{CgroupError, SandboxCgroup};
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
    Failure::new(FailureKind::Failed, error)
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
        let (member, changes) = book
            .begin(
                Newcomer {
                    name,
                    cgroup: cgroup.id(),
                    owner: wanted.owner,
                    attribution,
                    link: None,
                },
                &policy,
                now,
            )
            .map_err(|error| undo(error.into()))?;
        let written = self
            .runtime()
            .remember(&member)
            .map_err(failed)
            .and_then(|()| self.carry_out(&mut book, &changes).map_err(failed));
        if let Err(failure) = written {
            // The kernel may know it already; it must not outlive this call.
            if let Ok(changes) = book.end(member.id) {
                let _ = self.carry_out(&mut book, &changes);
            }
            let _ = self.runtime().forget(&member.name);
            return Err(undo(failure));
        }
        drop(book);
        let mode = mode_name(policy.mode);
        self.tell_of_sandbox(
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
            relaxed: member.relaxed,
        })
    }

    /// Ends a sandbox: what is left in it is killed first, so that nothing runs
    /// in a cgroup that is about to be unknown. Blocks up to the kill deadline.
    pub fn remove_sandbox(&self, name: &str) -> Result<(), Failure> {
        let member = self
            .book()
            .by_name(name)
            .cloned()
            .ok_or_else(|| Failure::from(BookError::NoSuchSandbox(name.to_owned())))?;
        if member.link.is_some() {
            return self.detach_interface(&member);
        }
        match SandboxCgroup::open(self.root(), &member.name) {
            Ok(cgroup) => {
                cgroup.kill(KILL_DEADLINE).map_err(failed)?;
                cgroup.remove(KILL_DEADLINE).map_err(failed)?;
            }
            Err(CgroupError::Missing { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        self.note_last_reading(&member);
        {
            let mut book = self.book();
            let changes = book.end(member.id)?;
            self.carry_out(&mut book, &changes).map_err(failed)?;
        }
        self.runtime().forget(&member.name).map_err(failed)?;
        self.tell_of_sandbox(&member, "ended".into());
        Ok(())
    }

    /// Loads the policies again. Nothing is changed unless all of them are good.
    pub fn reload_policies(&self, caller: u32) -> Result<Reloaded, Failure> {
        let now = Timestamp::now();
        let (policies, warnings) =
            PolicySet::load(&self.config().policies, now).map_err(|problems| {
                let text = diagnostics_text(&problems, Colour::No);
                self.tell_of_policies(
                    Outcome::Denied,
                    caller,
                    format!("refused; the policies in force stay:\n{text}"),
                );
                Failure::new(
                    FailureKind::BadConfiguration,
                    format!("nothing was changed; the policies in force stay:\n{text}"),
                )
            })?;
        {
            let mut book = self.book();
            let changes = book.load(policies, now)?;
            self.carry_out(&mut book, &changes).map_err(failed)?;
        }
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
            caller,
            format!(
                "in force: {}; {connections_ended} connections ended",
                names.join(", ")
            ),
        );
        Ok(Reloaded {
            policies,
            connections_ended,
            warnings: diagnostics_text(&warnings, Colour::No),
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

    fn describe_sandboxes(&self) -> Vec<Sandbox> {
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
            .map(|member| Sandbox {
                name: member.name.to_string(),
                id: member.id.0,
                policy: member.policy.clone(),
                mode: book
                    .policy_of(member.id)
                    .map_or("denied", |compiled| mode_name(compiled.policy.mode))
                    .into(),
                began: member.began.to_string(),
                processes: SandboxCgroup::open(self.root(), &member.name)
                    .and_then(|cgroup| cgroup.processes())
                    .map_or(0, |processes| processes.len()),
                grants: book.ledger().grants(member.id).count(),
                reports_lost: lost.get(&member.cgroup).copied().unwrap_or(0),
                relaxations: member.relaxations.clone(),
                interface: member.link.as_ref().map(|link| link.interface.clone()),
                relaxed: member.relaxed.clone(),
                attribution: member.attribution.as_deref().cloned().unwrap_or_default(),
            })
            .collect();
        sandboxes.sort_by(|a: &Sandbox, b| a.name.cmp(&b.name));
        sandboxes
    }

    fn describe(&self) -> Status {
        let mut counters: BTreeMap<String, u64> = Counter::ALL
            .iter()
            .filter_map(|counter| {
                Some((
                    format!("kernel_{}", counter.name()),
                    self.enforcer().counter(*counter).ok()?,
                ))
            })
            .collect();
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
        let book = self.book();
        let warnings = self.warnings();
        let emergency = self.incident().map(Incident::from);
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
        self.tell(format!(
            "disarmed by uid {caller}: {programs} programs taken out of force; {} sandboxes ran",
            running.len()
        ));
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

impl Control for Agent {
    async fn create(&self, wanted: NewSandbox) -> Result<Created, Failure> {
        tokio::task::block_in_place(|| self.create_sandbox(&wanted))
    }

    async fn attach(&self, wanted: NewInterface) -> Result<Created, Failure> {
        tokio::task::block_in_place(|| self.attach_interface(&wanted))
    }

    async fn remove(&self, name: &str) -> Result<(), Failure> {
        tokio::task::block_in_place(|| self.remove_sandbox(name))
    }

    async fn sandboxes(&self) -> Vec<Sandbox> {
        tokio::task::block_in_place(|| self.describe_sandboxes())
    }

    async fn status(&self) -> Status {
        tokio::task::block_in_place(|| self.describe())
    }

    async fn reload(&self, caller: u32) -> Result<Reloaded, Failure> {
        tokio::task::block_in_place(|| self.reload_policies(caller))
    }

    async fn emergency_block(
        self: Arc<Self>,
        reason: String,
        caller: u32,
    ) -> Result<Incident, Failure> {
        tokio::task::block_in_place(|| self.press_emergency(&reason, caller))
    }

    async fn restore(&self, incident: &str, caller: u32) -> Result<Incident, Failure> {
        tokio::task::block_in_place(|| self.end_emergency(incident, caller))
    }

    async fn disarm(&self, force: bool, caller: u32) -> Result<usize, Failure> {
        tokio::task::block_in_place(|| self.disarm_now(force, caller))
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
