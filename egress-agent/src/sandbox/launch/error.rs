//! Why a command did not start.

use crate::sandbox::seccomp::SeccompError;
use crate::sandbox::spawn::Step;
use crate::sandbox::view::ViewError;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Why a command did not start. Nothing of it ran.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The caller is not root.
    #[error("starting a sandbox needs root; try again with sudo")]
    NotPermitted,
    /// No command was given.
    #[error("no command was given; write it after `--`")]
    NoCommand,
    /// A zero byte where the kernel takes none.
    #[error("{what} {value:?} holds a zero byte")]
    ZeroByte {
        /// Which part.
        what: &'static str,
        /// The part.
        value: OsString,
    },
    /// The view of the file system could not be planned.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The system call filter could not be built.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// No file of that name, in any directory of `PATH`.
    #[error("{0:?}: command not found inside the sandbox")]
    CommandNotFound(OsString),
    /// The file is there and cannot be run by the sandbox's user.
    #[error("{command:?} cannot be run by uid {uid} in the sandbox: {source}")]
    NotExecutable {
        /// The command.
        command: OsString,
        /// The user.
        uid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step of the launch failed.
    #[error("cannot {}{}: {source}; nothing was started", step.sentence(), on(path))]
    Step {
        /// Which.
        step: Step,
        /// On which file, for steps about files.
        path: Option<PathBuf>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A standard stream would be a way round the fence.
    #[error(
        "{name} is {what}, which would be a way round the sandbox; give the command a file, a \
         pipe or a terminal instead, as in `… | egressctl run …`"
    )]
    Stream {
        /// Which stream.
        name: &'static str,
        /// What it is.
        what: String,
    },
    /// More would be open than the policy says.
    #[error(
        "this kernel lets a command put devices of a network namespace of its own into the host's, \
         which is a way round the sandbox; update the kernel, or take `user-namespaces` out of \
         `sandbox.relax`"
    )]
    Wiring,
    /// Whether that is so could not be found out.
    #[error(
        "cannot try what network namespaces of the command's own could do: {0}; nothing was started"
    )]
    WiringUnknown(io::Error),
    /// Signals of this process go to another command already.
    #[error("this process already hands its signals to another command")]
    SignalsTaken,
    /// The network namespace was made, and nobody wired it to the host.
    #[error("the sandbox gets no network of its own: {0}; nothing was started")]
    Network(io::Error),
    /// This process is at its limit.
    #[error("cannot start a thread for the command: {0}")]
    Thread(io::Error),
}

fn on(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| format!(" {}", path.display()))
}

impl LaunchError {
    /// The exit status that shells give: 127 for a command that is not there,
    /// 126 for one that cannot be run, and none for what is the launcher's failure.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::CommandNotFound(_) => Some(127),
            Self::NotExecutable { .. } => Some(126),
            Self::NotPermitted
            | Self::NoCommand
            | Self::ZeroByte { .. }
            | Self::View(_)
            | Self::Seccomp(_)
            | Self::Step { .. }
            | Self::Stream { .. }
            | Self::Wiring
            | Self::WiringUnknown(_)
            | Self::SignalsTaken
            | Self::Network(_)
            | Self::Thread(_) => None,
        }
    }
}
