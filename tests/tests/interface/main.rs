//! Sandboxes that are an interface: what is behind a veth has a network stack
//! of its own, root, and every kind of socket.

mod attempts;
mod container;
mod echo;
mod frames;
mod fresh;
mod life;
mod machine;
mod names;
mod own;
mod pinger;
#[path = "../policy/mod.rs"]
mod policy;
mod scene;
