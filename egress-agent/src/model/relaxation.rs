//! The points of a sandbox's fence that a policy may open, by name only.
//!
//! Everything else about the fence is fixed. A point that is open is told
//! wherever the sandbox is told of, down to each of its audit records.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// A point of the fence that a policy opens.
///
/// Its text is the same in policies (`sandbox.relax`), in answers of the API and
/// in audit records: `ptrace`, `user-namespaces`, `host-socket:/run/a.sock`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Relaxation {
    /// The command runs as the superuser. Written as `sandbox.user: root`.
    Root,
    /// Processes of the sandbox may trace each other: for debuggers.
    Ptrace,
    /// User namespaces, and mounts inside of them: for browsers and tools that
    /// make sandboxes of their own.
    UserNamespaces,
    /// A Unix socket of the host at this absolute path can be reached.
    HostSocket(PathBuf),
}

/// What stands before the path of a [`Relaxation::HostSocket`].
const HOST_SOCKET: &str = "host-socket:";

/// Why text is not a relaxation.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RelaxationError {
    /// There is no point of that name.
    #[error(
        "there is no relaxation `{0}`; the names are: ptrace, user-namespaces, host-socket:/PATH"
    )]
    Unknown(String),
    /// The path could be read in two ways.
    #[error("`{0}` is not an absolute path without `.`, `..` and control characters")]
    Path(String),
}

impl Relaxation {
    /// The points that a policy lists under `sandbox.relax`, as they are written.
    pub const WRITTEN: [&str; 3] = ["ptrace", "user-namespaces", "host-socket:/PATH"];

    /// What is given away, to follow the name.
    pub const fn gives_away(&self) -> &'static str {
        match self {
            Self::Root => {
                "files and sockets of root are the command's own; it has no capability all the same"
            }
            Self::Ptrace => {
                "processes of the sandbox may read, write and steer each other; none outside is seen"
            }
            Self::UserNamespaces => {
                "the command has every capability over namespaces of its own, and with that far more \
                 of the kernel to attack; its sockets stay under this policy"
            }
            Self::HostSocket(_) => {
                "whoever listens there may act for the command, outside of this policy"
            }
        }
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Ptrace => f.write_str("ptrace"),
            Self::UserNamespaces => f.write_str("user-namespaces"),
            Self::HostSocket(path) => write!(f, "{HOST_SOCKET}{}", path.display()),
        }
    }
}

impl FromStr for Relaxation {
    type Err = RelaxationError;

    fn from_str(text: &str) -> Result<Self, RelaxationError> {
        match text {
            "root" => return Ok(Self::Root),
            "ptrace" => return Ok(Self::Ptrace),
            "user-namespaces" => return Ok(Self::UserNamespaces),
            _ => {}
        }
        let Some(path) = text.strip_prefix(HOST_SOCKET) else {
            return Err(RelaxationError::Unknown(text.to_owned()));
        };
        // Rebuilding from the components leaves out `.` and doubled slashes.
        let mut rebuilt = PathBuf::new();
        let plain = Path::new(path).components().all(|component| {
            rebuilt.push(component);
            matches!(component, Component::RootDir | Component::Normal(_))
        });
        let fits = plain
            && path.starts_with('/')
            && path.len() > 1
            && rebuilt.as_os_str() == path
            && !path.chars().any(char::is_control);
        if fits {
            Ok(Self::HostSocket(rebuilt))
        } else {
            Err(RelaxationError::Path(path.to_owned()))
        }
    }
}

impl TryFrom<String> for Relaxation {
    type Error = RelaxationError;

    fn try_from(text: String) -> Result<Self, RelaxationError> {
        text.parse()
    }
}

impl From<Relaxation> for String {
    fn from(relaxation: Relaxation) -> Self {
        relaxation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{Relaxation, RelaxationError};

    #[test]
    fn every_relaxation_reads_back_as_what_was_written() {
        for text in [
            "root",
            "ptrace",
            "user-namespaces",
            "host-socket:/run/a b/s",
        ] {
            let read: Relaxation = text.parse().expect(text);
            assert_eq!(read.to_string(), text);
            assert!(!read.gives_away().is_empty());
        }
    }

    #[test]
    fn nothing_is_relaxed_by_a_name_that_is_almost_right() {
        for text in [
            "",
            "Ptrace",
            "ptrace ",
            "all",
            "host-socket",
            "host_socket:/x",
        ] {
            let refused = text.parse::<Relaxation>();
            assert_eq!(refused, Err(RelaxationError::Unknown(text.to_owned())));
        }
        for path in [
            "",
            "/",
            "run/a",
            "/run/../a",
            "/run/./a",
            "/run//a",
            "/run/a/",
            "/run/\n",
        ] {
            let refused = format!("host-socket:{path}").parse::<Relaxation>();
            assert_eq!(refused, Err(RelaxationError::Path(path.to_owned())));
        }
    }
}
