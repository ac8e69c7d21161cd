//! HTTP and JSON over the control socket; the only user of axum.
//!
//! [`wire`] holds what travels, [`serve`] the server, [`Client`] the other end.
//! The daemon serves it through [`Control`]. Who may do what is decided by the
//! peer's user id, which the kernel vouches for: in this version root only.

#![forbid(unsafe_code)]

mod client;
mod server;
pub mod wire;

pub use client::{Client, ClientError};
pub use server::{Listening, ServeError, serve};

use std::future::Future;
use wire::{Created, Failure, Incident, NewInterface, NewSandbox, Reloaded, Sandbox, Status};

/// What the control socket offers. Every call answers when it has taken effect
/// in the kernel.
pub trait Control: Send + Sync + 'static {
    /// Makes a sandbox: when it returns, its cgroup exists and is enforced.
    fn create(&self, wanted: NewSandbox) -> impl Future<Output = Result<Created, Failure>> + Send;
    /// Attaches an interface: when it returns, what is behind it is enforced.
    fn attach(&self, wanted: NewInterface)
    -> impl Future<Output = Result<Created, Failure>> + Send;
    /// Ends a sandbox: kills what is left in it and removes it.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), Failure>> + Send;
    /// The sandboxes.
    fn sandboxes(&self) -> impl Future<Output = Vec<Sandbox>> + Send;
    /// The agent's state.
    fn status(&self) -> impl Future<Output = Status> + Send;
    /// Loads the policies again; on any error nothing is changed.
    fn reload(&self, caller: u32) -> impl Future<Output = Result<Reloaded, Failure>> + Send;
    /// Stops everything, whatever policy says, until [`Control::restore`].
    fn emergency_block(
        self: std::sync::Arc<Self>,
        reason: String,
        caller: u32,
    ) -> impl Future<Output = Result<Incident, Failure>> + Send;
    /// Ends an emergency block.
    fn restore(
        &self,
        incident: &str,
        caller: u32,
    ) -> impl Future<Output = Result<Incident, Failure>> + Send;
    /// Takes enforcement out of force, and ends the agent.
    fn disarm(
        &self,
        force: bool,
        caller: u32,
    ) -> impl Future<Output = Result<usize, Failure>> + Send;
}
