//! What can go wrong between the agent and the kernel, each with what to do.

use std::io;
use std::path::PathBuf;

/// Why enforcement could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum EnforcerError {
    /// The process may not use `bpf(2)`, or not end connections.
    #[error(
        "the kernel does not let this process enforce: {0}; run as root, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN"
    )]
    NotPermitted(io::Error),
    /// The directory that is to become the governed root cannot be opened.
    #[error("cannot open the governed root {path}: {error}")]
    Root {
        /// The cgroup directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A program was refused by this kernel.
    #[error(
        "this kernel does not accept the program `{program}`: {error}; Linux 6.1 or newer with CONFIG_CGROUP_BPF is needed\n{log}"
    )]
    Program {
        /// Its name.
        program: &'static str,
        /// What aya said.
        error: String,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// The object as a whole could not be loaded.
    #[error("cannot load the kernel object: {0}")]
    Object(String),
    /// A foreign program owns the attach point exclusively.
    #[error(
        "another program is attached exclusively to {path} or above it at `{program}`: {holders}; \
         detach it (`bpftool cgroup detach`), or attach it with the `multi` flag so that both can run"
    )]
    Exclusive {
        /// The governed root.
        path: PathBuf,
        /// Our program that found no place.
        program: &'static str,
        /// The programs that are there.
        holders: String,
    },
    /// The kernel refused to attach for another reason.
    #[error("cannot attach `{program}` to {path}: {error}")]
    Attach {
        /// The governed root.
        path: PathBuf,
        /// Our program.
        program: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The programs in force come from a version with other map layouts.
    #[error(
        "the programs in force at {path} belong to another version ({difference}); they keep enforcing. \
         Stop the sandboxes, then run `egressctl disarm --yes` with the version that installed them, and start again"
    )]
    OtherVersion {
        /// The governed root.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The programs in force come from a newer version.
    #[error(
        "the programs in force at {path} belong to a newer version (contract {found}, this one knows {}); they keep enforcing. \
         Start that version, or stop the sandboxes, run its `egressctl disarm --yes`, and start this one again",
        egress_common::CONTRACT
    )]
    NewerVersion {
        /// The governed root.
        path: PathBuf,
        /// What they call themselves.
        found: u32,
    },
    /// Part of the programs is missing, so what was in force is not known.
    #[error("cannot read what is in force at {path}: {error}")]
    Inspect {
        /// The governed root.
        path: PathBuf,
        /// What went wrong.
        error: String,
    },
    /// A map could not be read or written.
    #[error("kernel map {map}: {problem}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What went wrong.
        problem: MapProblem,
    },
    /// The programs could not be attached to an interface, or taken off it.
    #[error("cannot {what} `{program}` at the interface with index {interface}: {error}")]
    Link {
        /// What was tried.
        what: &'static str,
        /// The interface's index.
        interface: u32,
        /// The program.
        program: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// Live connections could not be ended.
    #[error(
        "cannot end live connections through sock_diag: {0}; they are dropped packet by packet instead"
    )]
    Sockets(io::Error),
}

/// What can go wrong with a map.
#[derive(Debug, thiserror::Error)]
pub enum MapProblem {
    /// It holds as many entries as it can.
    #[error("it is full")]
    Full,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl EnforcerError {
    /// Whether the cause is a full map.
    pub const fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Map {
                problem: MapProblem::Full,
                ..
            }
        )
    }
}

/// The whole chain of causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
