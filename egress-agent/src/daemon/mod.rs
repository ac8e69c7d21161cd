//! Joins the parts: start, reload, supervision, shutdown.
//!
//! [`Agent`] owns everything; [`book`] is what it knows, `permit` what that says
//! about names, `gate` and `words`
//! are how the resolver and the event pipeline are served, `control` is what the
//! socket offers, `emergency` is the button that stops everything, `loops` is what goes on meanwhile. [`serve`] is the daemon.

#![forbid(unsafe_code)]

mod agent;
pub mod book;
mod config;
mod connections;
mod control;
pub mod emergency;
mod ephemeral;
mod error;
mod gate;
mod link_facts;
mod link_watch;
mod links;
mod loops;
mod losses;
mod permit;
mod records;
mod runtime;
mod service;
mod words;

pub use agent::{Agent, Services};
pub use config::{Config, ConfigError, DEFAULT_FILE, upstream};
pub use ephemeral::Ephemeral;
pub use error::AgentError;
pub use permit::Permit;
pub use runtime::RuntimeError;
pub use service::{ServiceError, serve};
