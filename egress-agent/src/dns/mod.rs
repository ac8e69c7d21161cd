//! The resolver; the only user of hickory.
//!
//! ```text
//! listen ─ who asks? (Gate::asker) ─ question ─ may it? (Gate::judge) ─ cache or upstream
//!        ─ chain ─ screen (Gate::screen) ─ Gate::open ─ receipt ─ reply
//! ```
//!
//! An answer that names something can only be built from a receipt
//! ([`Gate::Receipt`]), and only what wrote the kernel map can make one: "write,
//! then answer" is checked by the compiler (`reply::Reply::positive`).
//!
//! # How what is refused looks to clients
//!
//! | what | answer | so that |
//! |---|---|---|
//! | asker unknown | REFUSED | nobody outside a sandbox takes it for a resolver |
//! | name not allowed, blocked, not a name | NXDOMAIN with a SOA | clients stop at once, and keep it for the negative TTL |
//! | the root | REFUSED | NXDOMAIN for the root would mean that nothing exists (RFC 8020) |
//! | type not allowed for an allowed name | no data with a SOA | a client that asks SRV or HTTPS first (apt, curl) goes on to A and AAAA |
//! | ANY, zone transfers | REFUSED | RFC 8482 |
//! | all addresses removed by screening | no data with a SOA | the other family still counts |
//! | upstream silent, map not writable | SERVFAIL without a SOA | clients try again |
//!
//! Each carries an extended error (RFC 8914) with the reason, if the client speaks EDNS.

#![forbid(unsafe_code)]

mod admission;
mod cache;
mod chain;
mod coalesce;
mod counters;
mod exchange;
mod gate;
mod listen;
mod name;
pub mod offline;
mod places;
mod question;
mod record_type;
mod reply;
mod resolver;
mod screen;
mod server;
mod service_binding;
mod stream;
mod trace;
mod upstream;

#[cfg(test)]
mod tests;

pub use counters::{Counters, Counts};
pub use gate::{Gate, Judgement, Limits, OpenError, Opening, Refusal};
pub use listen::{BindError, Ports};
pub use places::{Place, Places};
pub use record_type::type_is_allowed;
pub use server::{Config, Running, Server};
pub use upstream::host_upstreams;
