//! Whether an image fits into the kernel's maps.

use super::Image;

/// The bounds of the maps, as `egress-ebpf/src/maps.rs` declares them; a test of
/// the enforcer compares them with the object.
pub const MAX_SANDBOXES: usize = 4096;
/// See [`MAX_SANDBOXES`].
pub const MAX_NETWORKS: usize = 65_536;
/// See [`MAX_SANDBOXES`].
pub const MAX_GRANTS: usize = 131_072;

/// What does not fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BudgetError {
    /// Too many sandboxes.
    #[error("{0} sandboxes are more than the {limit} that the kernel map holds; stop some first", limit = MAX_SANDBOXES - 1)]
    Sandboxes(usize),
    /// Too many networks.
    #[error("the policies name {0} networks after flattening, more than the {limit} that the kernel map holds during a change; merge networks or split the host", limit = MAX_NETWORKS)]
    Networks(usize),
    /// Too many grants.
    #[error("{0} grants are more than the {MAX_GRANTS} that the kernel map holds")]
    Grants(usize),
}

/// Checks `wanted`, which replaces `current`: while the change runs, the maps
/// hold the networks of both.
pub fn check(current: &Image, wanted: &Image) -> Result<(), BudgetError> {
    // One meter belongs to what is in no sandbox, so one sandbox fewer fits.
    if wanted.sandboxes.len() >= MAX_SANDBOXES {
        return Err(BudgetError::Sandboxes(wanted.sandboxes.len()));
    }
    let networks = wanted.networks.len()
        + current
            .networks
            .keys()
            .filter(|k| !wanted.networks.contains_key(k))
            .count();
    if networks > MAX_NETWORKS {
        return Err(BudgetError::Networks(networks));
    }
    if wanted.grants.len() > MAX_GRANTS {
        return Err(BudgetError::Grants(wanted.grants.len()));
    }
    Ok(())
}
