//! The newest version of each bundle that was in force on this host: a host
//! never goes back.

use super::content::Content;
use super::replace;
use crate::bundle::{Bundle, Manifest};
use crate::policy::Diagnostic;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FILE: &str = "bundle-versions.json";

/// The newest version of each bundle.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Versions {
    /// The name of the last bundle in force.
    last: Option<String>,
    /// By name.
    newest: BTreeMap<String, Newest>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    version: u64,
    /// SHA-256 of the archive, hexadecimal.
    sha256: String,
}

fn digest(archive: &[u8]) -> String {
    Sha256::digest(archive)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Versions {
    /// Reads what was noted in a state directory. A file that cannot be
    /// understood is a problem: without it an old bundle would be believed.
    pub(super) fn read(directory: &Path) -> Result<Self, Diagnostic> {
        let path = directory.join(FILE);
        let problem = |error: String| {
            Diagnostic::about_file(
                "bundle",
                path.as_path(),
                format!("cannot read `{}`: {error}", path.display()),
            )
            .help("restore it; or remove it, if any signed bundle may come into force again, also an older one")
        };
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| problem(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(problem(error.to_string())),
        }
    }

    /// Whether a bundle may come into force; else why not, and what to do.
    pub(super) fn check(
        &self,
        manifest: &Manifest,
        archive: &[u8],
        wanted: Option<&str>,
    ) -> Result<(), (String, &'static str)> {
        let (name, version) = (&manifest.name, manifest.version);
        match (wanted, &self.last) {
            (Some(wanted), _) if wanted != name => {
                return Err((
                    format!("it is `{name}`, and this host takes `{wanted}`"),
                    "install the right bundle, or mend `[bundle] name`",
                ));
            }
            (None, Some(last)) if last != name => {
                return Err((
                    format!("it is `{name}`, and what was in force is `{last}`"),
                    "if this host is to change over, set `[bundle] name` in the configuration",
                ));
            }
            _ => {}
        }
        let Some(newest) = self.newest.get(name) else {
            return Ok(());
        };
        if version < newest.version {
            return Err((
                format!(
                    "version {version} is older than version {}, which was in force",
                    newest.version
                ),
                "make a bundle with a higher version; to go back, give the old content a new version",
            ));
        }
        if version == newest.version && digest(archive) != newest.sha256 {
            return Err((
                format!("version {version} was in force with another content"),
                "give each content a version of its own",
            ));
        }
        Ok(())
    }

    /// Notes that this is in force.
    pub(super) fn note(&mut self, content: &Content, directory: &Path) -> io::Result<()> {
        let Content::Bundle { archive, .. } = content else {
            return Ok(());
        };
        let archive = archive.as_bytes();
        let manifest = Bundle::decode(archive).map_err(io::Error::other)?.manifest;
        self.last = Some(manifest.name.clone());
        let newest = Newest {
            version: manifest.version,
            sha256: digest(archive),
        };
        self.newest.insert(manifest.name, newest);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        replace(&directory.join(FILE), &text)
    }
}
