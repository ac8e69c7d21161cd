//! The archive: a tar of a manifest and policy files, the same bytes for the
//! same content wherever it is made.

use super::error::BundleError;
use super::manifest::{Listed, Manifest};
use sha2::{Digest, Sha256};
use std::io::Read;
use tar::{Archive, Builder, EntryType, Header};

/// The largest bundle, in bytes.
pub const MAX_BUNDLE: u64 = 64 * 1024 * 1024;
const MANIFEST: &str = "manifest.json";

/// A policy file in a bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name, without any directory.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is in a bundle. That it is complete says nothing about who made it:
/// see [`super::Signatures`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Its files, in the order of their names.
    pub files: Vec<Member>,
}

impl Bundle {
    /// Joins files to a bundle.
    pub fn new(
        name: &str,
        version: u64,
        created: String,
        mut files: Vec<Member>,
    ) -> Result<Self, BundleError> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let listed = files.iter().map(|file| Listed {
            name: file.name.clone(),
            sha256: sha256(file.text.as_bytes()),
        });
        Ok(Self {
            manifest: Manifest::new(name, version, created, listed.collect())?,
            files,
        })
    }

    /// The archive. It depends on the content only, not on who makes it, where
    /// or when.
    pub fn encode(&self) -> Result<Vec<u8>, BundleError> {
        let manifest = self.manifest.text()?;
        let mut tar = Builder::new(Vec::new());
        let members = std::iter::once((MANIFEST, manifest.as_str())).chain(
            self.files
                .iter()
                .map(|file| (file.name.as_str(), file.text.as_str())),
        );
        let failed = |error: std::io::Error| BundleError::Archive(error.to_string());
        for (name, text) in members {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes())
                .map_err(failed)?;
        }
        let bytes = tar.into_inner().map_err(failed)?;
        if bytes.len() as u64 > MAX_BUNDLE {
            return Err(BundleError::TooLarge);
        }
        Ok(bytes)
    }

    /// Reads an archive. It must hold the manifest, then exactly the files that
    /// the manifest names, each with its digest.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() as u64 > MAX_BUNDLE {
            return Err(BundleError::TooLarge);
        }
        let failed = |error: std::io::Error| BundleError::Archive(error.to_string());
        let mut archive = Archive::new(bytes);
        let mut members = archive.entries().map_err(failed)?.map(|entry| {
            let entry = entry.map_err(failed)?;
            let path = entry.path().map_err(failed)?;
            let name = path.to_string_lossy().into_owned();
            drop(path);
            text_of(name, entry)
        });
        let first = members.next().ok_or(BundleError::NoManifest)??;
        if first.name != MANIFEST {
            return Err(BundleError::NoManifest);
        }
        let manifest = Manifest::parse(&first.text)?;
        let mut files = Vec::with_capacity(manifest.files.len());
        for listed in &manifest.files {
            let refuse = |problem| {
                Err(BundleError::Member {
                    name: listed.name.clone(),
                    problem,
                })
            };
            let Some(member) = members.next().transpose()? else {
                return refuse("the manifest names it, and it is not there");
            };
            if member.name != listed.name {
                return refuse("another file stands where the manifest names it");
            }
            if sha256(member.text.as_bytes()) != listed.sha256 {
                return refuse("its digest is not the one in the manifest");
            }
            files.push(member);
        }
        if let Some(more) = members.next().transpose()? {
            return Err(BundleError::Member {
                name: more.name,
                problem: "the manifest does not name it",
            });
        }
        Ok(Self { manifest, files })
    }
}

fn text_of(name: String, entry: tar::Entry<'_, impl Read>) -> Result<Member, BundleError> {
    if entry.header().entry_type() != EntryType::Regular {
        return Err(BundleError::Member {
            name,
            problem: "it is no regular file",
        });
    }
    let mut text = String::new();
    // The whole archive is in memory already, so nothing is larger than that.
    match entry.take(MAX_BUNDLE).read_to_string(&mut text) {
        Ok(_) => Ok(Member { name, text }),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(BundleError::Member {
            name,
            problem: "it is not UTF-8",
        }),
        Err(error) => Err(BundleError::Archive(error.to_string())),
    }
}

/// SHA-256, hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Bundle, BundleError, Member};

    fn member(name: &str, text: &str) -> Member {
        Member {
            name: name.into(),
            text: text.into(),
        }
    }

    fn bundle(files: &[(&str, &str)]) -> Bundle {
        let files = files.iter().map(|(name, text)| member(name, text));
        Bundle::new("test", 7, "2026-11-26T00:00:00Z".into(), files.collect()).expect("a bundle")
    }

    #[test]
    fn the_bytes_depend_on_the_content_only() {
        let one = bundle(&[("a.yaml", "x: 1\n"), ("b.yaml", "y: 1\n")]);
        let other = bundle(&[("b.yaml", "y: 1\n"), ("a.yaml", "x: 1\n")]);
        let bytes = one.encode().expect("bytes");
        assert_eq!(bytes, other.encode().expect("bytes"));
        assert_eq!(Bundle::decode(&bytes), Ok(one));
        // What stands in the documentation: any `tar` reads it.
        assert_eq!(&bytes[257..262], b"ustar");
    }

    #[test]
    fn a_changed_a_missing_and_a_further_file_are_refused() {
        let good = bundle(&[("a.yaml", "x: 1\n"), ("b.yaml", "y: 1\n")]);
        let refused = |change: &dyn Fn(&mut Bundle)| {
            let mut changed = good.clone();
            change(&mut changed);
            let bytes = changed.encode().expect("bytes");
            Bundle::decode(&bytes).expect_err("it is not what the manifest says")
        };
        let problem = |error| match error {
            BundleError::Member { problem, .. } => problem,
            other => panic!("{other}"),
        };
        let changed = refused(&|bundle| bundle.files[0].text = "x: 2\n".into());
        assert!(problem(changed).contains("digest"));
        let missing = refused(&|bundle| drop(bundle.files.pop()));
        assert!(problem(missing).contains("not there"));
        let further = refused(&|bundle| bundle.files.push(member("c.yaml", "")));
        assert!(problem(further).contains("does not name it"));
        let swapped = refused(&|bundle| bundle.files.swap(0, 1));
        assert!(problem(swapped).contains("another file"));
    }

    #[test]
    fn what_is_no_bundle_is_refused_and_never_panics() {
        assert_eq!(Bundle::decode(b""), Err(BundleError::NoManifest));
        assert!(Bundle::decode(&[0x41; 1024]).is_err());
        let bytes = bundle(&[("a.yaml", "x: 1\n")]).encode().expect("bytes");
        for length in (0..bytes.len()).step_by(97) {
            let cut = Bundle::decode(&bytes[..length]);
            // What a tar ends with is two empty blocks, which may be missing.
            assert!(cut.is_err() || length >= 2048, "{length}");
        }
        for at in 0..1536 {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            // Only that it is no panic: the signature covers every byte.
            let _ = Bundle::decode(&changed);
        }
    }
}
