//! The node's key: where it lies, and how another takes its place.
//!
//! `audit.key` signs; `audit.key.next` waits to take over; `audit.pub` has the
//! public keys that ever signed, one a line, for whoever verifies on the node.

use crate::audit::AuditError;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::note::PublicKey;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// The files of a store's key, which lie beside the store.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    current: PathBuf,
    next: PathBuf,
    public: PathBuf,
    checkpoint: PathBuf,
}

impl KeyFiles {
    /// The files of the store at `path`.
    pub fn beside(path: &Path) -> Self {
        Self {
            current: path.with_extension("key"),
            next: path.with_extension("key.next"),
            public: path.with_extension("pub"),
            checkpoint: path.with_extension("checkpoint"),
        }
    }

    /// The key that signs, made if there is none.
    pub(super) fn current(&self) -> Result<Ed25519KeyPair, AuditError> {
        // A rotation that was interrupted between its two renames.
        if !self.current.exists() && self.next.exists() {
            std::fs::rename(&self.next, &self.current).map_err(io("rename", &self.current))?;
        }
        if let Some(pair) = read(&self.current)? {
            return Ok(pair);
        }
        make(&self.current)?;
        read(&self.current)?.ok_or_else(|| AuditError::Key {
            path: self.current.clone(),
            problem: "it vanished as soon as it was made".to_owned(),
        })
    }

    /// The key that waits, if one does.
    pub(super) fn next(&self) -> Result<Option<Ed25519KeyPair>, AuditError> {
        read(&self.next)
    }

    /// Makes a key that the agent takes over to within a second, or at its next
    /// start. Returns false if one waits already.
    pub fn request_rotation(&self) -> Result<bool, AuditError> {
        if self.next.exists() {
            return Ok(false);
        }
        make(&self.next).map(|()| true)
    }

    /// The key that waited is the current one from now on. The old one is kept
    /// under a name of its own: it is what proves who signed before.
    pub(super) fn rotate(&self, old: &PublicKey) -> Result<(), AuditError> {
        let id = old.to_string();
        let id = id.split('+').nth(1).unwrap_or("old");
        let mut kept = self.current.clone().into_os_string();
        kept.push(format!(".{id}"));
        std::fs::rename(&self.current, &kept)
            .and_then(|()| std::fs::rename(&self.next, &self.current))
            .map_err(io("rename", &self.current))
    }

    /// Notes a public key for whoever verifies on this node.
    pub(super) fn publish(&self, key: &PublicKey) -> Result<(), AuditError> {
        let line = key.to_string();
        let text = match std::fs::read_to_string(&self.public) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io("read", &self.public)(error)),
        };
        if text.lines().any(|known| known == line) {
            return Ok(());
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.public)
            .and_then(|mut file| {
                writeln!(file, "{line}")?;
                file.sync_all()
            })
            .map_err(io("write", &self.public))
    }

    /// Writes the last checkpoint down beside the store: what is known of the
    /// chain if the store itself cannot be read any more.
    pub(super) fn keep_checkpoint(&self, note: &str) -> Result<(), AuditError> {
        let directory = self.checkpoint.parent().unwrap_or(Path::new("."));
        let failed = |error| io("write", &self.checkpoint)(error);
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        file.write_all(note.as_bytes()).map_err(failed)?;
        file.persist(&self.checkpoint)
            .map(drop)
            .map_err(|error| failed(error.error))
    }

    /// The last checkpoint that was written down.
    pub(super) fn last_checkpoint(&self) -> Option<Checkpoint> {
        let note = std::fs::read_to_string(&self.checkpoint).ok()?;
        Checkpoint::unverified(&note).ok()
    }

    /// The last note under this name, as it was signed.
    pub(super) fn last_note(&self, origin: &str) -> Option<String> {
        let note = std::fs::read_to_string(&self.checkpoint).ok()?;
        (note.lines().next() == Some(origin)).then_some(note)
    }

    /// The public keys of this node.
    pub fn public(&self) -> Result<Vec<PublicKey>, AuditError> {
        read_public(&self.public)
    }
}

/// Reads public keys, one a line; empty lines and `#` comments are passed over.
pub fn read_public(path: &Path) -> Result<Vec<PublicKey>, AuditError> {
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            line.parse().map_err(|error| AuditError::Key {
                path: path.to_owned(),
                problem: format!("{error}"),
            })
        })
        .collect()
}

/// Reads a private key in PKCS#8, as PEM.
fn read(path: &Path) -> Result<Option<Ed25519KeyPair>, AuditError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path)(error)),
    };
    let pair = text
        .trim()
        .strip_prefix(BEGIN)
        .and_then(|text| text.strip_suffix(END))
        .map(|text| text.split_whitespace().collect::<String>())
        .and_then(|text| BASE64.decode(text).ok())
        .and_then(|der| Ed25519KeyPair::from_pkcs8(&der).ok());
    pair.map(Some).ok_or_else(|| AuditError::Key {
        path: path.to_owned(),
        problem: "it is no Ed25519 key in PKCS#8 as PEM; restore it, or move it away to have \
                  the agent make another, which begins a new line of trust"
            .to_owned(),
    })
}

/// Makes a key, whole or not at all, readable for its owner only.
fn make(path: &Path) -> Result<(), AuditError> {
    let refuse = |problem: &str| AuditError::Key {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let pair = Ed25519KeyPair::generate().map_err(|_| refuse("none could be made"))?;
    let der = pair
        .to_pkcs8v1()
        .map_err(|_| refuse("it could not be encoded"))?;
    let text = format!("{BEGIN}\n{}\n{END}\n", BASE64.encode(der.as_ref()));
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(io("create", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(io("write", path))?;
    file.persist_noclobber(path)
        .map_err(|error| io("create", path)(error.error))?;
    // The name itself has to survive a power cut, too.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io("write", directory))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AuditError {
    move |source| AuditError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = KeyFiles::beside(&directory.path().join("audit.db"));
        let first = PublicKey::of("n", &files.current().expect("a key")).expect("a key");
        let again = PublicKey::of("n", &files.current().expect("a key")).expect("a key");
        assert_eq!(first, again);
        files.keep_checkpoint("note").expect("kept");
        assert_eq!(files.last_checkpoint(), None, "it is no checkpoint");
        let mode = files
            .current
            .metadata()
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = KeyFiles::beside(&directory.path().join("audit.db"));
        std::fs::write(&files.current, "-----BEGIN PRIVATE KEY-----\nAAAA\n").expect("a file");
        let error = files.current().expect_err("no key").to_string();
        assert!(
            error.contains("audit.key") && error.contains("restore"),
            "{error}"
        );
    }

    #[test]
    fn a_rotation_keeps_the_old_key_and_is_asked_for_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = KeyFiles::beside(&directory.path().join("audit.db"));
        let old = PublicKey::of("n", &files.current().expect("a key")).expect("a key");
        assert!(files.request_rotation().expect("a key"));
        assert!(!files.request_rotation().expect("one waits"));
        files.rotate(&old).expect("rotated");
        let new = PublicKey::of("n", &files.current().expect("a key")).expect("a key");
        assert!(!new.is_same_key(&old));
        assert!(files.next().expect("readable").is_none());
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("files").count(),
            2
        );
    }
}
