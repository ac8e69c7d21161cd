//! What happens when something fails: the agent, its files, its memory, the
//! kernel's maps, the clock, or a person's patience. Nothing of it opens
//! anything; a sniffer outside is the judge.

mod emergency;
#[path = "../policy/mod.rs"]
mod policy;
mod scene;
