//! The agent beside the kernel programs: one library, two binaries.
//!
//! Modules are ordered in rows; each uses only rows above its own, and modules
//! of one row never use each other (`cargo xtask tidy` checks it):
//!
//! | row | modules |
//! |---|---|
//! | 0 | [`model`] |
//! | 1 | [`policy`], [`bundle`] |
//! | 2 | [`grants`] |
//! | 3 | [`image`] |
//! | 4 | [`enforcer`], [`sandbox`], [`dns`], [`events`], [`link`], [`outbound`] |
//! | 5 | [`audit`], [`alerts`] |
//! | 6 | [`api`], [`export`], [`learn`] |
//! | 7 | [`daemon`] |
//! | 8 | [`cli`] |
//! | any | [`telemetry`], [`mapped`] |

#![deny(unsafe_code)]

pub mod alerts;
pub mod api;
pub mod audit;
pub mod bundle;
pub mod cli;
pub mod daemon;
pub mod dns;
pub mod enforcer;
pub mod events;
pub mod export;
pub mod grants;
pub mod image;
pub mod learn;
pub mod link;
pub mod mapped;
pub mod model;
pub mod outbound;
pub mod policy;
pub mod report;
pub mod sandbox;
pub mod telemetry;
