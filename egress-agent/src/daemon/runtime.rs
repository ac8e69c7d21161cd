//! What the next agent must know about what this one started, kept in the
//! runtime directory: it lasts exactly as long as the kernel maps do, until the
//! machine restarts.

use super::book::{Foreign, Member, OwnNetwork};
use super::names::{Lines, names_in};
use crate::api::wire::Progress;
use crate::model::{Attribution, DomainName, LinkSpec, Relaxation, SandboxName};
use crate::policy::Limits;
use egress_common::{CgroupId, NameId, SandboxId};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One sandbox, as its file holds it.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Wire {
    id: u32,
    cgroup: u64,
    policy: String,
    began: Timestamp,
    began_boot: u64,
    owner: u32,
    relaxations: Vec<String>,
    /// Absent in what an agent before relaxations had names wrote.
    #[serde(default)]
    relaxed: Vec<Relaxation>,
    #[serde(default)]
    attribution: Option<Arc<Attribution>>,
    #[serde(default)]
    progress: Option<Progress>,
    #[serde(default)]
    foreign: Option<Foreign>,
    #[serde(default)]
    link: Option<Arc<LinkSpec>>,
    #[serde(default)]
    own_network: bool,
    #[serde(default)]
    network: Option<OwnNetwork>,
}

/// Why the runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Another agent has it.
    #[error(
        "another agent uses {0}; stop it, or give this one another `runtime_directory` and `root`"
    )]
    InUse(PathBuf),
    /// The system refused.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The runtime directory, locked for this agent.
#[derive(Debug)]
pub struct Runtime {
    sandboxes: PathBuf,
    losses: PathBuf,
    blocked: PathBuf,
    /// Absent before the first name.
    names: Option<Lines>,
    names_path: PathBuf,
    /// Held as long as the agent lives.
    _lock: File,
    /// The last id that stands in the file.
    written: u32,
    /// Lines in the file.
    lines: usize,
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |error| RuntimeError::Io { what, path, error }
}

impl Runtime {
    /// Locks the directory; makes it where it is missing.
    pub fn open(directory: &Path) -> Result<Self, RuntimeError> {
        let sandboxes = directory.join("sandboxes");
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(io_error("make", directory))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&sandboxes)
            .map_err(io_error("make", &sandboxes))?;
        if is_copied_on_write(directory) {
            tracing::warn!(
                path = %directory.display(),
                "the runtime directory should be in memory (tmpfs): where a full disk cannot take a change, the agent ends"
            );
        }
        let lock_path = directory.join("lock");
        let lock = private()
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(RuntimeError::InUse(directory.to_owned()));
            }
            Err(error) => return Err(io_error("lock", &lock_path)(error.into())),
        }
        Ok(Self {
            sandboxes,
            losses: directory.join("losses.json"),
            blocked: directory.join("blocked.json"),
            names: None,
            names_path: directory.join("names"),
            _lock: lock,
            written: 0,
            lines: 0,
        })
    }

    /// Writes a sandbox down, before its command starts.
    pub fn remember(&self, member: &Member) -> Result<(), RuntimeError> {
        let path = self.file_of(&member.name);
        let temporary = path.with_extension("new");
        let wire = Wire {
            id: member.id.0,
            cgroup: member.cgroup.0,
            policy: member.policy.clone(),
            began: member.began,
            began_boot: member.began_boot,
            owner: member.owner,
            relaxations: member.relaxations.clone(),
            relaxed: member.relaxed.clone(),
            attribution: member.attribution.clone(),
            progress: member.progress.clone(),
            foreign: member.foreign.clone(),
            link: member.link.clone(),
            own_network: member.own_network,
            network: member.network.clone(),
        };
        let text = serde_json::to_vec(&wire)
            .map_err(|error| io_error("encode", &path)(io::Error::other(error)))?;
        std::fs::write(&temporary, text).map_err(io_error("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(io_error("rename", &temporary))
    }

    /// Writes down which sandboxes are refused everything.
    pub fn remember_blocked(&self, blocked: &BTreeSet<SandboxId>) -> Result<(), RuntimeError> {
        let path = self.blocked.clone();
        let temporary = path.with_extension("new");
        let ids: Vec<u32> = blocked.iter().map(|id| id.0).collect();
        let text = serde_json::to_vec(&ids)
            .map_err(|error| io_error("encode", &path)(io::Error::other(error)))?;
        std::fs::write(&temporary, text).map_err(io_error("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(io_error("rename", &temporary))
    }

    /// Which sandboxes an earlier agent refused everything. A list that cannot
    /// be read is told, and blocks nobody: their policies are in force all the same.
    pub fn blocked(&self) -> BTreeSet<SandboxId> {
        let read = match std::fs::read(&self.blocked) {
            Ok(text) => {
                serde_json::from_slice::<Vec<u32>>(&text).map_err(|error| error.to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeSet::new(),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(ids) => ids.into_iter().map(SandboxId).collect(),
            Err(error) => {
                tracing::error!(path = %self.blocked.display(), error, "nobody knows which sandboxes were blocked");
                BTreeSet::new()
            }
        }
    }

    /// Forgets a sandbox.
    pub fn forget(&self, name: &SandboxName) -> Result<(), RuntimeError> {
        let path = self.file_of(name);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("remove", &path)(error)),
        }
    }

    fn file_of(&self, name: &SandboxName) -> PathBuf {
        self.sandboxes.join(format!("{name}.json"))
    }

    /// What an earlier agent wrote down. What cannot be read is left out with a
    /// warning: its sandbox is then unknown, so denied.
    pub fn sandboxes(&self) -> Result<Vec<Member>, RuntimeError> {
        let mut members = Vec::new();
        for entry in
            std::fs::read_dir(&self.sandboxes).map_err(io_error("read", &self.sandboxes))?
        {
            let path = entry.map_err(io_error("read", &self.sandboxes))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                match member_from(&path) {
                    Ok(member) => members.push(member),
                    Err(problem) => {
                        tracing::warn!(file = %path.display(), problem, "a sandbox of an earlier agent is left out")
                    }
                }
            }
        }
        members.sort_by_key(|member| member.id);
        Ok(members)
    }

    /// The names behind the ids in the kernel's grants.
    pub fn names(&self) -> Result<BTreeMap<NameId, DomainName>, RuntimeError> {
        match std::fs::read(&self.names_path) {
            Ok(bytes) => Ok(names_in(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(io_error("read", &self.names_path)(error)),
        }
    }

    /// Writes a name down, before the first grant under it.
    pub fn remember_name(&mut self, id: NameId, name: &DomainName) -> Result<(), RuntimeError> {
        if self.names.is_none() {
            let known = self.names()?;
            self.rewrite_names(known.iter().map(|(id, name)| (*id, name)))?;
        }
        if id.0 <= self.written {
            return Ok(());
        }
        // Each cold name waits for this.
        let line = [&id.0.to_string(), " ", name.as_str(), "\n"].concat();
        if let Some(names) = &mut self.names {
            names
                .push(line.as_bytes())
                .map_err(io_error("write", &self.names_path))?;
        }
        self.written = id.0;
        self.lines += 1;
        Ok(())
    }

    /// Whether the list of names holds much more than the `in_use` that are
    /// needed. A sandbox with a wildcard rule makes names as fast as it can ask,
    /// and the directory is in memory.
    pub const fn names_overflow(&self, in_use: usize) -> bool {
        self.lines > 2 * in_use + SPARE_NAMES
    }

    /// How much of each loss counter is recorded already, by the counter's key.
    /// An absent or unreadable file means nothing is: a loss is rather told
    /// twice than never.
    pub fn losses(&self) -> BTreeMap<String, u64> {
        std::fs::read(&self.losses)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Writes down how much of each loss counter is recorded.
    pub fn remember_losses(&self, losses: &BTreeMap<String, u64>) -> Result<(), RuntimeError> {
        let temporary = self.losses.with_extension("new");
        let text = serde_json::to_vec(losses)
            .map_err(|error| io_error("encode", &temporary)(io::Error::other(error)))?;
        std::fs::write(&temporary, text).map_err(io_error("write", &temporary))?;
        std::fs::rename(&temporary, &self.losses).map_err(io_error("rename", &temporary))
    }

    /// Starts the list of names over with those that are still in use.
    pub fn rewrite_names<'a>(
        &mut self,
        names: impl Iterator<Item = (NameId, &'a DomainName)>,
    ) -> Result<(), RuntimeError> {
        let temporary = self.names_path.with_extension("new");
        let mut text = String::new();
        self.lines = 0;
        for (id, name) in names {
            self.lines += 1;
            text.push_str(&format!("{} {name}\n", id.0));
            self.written = self.written.max(id.0);
        }
        // What sandboxes asked for is nobody else's business.
        let file = private()
            .truncate(true)
            .open(&temporary)
            .map_err(io_error("open", &temporary))?;
        let lines = file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| Lines::behind(file, text.len() as u64))
            .map_err(io_error("write", &temporary))?;
        std::fs::rename(&temporary, &self.names_path).map_err(io_error("rename", &temporary))?;
        self.names = Some(lines);
        Ok(())
    }
}

/// Whether a page of a file there needs new room each time it is changed, as on btrfs, ZFS and
/// bcachefs. Parts of files are mapped, and for those there is no error.
fn is_copied_on_write(directory: &Path) -> bool {
    const KINDS: [i64; 3] = [0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e];
    rustix::fs::statfs(directory).is_ok_and(|found| KINDS.contains(&found.f_type))
}

/// Lines that the list of names may hold beside twice those in use.
const SPARE_NAMES: usize = 10_000;

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600);
    options
}

fn member_from(path: &Path) -> Result<Member, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let wire: Wire = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let name = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .ok_or("its name is no text")
        .map_err(str::to_owned)?;
    Ok(Member {
        id: SandboxId(wire.id),
        name: SandboxName::parse(name).map_err(|error| error.to_string())?,
        cgroup: CgroupId(wire.cgroup),
        policy: wire.policy,
        began: wire.began,
        began_boot: wire.began_boot,
        owner: wire.owner,
        relaxations: wire.relaxations,
        relaxed: wire.relaxed,
        attribution: wire.attribution,
        // The policy's are put into force when its sandboxes are taken over.
        limits: Limits::default(),
        progress: wire.progress,
        foreign: wire.foreign,
        link: wire.link,
        own_network: wire.own_network,
        network: wire.network,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member {
        Member {
            id: SandboxId(3),
            name: SandboxName::parse(name).expect("a name"),
            cgroup: CgroupId(99),
            policy: "ci".into(),
            began: Timestamp::UNIX_EPOCH,
            began_boot: 7,
            owner: 1,
            relaxations: vec!["root".into()],
            relaxed: vec![Relaxation::Root],
            attribution: Some(Arc::new(Attribution {
                labels: [("team".to_owned(), "blue".to_owned())].into(),
                ..Attribution::default()
            })),
            limits: Limits::default(),
            progress: None,
            foreign: None,
            link: None,
            own_network: false,
            network: None,
        }
    }

    #[test]
    fn the_next_agent_reads_what_this_one_wrote() {
        let directory = tempfile::tempdir().expect("a directory");
        let name = DomainName::parse("a.example").expect("a name");
        {
            let mut runtime = Runtime::open(directory.path()).expect("a runtime");
            runtime.remember(&member("one")).expect("written");
            runtime.remember(&member("two")).expect("written");
            runtime.forget(&member("two").name).expect("removed");
            runtime.remember_name(NameId(7), &name).expect("written");
        }
        let runtime = Runtime::open(directory.path()).expect("a runtime");
        let found = runtime.sandboxes().expect("sandboxes");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].attribution, member("one").attribution);
        assert_eq!(
            (found[0].name.as_str(), found[0].id, found[0].cgroup),
            ("one", SandboxId(3), CgroupId(99))
        );
        assert_eq!(
            runtime.names().expect("names"),
            BTreeMap::from([(NameId(7), name)])
        );
    }

    #[test]
    fn a_list_of_names_that_grew_is_told_and_starts_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut runtime = Runtime::open(directory.path()).expect("a runtime");
        let name = DomainName::parse("a.example").expect("a name");
        for id in 1..=SPARE_NAMES as u32 + 3 {
            runtime.remember_name(NameId(id), &name).expect("written");
        }
        assert!(!runtime.names_overflow(2));
        assert!(runtime.names_overflow(1));
        let last = NameId(SPARE_NAMES as u32 + 3);
        runtime
            .rewrite_names([(last, &name)].into_iter())
            .expect("written");
        assert!(!runtime.names_overflow(1));
        assert_eq!(runtime.names().expect("names").len(), 1);
    }

    #[test]
    fn a_second_agent_is_told_that_there_is_a_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let _first = Runtime::open(directory.path()).expect("a runtime");
        assert!(matches!(
            Runtime::open(directory.path()),
            Err(RuntimeError::InUse(_))
        ));
    }
}
