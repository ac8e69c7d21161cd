//! The product exercised from outside: the harness that the tests share.
//!
//! A test declares a [`World`] (two network namespaces of its own, with
//! servers and a sniffer in the far one), writes a policy, lets the real
//! `egressctl` run `egress-probe` in a sandbox, and asks two witnesses: what
//! the probe was told (an errno), and what the sniffer saw (the judge).
//!
//! Nothing of the host's network is touched. Every guard undoes what it did
//! when it is dropped, also while a test panics; the namespaces are anonymous,
//! so that they vanish even when the test process is killed.

#![deny(unsafe_code)]

pub mod address;
pub mod bpf;
pub mod cgroup;
pub mod collector;
#[cfg(feature = "model")]
pub mod comparison;
pub mod debian;
pub mod dns;
pub mod feature;
#[cfg(feature = "model")]
pub mod fuzzing;
pub mod namespace;
pub mod operation;
pub mod packet;
pub mod postgres;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod product;
pub mod raw;
#[cfg(feature = "model")]
pub mod reference;
#[cfg(feature = "model")]
pub mod scenario;
pub mod servers;
pub mod sniffer;
pub mod world;

pub use cgroup::Cgroup;
pub use namespace::Namespace;
pub use probe::Attempt;
pub use product::{Ephemeral, Outcome};
pub use sniffer::Sniffer;
pub use world::World;
