//! What can go wrong when the kernel is asked about interfaces.

use std::io;

/// Why nothing is known, or nothing could be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no conversation.
    #[error("cannot ask the kernel about interfaces: {0}")]
    Open(io::Error),
    /// The kernel refused.
    #[error("cannot {what}: {error}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        error: rtnetlink::Error,
    },
}
