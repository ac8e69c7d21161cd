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

#![deny(unsafe_code)]

mod admission;
mod admitted;
mod backlog;
mod batch;
mod begun;
mod budget;
mod cache;
mod chain;
mod coalesce;
mod concluded;
mod counters;
mod denial;
mod desk;
mod endpoint;
mod exchange;
mod expecting;
mod gate;
mod handing;
mod hosts;
mod https;
mod identity;
mod incoming;
mod latency;
mod listen;
mod lookups;
mod name;
mod note;
pub mod offline;
mod outgoing;
mod places;
mod plain_answer;
mod query;
mod question;
mod reactor;
mod record_type;
mod renewal;
mod reply;
mod resolver;
mod screen;
mod server;
mod service_binding;
mod sockets;
mod special;
mod spending;
mod stream;
mod template;
mod tls;
mod trace;
mod upstream;
mod worker;

#[cfg(test)]
mod tests;

pub use budget::Below;
pub use counters::{Counters, Counts};
pub use endpoint::{Endpoint, Identity, Transport};
pub use gate::{Gate, Judgement, Limits, OpenError, Opening, Refusal, Sieve, Sources, Standing};
pub use hosts::Hosts;
pub use identity::IdentityError;
pub use latency::Latency;
pub use listen::{BindError, Ports};
pub use places::{Place, Places};
pub use record_type::type_is_allowed;
pub use renewal::Renewal;
pub use server::{Config, Running, Server};
pub use upstream::{Strategy, host_upstreams};
