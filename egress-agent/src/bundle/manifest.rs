//! What a bundle says about itself.

use super::error::BundleError;
use serde::{Deserialize, Serialize};

/// The only format that there is.
const FORMAT: &str = "egress-bundle/v1";
/// The longest name.
const LONGEST_NAME: usize = 64;

/// Name, version and content of a bundle. The signature covers the archive, and
/// so all of this.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `egress-bundle/v1`.
    format: String,
    /// Which line of versions this belongs to: `production`, `build-hosts`.
    pub name: String,
    /// Grows with each bundle of a name; a host never goes back.
    pub version: u64,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The policy files in the order of their names.
    pub files: Vec<Listed>,
}

/// A policy file in a manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its name, without any directory.
    pub name: String,
    /// SHA-256 of its text, hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// A manifest of these files.
    pub fn new(
        name: &str,
        version: u64,
        created: String,
        files: Vec<Listed>,
    ) -> Result<Self, BundleError> {
        let manifest = Self {
            format: FORMAT.into(),
            name: name.to_owned(),
            version,
            created,
            files,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads one; what it does not know it refuses.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        let manifest: Self =
            serde_json::from_str(text).map_err(|error| BundleError::Manifest(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The text that goes into the archive.
    pub fn text(&self) -> Result<String, BundleError> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| BundleError::Manifest(error.to_string()))
    }

    fn check(&self) -> Result<(), BundleError> {
        let refuse = |problem: String| Err(BundleError::Manifest(problem));
        if self.format != FORMAT {
            return refuse(format!(
                "`{}` is no format that this version reads; it reads `{FORMAT}`",
                self.format
            ));
        }
        if self.name.is_empty()
            || self.name.len() > LONGEST_NAME
            || !self.name.bytes().all(is_plain)
        {
            return refuse(format!(
                "`{}` is no name: write at most {LONGEST_NAME} of a-z A-Z 0-9 - _ .",
                self.name
            ));
        }
        if self.version == 0 {
            return refuse("version 0 is before the first; versions begin at 1".into());
        }
        if let Some(wrong) = self.files.iter().find(|file| !is_policy_file(&file.name)) {
            return refuse(format!(
                "`{}` is no name of a policy file; it ends with .yaml or .yml and holds only a-z A-Z 0-9 - _ .",
                wrong.name
            ));
        }
        if !self.files.is_sorted_by(|a, b| a.name < b.name) {
            return refuse("its files are not in the order of their names, each once".into());
        }
        Ok(())
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whether a name can be that of a policy file: no directory, nothing hidden.
fn is_policy_file(name: &str) -> bool {
    let plain = !name.starts_with('.') && name.bytes().all(is_plain);
    let stem = name
        .strip_suffix(".yaml")
        .or_else(|| name.strip_suffix(".yml"));
    plain && stem.is_some_and(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Listed, Manifest, is_policy_file};

    fn listed(name: &str) -> Listed {
        Listed {
            name: name.into(),
            sha256: String::new(),
        }
    }

    #[test]
    fn only_plain_names_of_policy_files_are_taken() {
        for name in ["a.yaml", "10-ci.yml", "A_b.c.yaml"] {
            assert!(is_policy_file(name), "{name}");
        }
        for name in [
            "",
            ".yaml",
            ".a.yaml",
            "../a.yaml",
            "/etc/a.yaml",
            "d/a.yaml",
            "a.txt",
            "a b.yaml",
            "manifest.json",
        ] {
            assert!(!is_policy_file(name), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let with = |name: &str, version, files: &[&str]| {
            let files = files.iter().map(|name| listed(name)).collect();
            Manifest::new(name, version, String::new(), files)
        };
        assert!(with("production", 1, &["a.yaml", "b.yaml"]).is_ok());
        assert!(with("", 1, &[]).is_err());
        assert!(with("a/b", 1, &[]).is_err());
        assert!(with("production", 0, &[]).is_err());
        assert!(with("production", 1, &["b.yaml", "a.yaml"]).is_err());
        assert!(with("production", 1, &["a.yaml", "a.yaml"]).is_err());
        let text = with("production", 1, &[])
            .expect("good")
            .text()
            .expect("text");
        assert!(Manifest::parse(&text).is_ok());
        assert!(Manifest::parse(&text.replace("v1", "v2")).is_err());
        assert!(Manifest::parse(&text.replacen('{', "{\"more\":1,", 1)).is_err());
    }
}
