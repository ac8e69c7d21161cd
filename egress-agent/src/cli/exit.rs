//! Exit codes, once.

use crate::api::ClientError;
use crate::api::wire::FailureKind;
use std::fmt;
use std::process::ExitCode;

/// How a command ended. The numbers are part of the interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// It was tried and did not work.
    Failure,
    /// It cannot be meant.
    Usage,
    /// The answer is "deny".
    Denied,
    /// No agent answers.
    NotReachable,
    /// The caller may not.
    NotPermitted,
    /// A signature or digest is not what it should be.
    Unverified,
    /// A configuration or policy file has to be corrected.
    BadConfiguration,
    /// What the sandboxed command gave.
    Command(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NotReachable => 5,
            Self::NotPermitted => 6,
            Self::Unverified => 7,
            // EX_CONFIG of sysexits.h: systemd can be told not to restart then.
            Self::BadConfiguration => 78,
            Self::Command(code) => code,
        }
    }
}

impl Exit {
    /// The exit of another process of this program.
    pub const fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Failure,
            2 => Self::Usage,
            3 => Self::Denied,
            5 => Self::NotReachable,
            6 => Self::NotPermitted,
            78 => Self::BadConfiguration,
            other => Self::Command(other),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Problem {
    exit: Exit,
    message: String,
}

impl Problem {
    /// A problem of a kind, told by an error.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    /// It was tried and did not work.
    pub fn failure(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failure, message)
    }

    /// It cannot be meant.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Tells the person in the name of a program, and gives the code.
    pub fn report(&self, program: &str) -> ExitCode {
        eprintln!("{program}: {}", self.message.trim_end());
        self.exit.into()
    }

    /// The code.
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.trim_end())
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NotPermitted { .. } => Exit::NotPermitted,
            ClientError::NotReachable { .. } => Exit::NotReachable,
            ClientError::Broken { .. } => Exit::Failure,
            ClientError::Refused(failure) => match failure.kind {
                FailureKind::Usage => Exit::Usage,
                FailureKind::NotFound | FailureKind::Conflict | FailureKind::Failed => {
                    Exit::Failure
                }
                FailureKind::NotPermitted => Exit::NotPermitted,
                FailureKind::BadConfiguration => Exit::BadConfiguration,
            },
        };
        Self::new(exit, error)
    }
}
