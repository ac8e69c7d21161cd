//! Where policies come from: loose files, or one signed bundle; and what was
//! good the last time, for a host that boots after a bad push.

mod approvals;
mod change;
mod content;
mod kept;
mod place;
mod versions;
mod watch;

pub use approvals::Approval;
pub use change::Change;
pub use place::{Before, place_bundle};
pub use watch::watch;

use super::config::Config;
use crate::policy::render::{Colour, diagnostics_text};
use crate::policy::{Diagnostic, PolicySet, load};
use content::{Believed, Content};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use versions::Versions;

/// How often files are read again that change while they are read.
const ATTEMPTS: usize = 5;
/// The pause before that.
const PAUSE: Duration = Duration::from_millis(50);

/// Policies that were read, understood and believed.
pub struct Loaded {
    /// The policies.
    pub policies: PolicySet,
    /// What `policy check` would warn about.
    pub warnings: Vec<Diagnostic>,
    /// In words: `files`, or which bundle.
    pub from: String,
    /// Who signed them; `None` for loose files.
    signer: Option<String>,
    content: Content,
}

/// What is told of the policies in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Where they came from, in words.
    pub from: String,
    /// Since when.
    pub since: Timestamp,
}

/// Where an agent's policies come from. Held for the whole of a reload, so that
/// of two at a time the later one counts.
pub struct Source {
    config: Config,
    versions: Versions,
    /// The files as they were at the last reading.
    seen: Fingerprint,
    /// Lists of names that the policies use; a new one is a push too.
    lists: BTreeSet<PathBuf>,
    in_force: Option<InForce>,
    problems: Problems,
}

/// What tells one state of the files from another without reading them: their
/// inodes, sizes and times, in the order of their names.
type Fingerprint = Vec<(PathBuf, Option<[i64; 5]>)>;

#[derive(Default)]
struct Problems {
    /// Why the last push was refused.
    push: Option<String>,
    /// Why what is in force could not be kept for the next start.
    keep: Option<String>,
}

impl Loaded {
    fn lists(&self) -> BTreeSet<PathBuf> {
        let lists = self.policies.iter().flat_map(|policy| policy.lists());
        lists.map(|list| list.path.clone()).collect()
    }
}

impl Source {
    /// The source that a configuration names.
    pub fn open(config: &Config) -> Result<Self, Vec<Diagnostic>> {
        let versions = Versions::read(&config.state_directory).map_err(|problem| vec![problem])?;
        Ok(Self {
            config: config.clone(),
            versions,
            seen: Vec::new(),
            lists: BTreeSet::new(),
            in_force: None,
            problems: Problems::default(),
        })
    }

    /// Reads what is there now.
    pub fn read(&mut self, now: Timestamp) -> Result<Loaded, Vec<Diagnostic>> {
        for _ in 0..ATTEMPTS {
            self.seen = self.fingerprint();
            let read = Content::read(&self.config);
            if self.seen == self.fingerprint() {
                let (content, problems) = read?;
                let loaded = self.understand(content, problems, now)?;
                let lists = loaded.lists();
                if lists == self.lists {
                    return Ok(loaded);
                }
                // They have to stand still while all is read, as the policies do.
                self.lists = lists;
                continue;
            }
            std::thread::sleep(PAUSE);
        }
        let path = self.watched().into_iter().next().unwrap_or_default();
        Err(vec![
            Diagnostic::about_file(
                "unreadable",
                path,
                "the policies are being changed while they are read",
            )
            .help("wait until they are written, and reload again"),
        ])
    }

    /// What a start uses: what is there now, else what was good the last time.
    /// That it is the latter is told by [`Self::warnings`].
    pub fn read_at_start(&mut self, now: Timestamp) -> Result<Loaded, Vec<Diagnostic>> {
        let problems = match self.read(now) {
            Ok(loaded) => return Ok(loaded),
            Err(problems) if self.config.ephemeral => return Err(problems),
            Err(problems) => problems,
        };
        match self.last_good(now) {
            Ok(Some(mut loaded)) => {
                self.note_refused(&diagnostics_text(&problems, Colour::No));
                loaded.from = format!("what was good the last time: {}", loaded.from);
                Ok(loaded)
            }
            Ok(None) => Err(problems),
            Err(more) => Err(problems.into_iter().chain(more).collect()),
        }
    }

    fn last_good(&self, now: Timestamp) -> Result<Option<Loaded>, Vec<Diagnostic>> {
        let Some(content) =
            kept::read(&self.config.state_directory).map_err(|problem| vec![problem])?
        else {
            return Ok(None);
        };
        // A host that now wants signatures does not go back to loose files.
        if self.config.bundle.is_some() != content.is_bundle() {
            return Ok(None);
        }
        self.understand(content, Vec::new(), now).map(Some)
    }

    fn understand(
        &self,
        content: Content,
        problems: Vec<Diagnostic>,
        now: Timestamp,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        let Believed {
            texts,
            from,
            signer,
        } = content.texts(&self.config, &self.versions)?;
        let (policies, warnings) = load::parse(&texts, problems, now)?;
        Ok(Loaded {
            policies,
            warnings,
            from,
            signer,
            content,
        })
    }

    /// What these policies change, as long as [`Self::note_in_force`] was not told
    /// of them: what was in force before is what was kept last.
    pub fn change(&self, loaded: &Loaded, now: Timestamp) -> Change {
        let before = kept::read(&self.config.state_directory).ok().flatten();
        let before = before.filter(|_| !self.config.ephemeral);
        Change {
            digest: change::digest(&loaded.policies),
            approvals: approvals::new(before.as_ref(), &loaded.policies, now),
            diff: before.and_then(|before| change::diff(&before, &loaded.content)),
            signer: loaded.signer.clone(),
        }
    }

    /// These policies are in force: they are kept for a start after a bad push,
    /// and older bundles are refused from now on.
    pub fn note_in_force(&mut self, loaded: &Loaded, now: Timestamp) {
        self.in_force = Some(InForce {
            from: loaded.from.clone(),
            since: now,
        });
        if self.config.ephemeral {
            return;
        }
        let directory = &self.config.state_directory;
        let kept = self
            .versions
            .note(&loaded.content, directory)
            .and_then(|()| kept::write(directory, &loaded.content));
        self.problems.keep = kept.err().map(|error| {
            format!("the policies in force could not be kept for a start after a bad push: {error}")
        });
        if let Some(problem) = &self.problems.keep {
            tracing::error!("{problem}");
        }
    }

    /// What is there now is in force.
    pub fn note_accepted(&mut self) {
        self.problems.push = None;
    }

    /// What is there now was refused; what is in force stays.
    pub fn note_refused(&mut self, why: &str) {
        self.problems.push = Some(format!(
            "the policies that are there now are refused, and those in force stay: {}",
            why.trim_end()
        ));
    }

    /// What is in force, once something is.
    pub fn in_force(&self) -> Option<&InForce> {
        self.in_force.as_ref()
    }

    /// What somebody should look at.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.problems.push.iter().chain(&self.problems.keep)
    }

    /// The files, if they are others than at the last reading.
    fn moved(&self) -> Option<Fingerprint> {
        Some(self.fingerprint()).filter(|there| *there != self.seen)
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut files = Vec::new();
        for path in self.watched() {
            // What cannot be listed has no files, which is a state too.
            files.extend(load::listed(&path).unwrap_or_default());
        }
        let of = |path: &Path| {
            let about = std::fs::metadata(path).ok()?;
            Some([
                about.ino().cast_signed(),
                about.size().cast_signed(),
                about.mtime(),
                about.mtime_nsec(),
                about.ctime_nsec(),
            ])
        };
        files
            .into_iter()
            .map(|path| {
                let state = of(&path);
                (path, state)
            })
            .collect()
    }

    /// The files and directories whose change is a push.
    pub fn watched(&self) -> Vec<PathBuf> {
        let lists = self.lists.iter().cloned();
        self.sources().into_iter().chain(lists).collect()
    }

    fn sources(&self) -> Vec<PathBuf> {
        let bundle = self.config.bundle.iter().flat_map(|bundle| {
            std::iter::once(bundle.file.clone()).chain(content::signature_files(&bundle.file))
        });
        self.config.policies.iter().cloned().chain(bundle).collect()
    }
}

/// Writes a file so that either the old or the new content is there, whatever
/// happens, and so that nobody but root reads it.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // What a crash left behind may be readable for others.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    // The rename itself must survive a power cut too.
    path.parent().map_or(Ok(()), |directory| {
        std::fs::File::open(directory)?.sync_all()
    })
}

#[cfg(test)]
mod tests;
