//! Puts processes inside the fence: cgroups, users, environments, launch.
//!
//! The kernel programs judge what sends by its cgroup, so the boundary holds
//! only for a process that was *born* in its cgroup, cannot leave it, and holds
//! nothing that was opened outside. This module makes such processes:
//!
//! - [`cgroup`] finds the cgroup2 file system, keeps the governed root and the
//!   sandboxes below it;
//! - [`user`] and [`environment`] say as whom and with what a command runs;
//! - [`view`] plans what the command sees of the file system;
//! - [`seccomp`] lists the system calls that it cannot make;
//! - [`contract`] looks for what it does not have in processes that others started;
//! - [`mod@launch`] starts the command and waits for it;
//! - `spawn` is the only room with `unsafe`: what happens between clone and exec.

pub mod cgroup;
pub mod contract;
pub mod environment;
pub mod launch;
pub mod mount_table;
pub mod seccomp;
pub mod user;
pub mod view;

mod spawn;

pub use cgroup::{
    CgroupError, Controllers, GovernedRoot, Hierarchy, RemoveOnDrop, SandboxCgroup, Unenforced,
    Usage,
};
pub use launch::{Child, Ending, LaunchError, LaunchSpec, Wire, launch, launch_apart};
pub use user::{Caller, ChosenUser, User, UserError};
