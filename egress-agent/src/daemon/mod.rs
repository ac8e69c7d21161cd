//! Joins the parts: start, reload, supervision, shutdown.
//!
//! [`Agent`] owns everything; [`book`] is what it knows, `permit` what that says
//! about names, `gate` and `words`
//! are how the resolver and the event pipeline are served, `control` is what the
//! socket offers, `emergency` is the button that stops everything, `loops` is what
//! goes on meanwhile, [`source`] where policies come from. [`serve`] is the daemon.

#![forbid(unsafe_code)]

mod adopt;
mod agent;
mod alerting;
mod arm;
mod blocking;
pub mod book;
mod calls;
mod changes;
mod config;
mod connections;
mod control;
pub mod emergency;
mod ephemeral;
mod error;
mod evidence;
mod feeds;
mod freshness;
mod gate;
mod lifecycle;
mod limits;
mod link_facts;
mod link_watch;
mod links;
mod loops;
mod losses;
mod metrics;
mod names;
mod own_network;
mod permit;
mod recording;
mod records;
mod resolver_config;
mod revocation;
mod runtime;
mod service;
mod sinks;
pub mod source;
mod supervisor;
mod syslog;
mod usage;
mod words;

pub use agent::{Agent, Services};
pub use arm::arm;
pub use config::{BundleSettings, Config, ConfigError, DEFAULT_FILE, upstream};
pub use ephemeral::Ephemeral;
pub use error::AgentError;
pub use feeds::{MetricsConfig, SyslogConfig};
pub use permit::Permit;
pub use records::Pusher;
pub use resolver_config::ResolverConfig;
pub use runtime::RuntimeError;
pub use service::{ServiceError, serve};
