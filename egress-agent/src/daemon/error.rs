//! What keeps an agent from starting.

use super::book::BookError;
use super::runtime::RuntimeError;
use crate::audit::AuditError;
use crate::dns::BindError;
use crate::enforcer::EnforcerError;
use crate::policy::Diagnostic;
use crate::policy::render::{Colour, diagnostics_text};
use crate::sandbox::CgroupError;

/// Why the agent cannot start or change.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant is its source, which is documented"
)]
pub enum AgentError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Enforcer(#[from] EnforcerError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Resolver(#[from] BindError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("the policies cannot be used:\n{}", diagnostics_text(.0, Colour::No).trim_end())]
    Policy(Vec<Diagnostic>),
    #[error(
        "cannot watch what limits do (inotify): {0}; see `sysctl fs.inotify.max_user_instances`"
    )]
    Watch(std::io::Error),
    #[error(
        "there is no upstream resolver: /etc/resolv.conf names none; set `upstreams` in the \
         configuration, or give `--upstream ADDRESS`"
    )]
    NoUpstream,
    /// An upstream could not be told from an impostor.
    #[error("upstream {upstream}: {error}")]
    Upstream {
        /// Which.
        upstream: String,
        /// Why.
        error: crate::dns::IdentityError,
    },
    /// The static entries cannot be read.
    #[error("`dns.hosts_file`: {0}")]
    Hosts(String),
}

impl AgentError {
    /// Whether somebody has to correct a configuration or policy file.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Policy(_)
                | Self::NoUpstream
                | Self::Upstream { .. }
                | Self::Hosts(_)
                | Self::Cgroup(CgroupError::Name(_))
        )
    }

    /// Whether the process lacks a right that it needs.
    pub const fn is_not_permitted(&self) -> bool {
        matches!(
            self,
            Self::Cgroup(CgroupError::NotPermitted(_))
                | Self::Enforcer(EnforcerError::NotPermitted(_))
        )
    }
}
