//! What was read: the texts of loose files, or a bundle with its signatures.

use super::versions::Versions;
use crate::bundle::{Bundle, Signatures, suffixes};
use crate::daemon::config::{BundleSettings, Config};
use crate::policy::Diagnostic;
use crate::policy::load::{self, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The largest bundle or signature file that is read, in bytes; what is larger
/// is refused by `bundle` in better words.
const MAX_FILE: u64 = 128 * 1024 * 1024;

/// What was read, and what is kept of it on disk.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Content {
    /// Loose files.
    Files {
        /// In the order in which they were read.
        files: Vec<File>,
    },
    /// A bundle and the texts of its signature files.
    Bundle {
        /// The archive; it holds text only.
        archive: String,
        /// The signatures.
        signatures: Vec<String>,
    },
}

/// A loose file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    path: PathBuf,
    text: String,
}

/// Policy files that may come into force.
pub(super) struct Believed {
    /// The files.
    pub texts: Vec<Text>,
    /// Where they came from, in words.
    pub from: String,
    /// Who signed them; `None` for loose files.
    pub signer: Option<String>,
}

/// The signature files that a bundle may have beside it.
pub(super) fn signature_files(bundle: &Path) -> impl Iterator<Item = PathBuf> {
    suffixes().into_iter().map(|suffix| {
        let mut name = bundle.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

impl Content {
    /// Reads what a configuration names; problems with single loose files come
    /// beside the others.
    pub(super) fn read(config: &Config) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        if let Some(bundle) = &config.bundle {
            let loose = loose_files(&config.policies);
            if !loose.is_empty() {
                return Err(loose);
            }
            let content = read_bundle(&bundle.file).map_err(|problem| vec![problem])?;
            return Ok((content, Vec::new()));
        }
        let (texts, problems) = load::texts(&config.policies);
        let files = texts
            .into_iter()
            .map(|Text { path, text }| File { path, text })
            .collect();
        Ok((Self::Files { files }, problems))
    }

    pub(super) const fn is_bundle(&self) -> bool {
        match self {
            Self::Files { .. } => false,
            Self::Bundle { .. } => true,
        }
    }

    /// The policy files in it by their names, for comparison: nothing is believed
    /// of them. What is no bundle has none.
    pub(super) fn files(&self) -> BTreeMap<String, String> {
        match self {
            Self::Files { files } => files
                .iter()
                .map(|file| (file.path.display().to_string(), file.text.clone()))
                .collect(),
            Self::Bundle { archive, .. } => Bundle::decode(archive.as_bytes())
                .map(|bundle| bundle.files)
                .unwrap_or_default()
                .into_iter()
                .map(|member| (member.name, member.text))
                .collect(),
        }
    }

    /// The policy files in it, once it is believed, and where they came from.
    pub(super) fn texts(
        &self,
        config: &Config,
        versions: &Versions,
    ) -> Result<Believed, Vec<Diagnostic>> {
        match (self, &config.bundle) {
            (Self::Files { files }, _) => {
                let texts = files.iter().map(|File { path, text }| Text {
                    path: path.clone(),
                    text: text.clone(),
                });
                Ok(Believed {
                    texts: texts.collect(),
                    from: "files".into(),
                    signer: None,
                })
            }
            (
                Self::Bundle {
                    archive,
                    signatures,
                },
                Some(settings),
            ) => believed(archive.as_bytes(), signatures, settings, versions)
                .map_err(|problem| vec![problem]),
            // Whoever calls has compared the two.
            (Self::Bundle { .. }, None) => Err(Vec::new()),
        }
    }
}

/// Verifies a bundle: first the signature, since nothing else of it is believed
/// before; then the content; then that it is not older than what was in force.
fn believed(
    archive: &[u8],
    signatures: &[String],
    settings: &BundleSettings,
    versions: &Versions,
) -> Result<Believed, Diagnostic> {
    let refuse = |message: String, help: &str| {
        Diagnostic::about_file(
            "bundle",
            settings.file.as_path(),
            format!("the bundle `{}`: {message}", settings.file.display()),
        )
        .help(help)
    };
    let signer = Signatures(signatures.to_vec())
        .signer(archive, &settings.keys)
        .map_err(|error| {
            refuse(
                error.to_string(),
                "sign it with one of the keys in `[bundle] keys`: `ssh-keygen -Y sign -n egress-policy -f KEY FILE`, or `minisign -S -m FILE`",
            )
        })?;
    let bundle = Bundle::decode(archive).map_err(|error| {
        refuse(
            error.to_string(),
            "make it again with `egressctl bundle create`",
        )
    })?;
    versions
        .check(&bundle.manifest, archive, settings.name.as_deref())
        .map_err(|(problem, help)| refuse(problem, help))?;
    let texts = bundle.files.into_iter().map(|member| Text {
        path: settings.file.join(member.name),
        text: member.text,
    });
    let from = format!(
        "bundle {} version {} of {}, signed by {signer}",
        bundle.manifest.name, bundle.manifest.version, bundle.manifest.created
    );
    Ok(Believed {
        texts: texts.collect(),
        from,
        signer: Some(signer.to_string()),
    })
}

fn read_bundle(path: &Path) -> Result<Content, Diagnostic> {
    let unreadable = |path: &Path, error: &io::Error| {
        let help = "`[bundle] keys` are configured, so policies come as a signed bundle: `egressctl bundle install FILE`";
        Diagnostic::about_file(
            "bundle",
            path,
            format!("cannot read `{}`: {error}", path.display()),
        )
        .help(help)
    };
    let archive = read_text(path).map_err(|error| unreadable(path, &error))?;
    let mut signatures = Vec::new();
    for file in signature_files(path) {
        match read_text(&file) {
            Ok(text) => signatures.push(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&file, &error)),
        }
    }
    Ok(Content::Bundle {
        archive,
        signatures,
    })
}

fn read_text(path: &Path) -> io::Result<String> {
    use std::io::Read;
    // Asked before opening: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Policy files outside a bundle, each a problem.
fn loose_files(paths: &[PathBuf]) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for path in paths {
        if !path.exists() {
            continue;
        }
        match load::listed(path) {
            Ok(files) => problems.extend(files.into_iter().map(|file| {
                let message = format!(
                    "`{}` is in no signed bundle, and `[bundle] keys` are configured: whoever can write this file could change what is allowed without a signature",
                    file.display()
                );
                Diagnostic::about_file("loose-file", file, message)
                    .help("put it into the next bundle and remove it here")
            })),
            Err(problem) => problems.push(problem),
        }
    }
    problems
}
