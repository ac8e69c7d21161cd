//! Where packages of Debian's releases come from.

use std::process::Command;

/// The mirror, when apt does not know one.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// What every release is signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The mirror that this machine's apt uses for Debian.
pub fn mirror() -> String {
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)"])
        .args(["Created-By: Packages", "Label: Debian"])
        .output();
    let known = targets
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let first = known.lines().next().unwrap_or(DEFAULT_MIRROR);
    first.trim_end_matches('/').to_owned()
}

/// A line for apt's sources that adds a release, which has to be signed.
pub fn source(mirror: &str, release: &str) -> String {
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
