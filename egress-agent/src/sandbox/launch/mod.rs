//! Starts a command in a sandbox and waits for it.
//!
//! The command is a child of this process and stays in its process group, so the
//! terminal, its keys and its job control work as if there were no sandbox. It
//! lives in a pid namespace whose first process does nothing but end: with it,
//! or with this process, even if that is killed, everything in the sandbox ends.

mod child;
mod error;
mod spec;
mod streams;

pub use crate::sandbox::spawn::Step;
pub use child::{Child, Ending, Wire, launch, launch_apart};
pub use error::LaunchError;
pub use spec::LaunchSpec;

#[cfg(test)]
mod tests;
