//! Records to a syslog collector: RFC 5424 over UDP, TCP or TLS.
//!
//! The store is the queue. A feeder reads what was stored after the last record
//! that it sent, so a collector that is away loses nothing as long as the store
//! keeps it; what retention took before it was sent is counted and told.

#![forbid(unsafe_code)]

mod feed;
mod format;
mod transport;

pub use feed::{Feed, Told};
pub use format::{Facility, message, priority};
pub use transport::{Receiver, Transport, TransportError};
