//! The cgroup2 file system: where it is, the governed root, sandboxes.
//!
//! Directories are opened relative to the directory above, never by a path that
//! somebody else could bend, and everything is owned by root: a cgroup that its
//! processes could write is a door out of it.

mod controllers;
mod error;
mod hierarchy;
mod limits;
mod root;
mod sandbox;
mod usage;

pub use controllers::{Controller, Controllers};
pub use error::CgroupError;
pub use hierarchy::Hierarchy;
pub use limits::Unenforced;
pub use root::GovernedRoot;
pub use sandbox::{RemoveOnDrop, SandboxCgroup};
pub use usage::Usage;

#[cfg(test)]
pub(crate) mod tests;
