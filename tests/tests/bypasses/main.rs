//! The bypass ledger (docs/bypasses.md) as tests: each tries one technique from
//! inside a sandbox, and the sniffer on the far side of the link judges.

mod addresses;
mod behalf;
mod calls;
mod identity;
mod loopback;
#[path = "../policy/mod.rs"]
mod policy;
mod relaxed;
mod scene;
mod sockets;
