//! Why a change of what the agent knows is refused.

use crate::image;
use crate::model::SandboxName;

/// Why the book refuses.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The name is in use.
    #[error("a sandbox `{0}` exists already; choose another `--name`, or stop it first")]
    NameTaken(SandboxName),
    /// There is none of this name.
    #[error("there is no sandbox `{0}`")]
    NoSuchSandbox(String),
    /// It would not fit into the kernel's maps.
    #[error(transparent)]
    Budget(#[from] image::BudgetError),
    /// A policy has more services on one network than the kernel can hold.
    #[error(
        "policy `{0}` opens more services on one network than fit; see `egressctl policy check`"
    )]
    TooManyServices(String),
}
