//! The contract between the kernel programs and the agent.
//!
//! Everything here is compiled twice: into the BPF object and into the agent.
//! So it is `no_std`, has no panicking path (the verifier refuses a program
//! that can reach one), and states its byte order once: **addresses and ports
//! inside [`Ip`], [`Destination`], [`GrantKey`], [`NetworkKey`] and [`Peer`]
//! are in network order, exactly as the packet carries them**; every other
//! integer is in the machine's order.
//!
//! Read [`decide()`] first: it is the whole product in a page.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]

mod layout;

pub mod asker;
pub mod decide;
pub mod destination;
pub mod device;
pub mod event;
pub mod flow;
pub mod grant;
pub mod interface;
pub mod lsm;
pub mod names;
pub mod sandbox;
pub mod verdict;

pub use asker::{ASKER_WORDS, AskerWord, asker_word};
pub use decide::{Lookups, Neighbour, Standing, decide};
pub use destination::{Destination, Ip, Port, Protocol};
pub use event::{Counter, Event, Hook, Outcome};
pub use flow::{Asker, AskerKey, Flow, Origin, Peer};
pub use grant::{Grant, GrantKey, MAX_SERVICES, Network, NetworkKey, Service};
pub use interface::{Asked, Assigned, Connection, ConnectionKey, Link, LinkUse, Mac};
pub use sandbox::{
    CONTRACT, CgroupId, Emergency, Meter, Mode, NameId, PolicyId, RuleId, Sandbox, SandboxId,
    Settings, Traffic,
};
pub use verdict::{Because, Reason, Verdict};
