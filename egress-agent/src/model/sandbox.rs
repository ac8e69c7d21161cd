//! Names of sandboxes.

use std::fmt;

/// A sandbox's name: also the name of its cgroup directory, so it is kept to
/// characters that need no quoting anywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SandboxName(Box<str>);

/// Why text is not a sandbox name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` is not a sandbox name: use 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`, starting with a letter or digit"
)]
pub struct SandboxNameError(String);

impl SandboxName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, SandboxNameError> {
        let fits = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            // The kernel's own files in a cgroup directory all hold a dot after
            // such a prefix; a child of that name could not be made.
            && !["cgroup.", "cpu.", "memory.", "io.", "pids.", "cpuset.", "hugetlb.", "misc.", "rdma.", "irq."]
                .iter()
                .any(|prefix| text.starts_with(prefix));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(SandboxNameError(text.to_owned()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SandboxName;

    #[test]
    fn names_cannot_leave_their_directory_or_shadow_kernel_files() {
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "-a",
            "cgroup.procs",
            "memory.max",
            "a b",
            &"a".repeat(65),
        ] {
            assert!(SandboxName::parse(text).is_err(), "{text:?}");
        }
        for text in ["ci-build.1", "A", "0_x"] {
            assert!(SandboxName::parse(text).is_ok(), "{text:?}");
        }
    }
}
