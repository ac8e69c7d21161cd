//! A DNS server whose answers the test decides, and that remembers what it was
//! asked: a name that it never heard of was never forwarded.

mod manner;
mod server;
pub mod wire;

pub use manner::{FORGERIES, Manner};
pub use server::{Asked, DnsServer, Transport};
pub use wire::{Data, Message, Query, Record};
