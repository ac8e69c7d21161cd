//! Cgroups that somebody else makes below the governed root.

use super::glob::Glob;

/// What a matcher of `applies_to` says about a cgroup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CgroupKind {
    /// A systemd service or scope.
    Unit,
    /// A systemd slice, with all that is in it.
    Slice,
    /// Any.
    Any,
}

/// A matcher for cgroups directly below the governed root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adoption {
    /// Which kind of cgroup.
    pub kind: CgroupKind,
    /// Its directory's name.
    pub glob: Glob,
}

impl Adoption {
    /// Whether a directory of this name is meant.
    pub fn matches(&self, directory: &str) -> bool {
        let ends = |endings: &[&str]| endings.iter().any(|ending| directory.ends_with(ending));
        let kind = match self.kind {
            CgroupKind::Unit => ends(&[".service", ".scope"]),
            CgroupKind::Slice => ends(&[".slice"]),
            CgroupKind::Any => true,
        };
        kind && self.glob.matches(directory)
    }
}

/// What happens to a process that somebody else started with more than the launcher
/// leaves one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnmetContract {
    /// Its cgroup stays denied.
    #[default]
    Refuse,
    /// It is told as a relaxation.
    Report,
}

#[cfg(test)]
mod tests {
    use super::{Adoption, CgroupKind, Glob};

    #[test]
    fn kinds_are_told_by_the_ending() {
        let adoption = |kind, text: &str| Adoption {
            kind,
            glob: Glob::parse_cgroup(text).expect("a pattern"),
        };
        assert!(adoption(CgroupKind::Unit, "web@*").matches("web@1.service"));
        assert!(!adoption(CgroupKind::Unit, "web*").matches("web.slice"));
        assert!(adoption(CgroupKind::Slice, "egress-*").matches("egress-a.slice"));
        assert!(adoption(CgroupKind::Any, "docker-*").matches("docker-0a.scope"));
        assert!(Glob::parse_cgroup("a/b").is_none());
        assert!(Glob::parse_cgroup("").is_none());
    }
}
