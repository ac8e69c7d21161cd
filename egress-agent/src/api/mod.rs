//! HTTP and JSON over the control socket; the only user of axum.
//!
//! [`wire`] holds what travels, [`serve`] the server, [`Client`] the other end.
//! The daemon serves it through [`Control`]. Who may do what is decided by the
//! peer's user id, which the kernel vouches for: in this version root only.

#![forbid(unsafe_code)]

mod client;
mod events;
mod metrics;
mod server;
pub mod wire;

pub use client::{Client, ClientError};
pub use metrics::{MetricsAddress, MetricsListening, Scrape, serve_metrics};
pub use server::{Listening, ServeError, serve};

use std::future::Future;
use wire::{
    Adopt, Adopted, Created, Done, Ended, Failure, Incident, Network, NewInterface, NewNetwork,
    NewSandbox, Progress, Reloaded, Sandbox, Status, Stop,
};

/// What the control socket offers. Every call answers when it has taken effect
/// in the kernel.
pub trait Control: Send + Sync + 'static {
    /// Makes a sandbox: when it returns, its cgroup exists and is enforced.
    fn create(&self, wanted: NewSandbox) -> impl Future<Output = Result<Created, Failure>> + Send;
    /// Attaches an interface: when it returns, what is behind it is enforced.
    fn attach(&self, wanted: NewInterface)
    -> impl Future<Output = Result<Created, Failure>> + Send;
    /// Wires a sandbox's network namespace to the host.
    fn give_network(
        &self,
        name: &str,
        wanted: NewNetwork,
    ) -> impl Future<Output = Result<Network, Failure>> + Send;
    /// Ends a sandbox: kills what is left in it and removes it.
    fn remove(&self, name: &str) -> impl Future<Output = Result<Ended, Failure>> + Send;
    /// One sandbox.
    fn sandbox(&self, name: &str) -> impl Future<Output = Result<Sandbox, Failure>> + Send;
    /// Holds everything in a sandbox where it stands.
    fn pause(&self, name: &str) -> impl Future<Output = Result<Done, Failure>> + Send;
    /// Lets it go on.
    fn resume(&self, name: &str) -> impl Future<Output = Result<Done, Failure>> + Send;
    /// Asks its processes to end, kills what is left after the grace, and ends it.
    fn stop_sandbox(
        &self,
        name: &str,
        stop: Stop,
    ) -> impl Future<Output = Result<Done, Failure>> + Send;
    /// Takes what a supervisor tells of its command.
    fn progress(
        &self,
        name: &str,
        progress: Progress,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Brings a container's cgroup under its policy.
    fn adopt(&self, wanted: Adopt) -> impl Future<Output = Result<Adopted, Failure>> + Send;
    /// Refuses a sandbox everything until it ends or is unblocked.
    fn block(
        &self,
        name: &str,
        reason: &str,
        caller: u32,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Brings a blocked sandbox back under its policy.
    fn unblock(
        &self,
        name: &str,
        reason: &str,
        caller: u32,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
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
