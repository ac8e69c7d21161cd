//! Where packages of Debian's releases come from.

use std::process::Command;

/// An archive of Debian, as apt knows it.
#[derive(Clone, Copy, Debug)]
pub enum Archive {
    /// The releases.
    Releases,
    /// What is mended in them.
    Security,
}

impl Archive {
    fn label(self) -> &'static str {
        match self {
            Self::Releases => "Debian",
            Self::Security => "Debian-Security",
        }
    }

    /// Where it is, when apt does not know it.
    fn usual_place(self) -> &'static str {
        match self {
            Self::Releases => "http://deb.debian.org/debian",
            Self::Security => "http://deb.debian.org/debian-security",
        }
    }

    /// The mirror that this machine's apt uses.
    pub fn mirror(self) -> String {
        let targets = Command::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI)"])
            .arg("Created-By: Packages")
            .arg(format!("Label: {}", self.label()))
            .output();
        let known = targets
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        let first = known.lines().next().unwrap_or(self.usual_place());
        first.trim_end_matches('/').to_owned()
    }

    /// A line for apt's sources that adds a release, which has to be signed.
    pub fn source(self, release: &str) -> String {
        source(&self.mirror(), release)
    }
}

/// What every release is signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn source(mirror: &str, release: &str) -> String {
    format!("deb [signed-by={KEYRING}] {mirror} {release} main\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_the_keys_that_have_signed_it() {
        assert_eq!(
            source("http://mirror.example/debian", "sid"),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://mirror.example/debian sid main\n"
        );
    }
}
