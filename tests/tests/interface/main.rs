//! Sandboxes that are an interface: what is behind a veth has a network stack
//! of its own, root, and every kind of socket.

mod attempts;
mod frames;
mod life;
mod names;
#[path = "../policy/mod.rs"]
mod policy;
mod scene;
