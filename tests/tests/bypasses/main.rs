//! The bypass ledger (docs/bypasses.md) as tests: each tries one technique from
//! inside a sandbox, and the sniffer on the far side of the link judges.

mod addresses;
mod answers;
mod behalf;
mod calls;
mod identity;
mod loopback;
mod names;
#[path = "../policy/mod.rs"]
mod policy;
mod queries;
mod relaxed;
mod review;
mod scene;
mod sockets;
mod wall;
mod ways;
