//! Cgroups that somebody else makes below the governed root: services, slices,
//! containers.
//!
//! They are denied from their first moment, like everything below the root that is
//! in no sandbox. Here they are found, held against the launcher's contract, and
//! brought under the policy that names them. See decision 0032.

use super::agent::Agent;
use super::book::{Book, Foreign, Member, Newcomer};
use crate::api::wire::{Adopt, Adopted, Failure, FailureKind};
use crate::model::{Record, RecordKind, SandboxName};
use crate::policy::{Limits, Policy, UnmetContract};
use crate::sandbox::contract::{Finding, examine};
use crate::sandbox::{CgroupError, SandboxCgroup};
use crate::telemetry::ids;
use egress_common::Outcome;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

/// Digits of a container's id that its sandbox is called by, as engines do it.
const SHORT_ID: usize = 12;

impl Agent {
    /// Looks for cgroups that appeared, for processes that have more than they had,
    /// and for cgroups that are gone.
    pub(super) fn look_for_others(&self) {
        self.leave_those_that_are_gone();
        self.examine_adopted();
        let mut there = BTreeSet::new();
        for entry in std::fs::read_dir(self.root().path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let is_cgroup = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_cgroup && let Ok(name) = entry.file_name().into_string() {
                there.insert(name);
            }
        }
        self.told_of().retain(|(name, _)| there.contains(name));
        {
            let book = self.book();
            for member in book.members() {
                if let Some(directory) = member.directory() {
                    there.remove(directory);
                }
            }
        }
        for directory in &there {
            self.consider(directory);
        }
    }

    /// Brings a cgroup under its policy, if it has one and nothing is in the way.
    fn consider(&self, directory: &str) {
        let mut book = self.book();
        if book.by_directory(directory).is_some() {
            return;
        }
        let Some(policy) = book.policies().select_cgroup(directory) else {
            drop(book);
            // Where nothing runs nobody is denied anything.
            if processes_below(&self.root().path().join(directory)).is_empty() {
                return;
            }
            return self.tell_once(
                directory,
                "is in no sandbox: no policy names it, so it is denied everything",
            );
        };
        let processes = processes_below(&self.root().path().join(directory));
        // Nobody knows yet what will run in it.
        if processes.is_empty() && policy.unmet_contract == UnmetContract::Refuse {
            return;
        }
        let found = examine(&processes);
        if let Err(failure) = self.adopt_into(&mut book, directory, &policy, &found, false) {
            drop(book);
            self.tell_once(directory, &failure.message);
        }
    }

    /// What the OCI hook asks for: a container's cgroup under its policy, now.
    pub(super) fn adopt_container(&self, wanted: &Adopt) -> Result<Adopted, Failure> {
        let mut book = self.book();
        if let Some(member) = book.by_directory(&wanted.directory) {
            return Ok(adopted(member));
        }
        let policy = book
            .policies()
            .select_cgroup(&wanted.directory)
            .ok_or_else(|| {
                Failure::new(
                    FailureKind::NotFound,
                    format!(
                        "no policy names the cgroup `{}`; add `applies_to: [{{ cgroup: \"…\" }}]` to one",
                        wanted.directory
                    ),
                )
            })?;
        let found: Vec<Finding> = wanted
            .findings
            .iter()
            .map(|(words, open)| Finding {
                words: words.clone(),
                open: *open,
            })
            .collect();
        let member = self.adopt_into(&mut book, &wanted.directory, &policy, &found, true)?;
        Ok(adopted(&member))
    }

    fn adopt_into(
        &self,
        book: &mut MutexGuard<'_, Book>,
        directory: &str,
        policy: &Policy,
        found: &[Finding],
        vouched: bool,
    ) -> Result<Member, Failure> {
        let refused = |message: String| Failure::new(FailureKind::Conflict, message);
        let open = in_words(found.iter().filter(|finding| finding.open));
        if policy.unmet_contract == UnmetContract::Refuse && !open.is_empty() {
            return Err(refused(format!(
                "the cgroup `{directory}` stays denied: a process in it {}; take that away, or write \
                 `unmet_contract: report` in policy {}",
                open.join(", and "),
                policy.name
            )));
        }
        let mut left_out: Vec<String> = in_words(found.iter())
            .into_iter()
            .map(|words| format!("a process that others started {words}"))
            .collect();
        let others = not_ours(policy);
        if !others.is_empty() && !policy.limits.best_effort {
            return Err(refused(format!(
                "the cgroup `{directory}` stays denied: {} of policy {} cannot be enforced in what others \
                 started; limit it where it is started, or write `best_effort: true`",
                others.join(", "),
                policy.name
            )));
        }
        left_out.extend(
            others
                .iter()
                .map(|key| format!("{key} is not enforced in what others started")),
        );
        let name = name_for(directory).map_err(Failure::failed)?;
        let cgroup =
            SandboxCgroup::open_as(self.root(), directory, &name).map_err(Failure::failed)?;
        let newcomer = Newcomer {
            // The clock is the agent's; the rest belongs to whoever made the cgroup.
            limits: Limits {
                timeout: policy.limits.timeout,
                ..Limits::default()
            },
            left_out,
            foreign: Some(Foreign {
                directory: directory.to_owned(),
                vouched,
            }),
            ..Newcomer::new(name, cgroup.id(), 0)
        };
        let (member, changes) = book.begin(newcomer, policy, Timestamp::now())?;
        self.put_in_force(book, &member, &changes)?;
        self.watch_limits_of(&member, &cgroup);
        self.told_of().retain(|(name, _)| name != directory);
        self.tell_of_sandbox(
            ids::SANDBOX_CHANGED,
            &member,
            format!(
                "adopted the cgroup {directory} under policy {}; {}",
                policy.name,
                describe(&member)
            ),
        );
        Ok(member)
    }

    /// Adopted processes can change, and others can join them.
    fn examine_adopted(&self) {
        let adopted: Vec<(Member, String)> = {
            let book = self.book();
            let strict = |member: &&Member| {
                book.policy_of(member.id)
                    .is_some_and(|compiled| compiled.policy.unmet_contract == UnmetContract::Refuse)
            };
            book.members()
                .filter(strict)
                .filter_map(|member| {
                    let foreign = member.foreign.as_ref().filter(|foreign| !foreign.vouched)?;
                    Some((member.clone(), foreign.directory.clone()))
                })
                .collect()
        };
        for (member, directory) in adopted {
            let found = examine(&processes_below(&self.root().path().join(&directory)));
            let open = in_words(found.iter().filter(|finding| finding.open));
            if !open.is_empty() {
                self.tell_of_sandbox(
                    ids::SANDBOX_CHANGED,
                    &member,
                    format!(
                        "denied from now on: a process in it {}",
                        open.join(", and ")
                    ),
                );
                self.leave(&member);
            }
        }
    }

    fn leave_those_that_are_gone(&self) {
        let foreign: Vec<Member> = {
            let book = self.book();
            book.members()
                .filter(|member| member.foreign.is_some())
                .cloned()
                .collect()
        };
        for member in foreign {
            let gone = match self.cgroup_of(&member) {
                // Another one of the same name is not the one that was adopted.
                Ok(cgroup) => cgroup.id() != member.cgroup,
                Err(CgroupError::Missing(_)) => true,
                Err(_) => false,
            };
            if gone {
                self.leave(&member);
                self.tell_of_sandbox(
                    ids::SANDBOX_ENDED,
                    &member,
                    "ended: its cgroup is gone".into(),
                );
            }
        }
    }

    /// Takes a sandbox out of the book and the kernel; what runs in it is denied.
    fn leave(&self, member: &Member) {
        self.note_last_reading(member);
        let mut book = self.book();
        let ended = book
            .end(member.id)
            .map_err(|error| error.to_string())
            .and_then(|changes| {
                self.carry_out(&mut book, &changes)
                    .map_err(|error| error.to_string())
            });
        drop(book);
        if let Err(error) = ended {
            tracing::error!(sandbox = %member.name, error, "could not be left; trying again");
        }
        if let Err(error) = self.runtime().forget(&member.name) {
            tracing::warn!(%error, "a sandbox that has ended stands in the runtime directory");
        }
        let _ = self.forget_limits(member.id);
    }

    fn told_of(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.upkeep()
            .told_of
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records something about a cgroup once, as long as it stays so.
    fn tell_once(&self, directory: &str, what: &str) {
        if !self
            .told_of()
            .insert((directory.to_owned(), what.to_owned()))
        {
            return;
        }
        tracing::warn!(cgroup = directory, "{what}");
        let mut record = Record::new(Timestamp::now(), RecordKind::Sandbox);
        record.outcome = Some(Outcome::Denied);
        record.detail = Some(format!("cgroup {directory}: {what}"));
        self.recorder().record(record);
    }

    /// Refuses what only those can do who started it.
    pub(super) fn refuse_foreign(&self, member: &Member) -> Result<(), Failure> {
        match &member.foreign {
            None => Ok(()),
            Some(foreign) => Err(Failure::new(
                FailureKind::Conflict,
                format!(
                    "`{}` is the cgroup {} of somebody else; end it where it was started",
                    member.name, foreign.directory
                ),
            )),
        }
    }
}

fn adopted(member: &Member) -> Adopted {
    Adopted {
        name: member.name.to_string(),
        policy: member.policy.clone(),
        relaxations: member.relaxations.clone(),
    }
}

fn in_words<'f>(found: impl Iterator<Item = &'f Finding>) -> Vec<String> {
    found.map(|finding| finding.words.clone()).collect()
}

fn describe(member: &Member) -> String {
    if member.relaxations.is_empty() {
        "nothing is relaxed".to_owned()
    } else {
        member.relaxations.join("; ")
    }
}

/// What a policy wants of its sandboxes and only their launcher can give.
fn not_ours(policy: &Policy) -> Vec<&'static str> {
    let limits = &policy.limits;
    let wanted = [
        ("`cpu_limit`", limits.cpu.is_some()),
        ("`cpu_weight`", limits.cpu_weight.is_some()),
        ("`memory_limit`", limits.memory.is_some()),
        ("`memory_high`", limits.memory_high.is_some()),
        ("`pids_limit`", limits.pids.is_some()),
        ("`io_limit`", !limits.io.is_empty()),
        ("`disk`", limits.disk.is_some()),
        ("`user`", policy.user.is_some()),
        (
            "`seccomp`",
            policy.seccomp != crate::policy::SeccompProfile::Default,
        ),
    ];
    wanted
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .map(|(key, _)| key)
        .collect()
}

/// The processes of a cgroup and of all below it.
fn processes_below(directory: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let listed = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    found
}

/// What the sandbox of such a cgroup is called: without the ending, ids cut short,
/// and only with characters that need no quoting.
fn name_for(directory: &str) -> Result<SandboxName, crate::model::SandboxNameError> {
    let stem = [".scope", ".service", ".slice"]
        .iter()
        .find_map(|ending| directory.strip_suffix(ending))
        .unwrap_or(directory);
    let short = match stem.rsplit_once('-') {
        Some((engine, id))
            if id.len() > SHORT_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            format!("{engine}-{}", &id[..SHORT_ID])
        }
        _ => stem.to_owned(),
    };
    let plain: String = short
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    SandboxName::parse(&plain)
}

#[cfg(test)]
mod tests {
    use super::name_for;

    #[test]
    fn sandboxes_of_others_have_names_that_people_know() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (directory, name) in [
            (format!("docker-{id}.scope"), "docker-0123456789ab"),
            (
                format!("cri-containerd-{id}.scope"),
                "cri-containerd-0123456789ab",
            ),
            ("web@1.service".to_owned(), "web-1"),
            ("egress-builds.slice".to_owned(), "egress-builds"),
            ("a\\x2db.service".to_owned(), "a-x2db"),
        ] {
            assert_eq!(name_for(&directory).expect("a name").as_str(), name);
        }
    }
}
