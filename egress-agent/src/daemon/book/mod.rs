//! What the agent knows: policies in force, sandboxes, grants. One lock guards
//! it, and every change of the kernel maps is made under that lock, so that the
//! book and the maps tell the same.

mod blocking;
mod compiled;
mod error;
mod generation;
mod member;
mod network;

pub use compiled::Compiled;
pub use error::BookError;
pub use generation::Generation;
pub use member::{Foreign, Member, Newcomer, OwnNetwork};

use crate::api::wire::Progress;
use crate::enforcer::boot_now;
use crate::grants::{Bounds, Changes, Ledger};
use crate::image::{self, Change, Image};
use crate::model::{DomainName, RuleOrigin};
use crate::policy::{Limits, NameVerdict, Policy, PolicySet};
use compiled::rule_for;
use egress_common::{
    CgroupId, Destination, PolicyId, RuleId, Sandbox, SandboxId, Settings, Standing, Verdict,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct Book {
    policies: PolicySet,
    compiled: BTreeMap<String, Compiled>,
    /// Versions of policies by the id of their first rule, also those that late
    /// reports may still name.
    versions: BTreeMap<u32, Arc<Policy>>,
    members: BTreeMap<SandboxId, Member>,
    /// What was ended lately, so that late reports still find words.
    ended: BTreeMap<SandboxId, Member>,
    /// Sandboxes that are refused everything, whatever their policy says.
    blocked: BTreeSet<SandboxId>,
    ledger: Ledger,
    /// The kernel's content, grants left out: those are the ledger's.
    image: Image,
    /// A change stopped half way: the kernel holds other things than it should.
    ahead: bool,
    generation: Generation,
    next_policy: u32,
    next_rule: u32,
    next_sandbox: u32,
}

/// How many ended sandboxes keep their words.
const REMEMBERED_ENDED: usize = 1024;
/// How many versions of policies that are no longer in force keep their words.
const REMEMBERED_VERSIONS: usize = 64;

impl Book {
    /// A book over what the kernel holds already: nothing is known about its
    /// sandboxes and grants until they are adopted.
    pub fn new(in_force: &Image) -> Self {
        let image = Image {
            grants: BTreeMap::new(),
            ..in_force.clone()
        };
        let policies_in_use = in_force
            .networks
            .keys()
            .map(|(_, key)| u32::from_be(key.policy))
            .chain(in_force.sandboxes.values().map(|sandbox| sandbox.policy.0));
        let rules_in_use = in_force.grants.values().map(|grant| grant.rule.0).chain(
            in_force
                .networks
                .values()
                .flat_map(|n| n.services)
                .map(|service| service.rule.0),
        );
        let sandboxes_in_use = in_force
            .sandboxes
            .values()
            .map(|sandbox| sandbox.id.0)
            .chain(in_force.grants.keys().map(|key| key.sandbox.0));
        Self {
            policies: PolicySet::default(),
            compiled: BTreeMap::new(),
            versions: BTreeMap::new(),
            members: BTreeMap::new(),
            ended: BTreeMap::new(),
            blocked: BTreeSet::new(),
            ledger: Ledger::new(Bounds {
                entries: image::MAX_GRANTS,
                entries_per_sandbox: image::MAX_GRANTS / 8,
                ..Bounds::default()
            }),
            ahead: false,
            generation: Generation::default(),
            next_policy: policies_in_use.max().unwrap_or(0) + 1,
            next_rule: rules_in_use.max().unwrap_or(0) + 1,
            next_sandbox: sandboxes_in_use.max().unwrap_or(0) + 1,
            image,
        }
    }

    /// Tells, without the book's lock, whether the book may have changed its mind.
    pub fn generation(&self) -> Generation {
        self.generation.clone()
    }

    /// The sandboxes in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A sandbox, also for a while after its end.
    pub fn member(&self, id: SandboxId) -> Option<&Member> {
        self.members.get(&id).or_else(|| self.ended.get(&id))
    }

    /// A live sandbox by name.
    pub fn by_name(&self, name: &str) -> Option<&Member> {
        self.members
            .values()
            .find(|member| member.name.as_str() == name)
    }

    /// A live sandbox by its cgroup's name below the governed root.
    pub fn by_directory(&self, directory: &str) -> Option<&Member> {
        self.members
            .values()
            .find(|member| member.directory() == Some(directory))
    }

    /// The policy in force for a live sandbox.
    pub fn policy_of(&self, id: SandboxId) -> Option<&Compiled> {
        if self.blocked.contains(&id) {
            return None;
        }
        self.compiled.get(&self.members.get(&id)?.policy)
    }

    /// All loaded policies.
    pub const fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// Where a rule stands.
    pub fn rule(&self, id: RuleId) -> Option<&RuleOrigin> {
        let (first, policy) = self.versions.range(..=id.0).next_back()?;
        policy
            .rules
            .get((id.0 - first) as usize)
            .map(|rule| &rule.origin)
    }

    /// The grants.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The grants, to change. The caller brings the kernel map in step.
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// How many networks the kernel holds.
    pub fn networks(&self) -> usize {
        self.image.networks.len()
    }

    /// What the kernel is to hold, grants included.
    pub fn image(&self) -> Image {
        Image {
            grants: self.ledger.entries().collect(),
            ..self.image.clone()
        }
    }

    /// Whether some rule in force expires at or before `now`.
    pub fn has_expired_rules(&self, now: Timestamp) -> bool {
        self.compiled
            .values()
            .any(|compiled| compiled.next_expiry.is_some_and(|end| end <= now))
    }

    /// Whether a change stopped half way, so that the kernel still holds
    /// something that is to be closed.
    pub const fn is_ahead_of_the_kernel(&self) -> bool {
        self.ahead
    }

    /// Begins a sandbox: what to change, once the caller has done it to the
    /// kernel, is in the book already.
    pub fn begin(
        &mut self,
        newcomer: Newcomer,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(Member, Vec<Change>), BookError> {
        if self.by_name(newcomer.name.as_str()).is_some() {
            return Err(BookError::NameTaken(newcomer.name));
        }
        let member = Member {
            id: SandboxId(self.next_sandbox),
            name: newcomer.name,
            cgroup: newcomer.cgroup,
            policy: policy.name.clone(),
            began: now,
            began_boot: boot_now(),
            owner: newcomer.owner,
            relaxations: [policy.relaxations.clone(), newcomer.left_out].concat(),
            relaxed: policy.relaxed.clone(),
            attribution: newcomer.attribution,
            limits: newcomer.limits,
            progress: None,
            foreign: newcomer.foreign,
            link: newcomer.link,
            own_network: newcomer.own_network,
            network: None,
        };
        self.members.insert(member.id, member.clone());
        let id = member.id;
        let changes = match self.join(&member) {
            Some(changes) => Ok(changes),
            None => self.replan(),
        };
        match changes {
            Ok(changes) => {
                self.next_sandbox += 1;
                Ok((member, changes))
            }
            Err(error) => {
                self.members.remove(&id);
                Err(error)
            }
        }
    }

    /// The short way for a sandbox whose policy is in the kernel already, and
    /// where nothing else has to change: starting the thousandth sandbox costs
    /// what starting the second does.
    fn join(&mut self, member: &Member) -> Option<Vec<Change>> {
        let sandbox = self.compiled.get(&member.policy)?.sandbox(member);
        let in_use = |known: &Sandbox| known.policy == sandbox.policy;
        let fits = self.image.sandboxes.len() + 1 < image::MAX_SANDBOXES;
        if self.ahead || !fits || !self.image.sandboxes.values().any(in_use) {
            return None;
        }
        self.image.sandboxes.insert(member.cgroup, sandbox);
        let cgroup = member.cgroup;
        Some(vec![
            Change::PutMeter(cgroup),
            Change::PutSandbox(cgroup, sandbox),
        ])
    }

    /// Takes over a sandbox of an earlier agent under its old id.
    pub fn adopt(&mut self, member: Member) {
        self.next_sandbox = self.next_sandbox.max(member.id.0 + 1);
        self.members.insert(member.id, member);
    }

    /// Notes how the command of a sandbox fares; gives the sandbox.
    pub fn note_progress(&mut self, id: SandboxId, progress: Progress) -> Option<Member> {
        let member = self.members.get_mut(&id)?;
        member.progress = Some(progress);
        Some(member.clone())
    }

    /// Notes the limits that are in force for a sandbox.
    pub fn note_limits(&mut self, id: SandboxId, limits: Limits, left_out: &[String]) {
        if let Some(member) = self.members.get_mut(&id) {
            member.limits = limits;
            for words in left_out {
                if !member.relaxations.contains(words) {
                    member.relaxations.push(words.clone());
                }
            }
        }
    }

    /// Ends a sandbox: its grants go with it.
    pub fn end(&mut self, id: SandboxId) -> Result<Vec<Change>, BookError> {
        self.generation.advance();
        let member = self
            .members
            .remove(&id)
            .ok_or_else(|| BookError::NoSuchSandbox(id.0.to_string()))?;
        self.blocked.remove(&id);
        self.ended.insert(id, member);
        while self.ended.len() > REMEMBERED_ENDED {
            self.ended.pop_first();
        }
        let mut changes = self.replan()?;
        changes.extend(
            self.ledger
                .drop_sandbox(id)
                .into_iter()
                .map(Change::RemoveGrant),
        );
        Ok(changes)
    }

    /// Brings another set of policies into force, or the same one at a later
    /// time. Nothing is changed when it does not fit.
    pub fn load(&mut self, policies: PolicySet, now: Timestamp) -> Result<Vec<Change>, BookError> {
        self.generation.advance();
        let before = (
            std::mem::replace(&mut self.policies, policies),
            self.compiled.clone(),
            self.image.clone(),
        );
        match self.recompile(now).and_then(|()| self.replan()) {
            Ok(opening) => {
                // Grants that lost their rule go first: closing before opening.
                let revoked = self.revoke(now);
                let mut changes: Vec<Change> = revoked
                    .remove
                    .into_iter()
                    .map(Change::RemoveGrant)
                    .collect();
                changes.extend(
                    revoked
                        .write
                        .into_iter()
                        .map(|(key, grant)| Change::PutGrant(key, grant)),
                );
                changes.extend(opening);
                Ok(changes)
            }
            Err(error) => {
                (self.policies, self.compiled, self.image) = before;
                Err(error)
            }
        }
    }

    /// The same policies at a later time: rules that expired since are closed.
    pub fn expire_rules(&mut self, now: Timestamp) -> Result<Vec<Change>, BookError> {
        self.load(self.policies.clone(), now)
    }

    /// Gives numbers to every policy that is new, has changed or has rules that
    /// expired. Numbers of a version that is then refused are not used again.
    fn recompile(&mut self, now: Timestamp) -> Result<(), BookError> {
        let mut compiled = BTreeMap::new();
        for policy in self.policies.iter() {
            let kept = self.compiled.get(&policy.name).filter(|old| {
                old.policy.digest == policy.digest
                    && old.policy.file == policy.file
                    && old.policy.lists().eq(policy.lists())
                    && old.next_expiry.is_none_or(|end| now < end)
            });
            let entry = match kept {
                Some(kept) => kept.clone(),
                None => {
                    let (id, first_rule) = (PolicyId(self.next_policy), self.next_rule);
                    self.next_policy += 1;
                    // One at least: the first id is also the version's key.
                    self.next_rule += policy.rules.len().max(1) as u32;
                    Compiled::new(id, policy, first_rule, now)?
                }
            };
            self.versions.insert(entry.first_rule, Arc::clone(policy));
            compiled.insert(policy.name.clone(), entry);
        }
        self.compiled = compiled;
        self.forget_old_versions();
        Ok(())
    }

    fn forget_old_versions(&mut self) {
        let in_force: BTreeSet<u32> = self
            .compiled
            .values()
            .map(|entry| entry.first_rule)
            .collect();
        let retired: Vec<u32> = self
            .versions
            .keys()
            .filter(|first| !in_force.contains(first))
            .copied()
            .collect();
        let surplus = retired.len().saturating_sub(REMEMBERED_VERSIONS);
        for first in retired.into_iter().take(surplus) {
            self.versions.remove(&first);
        }
    }

    /// The changes from what the kernel holds to what it should, grants left
    /// out. A sandbox whose policy is gone is left out too: unknown, so denied.
    pub(super) fn replan(&mut self) -> Result<Vec<Change>, BookError> {
        let mut wanted = Image {
            settings: self.image.settings,
            ..Image::default()
        };
        let mut used: BTreeMap<PolicyId, &Compiled> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(compiled) = self.compiled.get(&member.policy) {
                used.insert(compiled.id, compiled);
                let mut sandbox = compiled.sandbox(member);
                if self.blocked.contains(&member.id) {
                    sandbox.flags |= Sandbox::BLOCKED;
                }
                wanted.sandboxes.insert(member.cgroup, sandbox);
                if let Some(network) = &member.network {
                    let interface = CgroupId::of_interface(network.interface);
                    wanted.sandboxes.insert(interface, sandbox);
                }
            }
        }
        for compiled in used.values() {
            wanted.networks.extend(
                compiled
                    .networks
                    .iter()
                    .map(|(prefix, network)| (*prefix, *network)),
            );
        }
        image::check(&self.image, &wanted)?;
        // Whatever ended or moved to another policy is judged again.
        let moved = self
            .image
            .sandboxes
            .iter()
            .any(|(cgroup, old)| wanted.sandboxes.get(cgroup) != Some(old));
        if moved {
            wanted.settings.epoch = wanted.settings.epoch.wrapping_add(1).max(1);
        }
        let changes = image::plan(&self.image, &wanted);
        self.image = wanted;
        Ok(changes)
    }

    /// Asks every grant again under the policies in force.
    fn revoke(&mut self, now: Timestamp) -> Changes {
        let (members, compiled) = (&self.members, &self.compiled);
        // A name has many addresses, and what it is allowed is the same for all
        // of them; where it may lead is asked for each.
        let mut judged: BTreeMap<PolicyId, BTreeMap<DomainName, NameVerdict>> = BTreeMap::new();
        self.ledger.revoke(|key, name| {
            let compiled = compiled.get(&members.get(&key.sandbox)?.policy)?;
            let names = judged.entry(compiled.id).or_default();
            let verdict = match names.get(name) {
                Some(verdict) => verdict,
                None => names
                    .entry(name.clone())
                    .or_insert_with(|| compiled.policy.judge_name(name, now)),
            };
            rule_for(compiled, verdict, key)
        })
    }

    /// Notes that the kernel holds what the book says.
    pub const fn note_carried_out(&mut self) {
        self.ahead = false;
    }

    /// Sets the book to what the kernel holds, after a change stopped half way.
    pub fn resynchronise(&mut self, in_force: &Image) {
        self.generation.advance();
        self.ahead = true;
        self.image = Image {
            grants: BTreeMap::new(),
            ..in_force.clone()
        };
    }

    /// Notes settings that the caller wrote into the kernel.
    pub const fn note_settings(&mut self, settings: Settings) {
        self.image.settings = settings;
    }

    /// Whether a live connection may go on.
    pub fn may_go_on(image: &Image, cgroup: CgroupId, to: &Destination) -> bool {
        // Shadow mode refuses nothing. Whose a loopback peer is only the kernel
        // knows; the gate judges it.
        image.sandboxes.get(&cgroup).is_some_and(Sandbox::is_shadow)
            || to.ip.is_loopback()
            || matches!(
                image::View::new(image, boot_now()).decide(cgroup, to, Standing::Live),
                Ok(Verdict::Allow(_))
            )
    }
}

#[cfg(test)]
mod tests;
