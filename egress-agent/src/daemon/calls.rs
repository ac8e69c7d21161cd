//! What the control socket calls. Each call blocks its thread until it has taken
//! effect in the kernel.

use super::agent::Agent;
use super::records::Pusher;
use crate::api::Control;
use crate::api::wire::{
    Adopt, Adopted, Created, Done, Ended, Failure, Incident, Network, NewInterface, NewNetwork,
    NewSandbox, Progress, Reloaded, Sandbox, Status, Stop,
};
use std::sync::Arc;

impl Control for Agent {
    async fn create(&self, wanted: NewSandbox) -> Result<Created, Failure> {
        tokio::task::block_in_place(|| self.create_sandbox(&wanted))
    }

    async fn attach(&self, wanted: NewInterface) -> Result<Created, Failure> {
        tokio::task::block_in_place(|| self.attach_interface(&wanted))
    }

    async fn give_network(&self, name: &str, wanted: NewNetwork) -> Result<Network, Failure> {
        tokio::task::block_in_place(|| self.wire_network(name, &wanted))
    }

    async fn remove(&self, name: &str) -> Result<Ended, Failure> {
        tokio::task::block_in_place(|| self.remove_sandbox(name))
    }

    async fn sandbox(&self, name: &str) -> Result<Sandbox, Failure> {
        tokio::task::block_in_place(|| self.describe_sandbox(name))
    }

    async fn pause(&self, name: &str) -> Result<Done, Failure> {
        tokio::task::block_in_place(|| self.pause_sandbox(name))
    }

    async fn resume(&self, name: &str) -> Result<Done, Failure> {
        tokio::task::block_in_place(|| self.resume_sandbox(name))
    }

    async fn stop_sandbox(&self, name: &str, stop: Stop) -> Result<Done, Failure> {
        tokio::task::block_in_place(|| self.stop_named(name, stop))
    }

    async fn progress(&self, name: &str, progress: Progress) -> Result<(), Failure> {
        tokio::task::block_in_place(|| self.take_progress(name, progress))
    }

    async fn adopt(&self, wanted: Adopt) -> Result<Adopted, Failure> {
        tokio::task::block_in_place(|| self.adopt_container(&wanted))
    }

    async fn block(&self, name: &str, reason: &str, caller: u32) -> Result<(), Failure> {
        let why = format!("{reason} (uid {caller})");
        tokio::task::block_in_place(|| self.block_sandbox(name, &why))
    }

    async fn unblock(&self, name: &str, reason: &str, caller: u32) -> Result<(), Failure> {
        let why = format!("{reason} (uid {caller})");
        tokio::task::block_in_place(|| self.unblock_sandbox(name, &why))
    }

    async fn sandboxes(&self) -> Vec<Sandbox> {
        tokio::task::block_in_place(|| self.describe_sandboxes())
    }

    async fn status(&self) -> Status {
        tokio::task::block_in_place(|| self.describe())
    }

    async fn reload(&self, caller: u32) -> Result<Reloaded, Failure> {
        tokio::task::block_in_place(|| self.reload_policies(Pusher::User(caller)))
    }

    async fn emergency_block(
        self: Arc<Self>,
        reason: String,
        caller: u32,
    ) -> Result<Incident, Failure> {
        tokio::task::block_in_place(|| self.press_emergency(&reason, caller))
    }

    async fn restore(&self, incident: &str, caller: u32) -> Result<Incident, Failure> {
        tokio::task::block_in_place(|| self.end_emergency(incident, caller))
    }

    async fn disarm(&self, force: bool, caller: u32) -> Result<usize, Failure> {
        tokio::task::block_in_place(|| self.disarm_now(force, caller))
    }
}
