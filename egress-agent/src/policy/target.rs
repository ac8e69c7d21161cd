//! What a person asks about: `HOST:PORT[/PROTOCOL]`, or `HOST/icmp`.

use crate::model::{DomainName, NameError};
use egress_common::Protocol;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A destination as a person names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// By name.
    Name(DomainName),
    /// By address.
    Ip(IpAddr),
}

/// A destination with port and transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// Where.
    pub to: Target,
    /// The port; 0 where the transport has none.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// Why text is not a destination.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no port.
    #[error(
        "`{0}` names no port; write HOST:PORT or HOST:PORT/PROTOCOL, such as api.example.com:443/tcp"
    )]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("`{0}` is not a port; write a number from 1 to 65535")]
    Port(String),
    /// The transport is none that a rule can have.
    #[error("`{0}` is not a protocol; write tcp, udp, http, https or icmp")]
    Protocol(String),
    /// A port of a transport that has none.
    #[error("`icmp` has no ports; write HOST/icmp, such as api.example.com/icmp")]
    NoPorts,
    /// An IPv6 address without brackets, in which the port cannot be told.
    #[error("write an IPv6 address in brackets: [{0}]:PORT")]
    Brackets(String),
    /// Brackets that hold no IPv6 address.
    #[error("`[{0}]` is not an IPv6 address")]
    Ipv6(String),
    /// A URL.
    #[error("`{0}` is a URL; write HOST:PORT, such as api.example.com:443")]
    Url(String),
    /// Neither a name nor an address.
    #[error("`{host}` is no host: {problem}")]
    Host {
        /// What was written.
        host: String,
        /// What is wrong with it.
        problem: NameError,
    },
}

impl Query {
    /// Reads `HOST:PORT`, `HOST:PORT/PROTOCOL` or `HOST/icmp`; the transport is TCP
    /// if absent.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.contains("://") {
            return Err(TargetError::Url(text.to_owned()));
        }
        let (endpoint, protocol) = match text.rsplit_once('/') {
            Some((endpoint, word)) => (endpoint, transport(word)?),
            None => (text, Protocol::Tcp),
        };
        if !protocol.has_ports() {
            let to = alone(endpoint)?;
            return Ok(Self {
                to,
                port: 0,
                protocol,
            });
        }
        let (to, port) = match endpoint.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest
                    .split_once(']')
                    .ok_or_else(|| TargetError::Ipv6(rest.to_owned()))?;
                let ip: Ipv6Addr = address
                    .parse()
                    .map_err(|_| TargetError::Ipv6(address.to_owned()))?;
                let port = after
                    .strip_prefix(':')
                    .ok_or_else(|| TargetError::NoPort(text.to_owned()))?;
                (Target::Ip(IpAddr::V6(ip).to_canonical()), port)
            }
            None => {
                if endpoint.parse::<Ipv6Addr>().is_ok() {
                    return Err(TargetError::Brackets(endpoint.to_owned()));
                }
                let (host, port) = endpoint
                    .rsplit_once(':')
                    .ok_or_else(|| TargetError::NoPort(text.to_owned()))?;
                (Target::parse(host)?, port)
            }
        };
        // `u16::from_str` takes a leading plus sign; a port has none.
        let port = Some(port)
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| TargetError::Port(port.to_owned()))?;
        Ok(Self { to, port, protocol })
    }

    /// The port, where the transport has ports.
    pub fn named_port(&self) -> Option<u16> {
        self.protocol.has_ports().then_some(self.port)
    }
}

/// Reads a host behind which no port may stand. An IPv6 address needs no brackets
/// then, and may have them.
fn alone(text: &str) -> Result<Target, TargetError> {
    let address = text.strip_prefix('[').unwrap_or(text);
    let address = address.strip_suffix(']').unwrap_or(address);
    match address.parse::<Ipv6Addr>() {
        Ok(ip) => Ok(Target::Ip(IpAddr::V6(ip).to_canonical())),
        Err(_) if text.contains(':') => Err(TargetError::NoPorts),
        Err(_) => Target::parse(text),
    }
}

impl Target {
    /// Reads a name or an address without brackets.
    pub fn parse(host: &str) -> Result<Self, TargetError> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        DomainName::parse(host)
            .map(Self::Name)
            .map_err(|problem| TargetError::Host {
                host: host.to_owned(),
                problem,
            })
    }
}

fn transport(word: &str) -> Result<Protocol, TargetError> {
    match word {
        "tcp" | "http" | "https" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "icmp" => Ok(Protocol::Icmp),
        _ => Err(TargetError::Protocol(word.to_owned())),
    }
}

impl fmt::Display for Query {
    /// `api.example.com:443/tcp`, `[2001:db8::1]:443/tcp`, `api.example.com/icmp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Target::Name(name) => write!(f, "{name}")?,
            Target::Ip(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Target::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
        }
        if let Some(port) = self.named_port() {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.protocol.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn destinations_read_back_as_they_are_written() {
        for (text, canonical) in [
            ("api.example.com:443", "api.example.com:443/tcp"),
            ("API.example.com.:80/http", "api.example.com:80/tcp"),
            ("203.0.113.7:53/udp", "203.0.113.7:53/udp"),
            ("[2001:db8::1]:443/tcp", "[2001:db8::1]:443/tcp"),
            ("[::ffff:10.0.0.1]:1/tcp", "10.0.0.1:1/tcp"),
            ("API.example.com/icmp", "api.example.com/icmp"),
            ("203.0.113.7/icmp", "203.0.113.7/icmp"),
            ("[2001:db8::1]/icmp", "[2001:db8::1]/icmp"),
            ("2001:db8::1/icmp", "[2001:db8::1]/icmp"),
            ("::ffff:10.0.0.1/icmp", "10.0.0.1/icmp"),
        ] {
            let read = Query::parse(text).map(|query| query.to_string());
            assert_eq!(read.as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, words) in [
            ("api.example.com", "names no port"),
            ("[2001:db8::1]", "names no port"),
            ("2001:db8::1", "in brackets"),
            ("[2001:db8::g]:1", "not an IPv6 address"),
            ("a.example:0", "from 1 to 65535"),
            ("a.example:+1", "from 1 to 65535"),
            ("a.example:", "from 1 to 65535"),
            ("a.example:65536", "from 1 to 65535"),
            ("a.example:1/sctp", "tcp, udp"),
            ("a.example:1/icmp", "has no ports"),
            ("[2001:db8::1]:7/icmp", "has no ports"),
            ("[2001:db8::g]/icmp", "has no ports"),
            ("[a.example]/icmp", "is no host"),
            ("/icmp", "is no host"),
            ("https://a.example/", "is a URL"),
            ("a..example:1", "empty label"),
            ("0x7f.1:80", "is an address"),
        ] {
            let error = Query::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
