//! What happens when something fails: the agent, its files, its memory, the
//! kernel's maps, the clock, or a person's patience. Nothing of it opens
//! anything; a sniffer outside is the judge.
//!
//! Numbers are small here so that the suite stays quick. `cargo xtask soak`
//! runs the long ones.

mod bounds;
mod changes;
mod disturbed;
mod emergency;
mod killed;
#[path = "../policy/mod.rs"]
mod policy;
mod scene;
mod store;
mod time;
mod upgrade;
mod upstream;
