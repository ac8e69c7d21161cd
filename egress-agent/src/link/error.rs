//! What can go wrong when the kernel is asked about interfaces.

use std::io;

/// Why nothing is known, or nothing could be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no conversation.
    #[error("cannot ask the kernel about interfaces: {0}")]
    Open(io::Error),
    /// An interface that was made is not there any more.
    #[error("the interface `{0}` is gone again")]
    Gone(String),
    /// Packets cannot be given the host's address.
    #[error("addresses cannot be translated: {0}")]
    Translation(String),
    /// The kernel refused.
    #[error("cannot {what}: {error}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        error: rtnetlink::Error,
    },
}
