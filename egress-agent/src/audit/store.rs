//! The store: one file, one writer.

use crate::audit::postgres::Shipper;
use crate::audit::recorder::Shared;
use crate::audit::writer::Writer;
use crate::audit::{AuditError, CheckpointRule, Health, Hider, Reader, Recorder, Retention, open};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// The bounds of the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name: letters, digits, `.`, `-` and `_`. It is given to a chain
    /// at its beginning and stays.
    pub node: String,
    /// Hides names and addresses.
    pub hider: Option<Hider>,
    /// Records that may wait. What comes beyond is counted, and the count recorded.
    pub queue: usize,
    /// Records per transaction.
    pub batch: usize,
    /// How long a transaction waits for more records, unless somebody waits for it
    /// ([`Recorder::flush`]). Each commit waits for the disk. What waits here is seen by no reader yet, and
    /// lost with the machine's power.
    pub linger: Duration,
    /// How long one attempt waits for somebody else's lock on the database.
    pub busy_timeout: Duration,
    /// The largest size of the database file; its log may take some 130 MiB beside
    /// it. At the bound nothing is deleted: records are counted as lost.
    pub max_bytes: Option<u64>,
    /// When the node signs.
    pub checkpoints: CheckpointRule,
    /// How long records are kept.
    pub retention: Retention,
    /// How often the file is looked at for damage, at most once a second.
    pub probe: Duration,
    /// The URL of a PostgreSQL database that records are shipped to.
    pub postgres: Option<String>,
    /// The file in which decisions are counted while the machine runs, best in memory: whoever
    /// decides waits for it. `None` is beside the database.
    pub decisions: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node: host_name(),
            hider: None,
            queue: 65_536,
            batch: 16_384,
            linger: Duration::from_millis(100),
            busy_timeout: Duration::from_secs(2),
            max_bytes: None,
            checkpoints: CheckpointRule::default(),
            retention: Retention::default(),
            probe: Duration::from_secs(60),
            postgres: None,
            decisions: None,
        }
    }
}

/// The machine's name, with what no node's name may have replaced by `-`.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name
    }
}

/// An open audit store.
///
/// When it is dropped, what was handed over is still written, as long as the
/// runtime lives; [`Store::close`] waits for that.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    node: String,
    notes: watch::Receiver<Option<String>>,
    recorder: Recorder,
    writer: JoinHandle<()>,
    shipper: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store at `path` with the default bounds; makes it if it is not there.
    pub async fn open(path: &Path) -> Result<Self, AuditError> {
        Self::open_with(path, Options::default()).await
    }

    /// Opens the store with other bounds.
    pub async fn open_with(path: &Path, options: Options) -> Result<Self, AuditError> {
        let (file, aside) = open::own(path, &options).await?;
        let path = file.path.clone();
        let (sender, receiver) = mpsc::channel(options.queue.max(1));
        let shared = Arc::new(Shared::default());
        let postgres = options.postgres.clone();
        if postgres.is_some() {
            // Until PostgreSQL says how much it has, retention takes nothing.
            shared.shipped.store(0, Ordering::Release);
        }
        let writer = Writer::new(file, aside, receiver, Arc::clone(&shared), options).await?;
        let notes = writer.notes();
        let node = writer.node().to_owned();
        let shipper = match postgres {
            Some(url) => {
                let local = Reader::open(&path).await?.pool().clone();
                Some(tokio::spawn(
                    Shipper::new(url, local, Arc::clone(&shared)).run(),
                ))
            }
            None => None,
        };
        Ok(Self {
            path,
            node,
            notes,
            recorder: Recorder::new(sender, shared),
            writer: tokio::spawn(writer.run()),
            shipper,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's name, as its chain has it.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A handle to record with.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// The node's signed checkpoints, as they come: for whoever keeps them elsewhere.
    pub fn checkpoints(&self) -> watch::Receiver<Option<String>> {
        self.notes.clone()
    }

    /// A reader of the same file.
    pub async fn reader(&self) -> Result<Reader, AuditError> {
        Reader::open(&self.path).await
    }

    /// The state of the store.
    pub fn health(&self) -> Health {
        self.recorder.health()
    }

    /// Writes what waits and closes the file. Records that arrive later are lost.
    pub async fn close(mut self, deadline: Duration) -> Result<(), AuditError> {
        self.recorder.close();
        // What is not shipped is shipped by the next agent.
        if let Some(shipper) = &self.shipper {
            shipper.abort();
        }
        if tokio::time::timeout(deadline, &mut self.writer)
            .await
            .is_ok()
            && self.recorder.waiting() == 0
        {
            return Ok(());
        }
        self.writer.abort();
        Err(self.recorder.unwritten(deadline))
    }
}
