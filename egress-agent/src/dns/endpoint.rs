//! An upstream resolver as it is configured: where it is, how it is spoken to,
//! and how it proves who it is.

use super::https::HttpsLine;
use super::identity::{self, IdentityError};
use super::tls::TlsLine;
use crate::model::{DomainName, DomainPattern};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// How an upstream proves who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The name that its certificate must be for.
    pub name: String,
    /// Certificates (PEM) of who may vouch for it; the system's if absent.
    pub authorities: Option<PathBuf>,
    /// SHA-256 of public keys (SubjectPublicKeyInfo), of which it must show one.
    /// Empty asks for none in particular.
    pub pins: Vec<[u8; 32]>,
}

/// How an upstream is spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Datagrams, and TCP where they are too small (RFC 1035).
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls(Identity),
    /// DNS over HTTPS (RFC 8484) with the path, over HTTP/2.
    Https(Identity, String),
}

/// An upstream resolver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Where it is. An address, so that nothing has to be resolved to resolve.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub transport: Transport,
    /// The names that it is asked for, and nobody else is; empty stands for all
    /// names that no other upstream has for itself.
    pub domains: Vec<DomainPattern>,
    /// The view that it belongs to: it is asked for sandboxes whose policy names
    /// that view, and for no others. `None` is for those whose policy names none.
    pub view: Option<Arc<str>>,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            transport: Transport::Plain,
            domains: Vec::new(),
            view: None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match &self.transport {
            Transport::Plain => write!(f, "{address}"),
            Transport::Tls(identity) => write!(f, "tls://{address} ({})", identity.name),
            Transport::Https(identity, path) => {
                write!(f, "https://{address}{path} ({})", identity.name)
            }
        }
    }
}

impl Endpoint {
    /// How many labels of the name its most exact domain has; `None` if it has
    /// none that means the name.
    pub(super) fn specificity(&self, name: &DomainName) -> Option<usize> {
        let meant = self.domains.iter().filter(|pattern| pattern.matches(name));
        meant.map(|pattern| pattern.base().labels().count()).max()
    }

    /// Whether it could be spoken to: its certificate files can be read.
    pub fn check(&self) -> Result<(), IdentityError> {
        self.line().map(drop)
    }

    /// What is needed to speak to it.
    pub(super) fn line(&self) -> Result<Line, IdentityError> {
        Ok(match &self.transport {
            Transport::Plain => Line::Plain,
            Transport::Tls(own) => {
                let config = identity::client(own, b"dot")?;
                Line::Tls(TlsLine::new(
                    self.address,
                    config,
                    identity::server_name(own)?,
                ))
            }
            Transport::Https(own, path) => {
                let config = identity::client(own, b"h2")?;
                let name = identity::server_name(own)?;
                let uri = format!("https://{}{path}", own.name);
                Line::Https(Arc::new(HttpsLine::new(self.address, config, name, uri)))
            }
        })
    }
}

/// The means to ask one upstream.
#[derive(Debug)]
pub(super) enum Line {
    Plain,
    Tls(TlsLine),
    Https(Arc<HttpsLine>),
}
