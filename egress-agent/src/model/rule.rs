//! What a rule says about transports and ports, and where it was written.

use egress_common::Protocol;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a rule stands, so that every decision can point at its line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleOrigin {
    /// The policy file.
    pub file: Arc<PathBuf>,
    /// The line, from 1.
    pub line: u32,
    /// The rule in a few words, for people: `domain api.example.com` or `cidr 10.0.0.0/8`.
    pub text: Arc<str>,
}

impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Inclusive ports, machine order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Every port; policies must write `any`.
    pub const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// One port.
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether `port` is inside.
    pub const fn holds(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// A transport with the ports that are open on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Transport {
    /// TCP, UDP or ICMP echo.
    pub protocol: Protocol,
    /// The ports; [`PortRange::ANY`] where the protocol has none.
    pub ports: PortRange,
}

impl fmt::Display for Transport {
    /// `443/tcp`, `8000-8080/udp`, `any/tcp`, `icmp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.name();
        match self.ports {
            _ if !self.protocol.has_ports() => f.write_str(protocol),
            PortRange::ANY => write!(f, "any/{protocol}"),
            PortRange { first, last } if first == last => write!(f, "{first}/{protocol}"),
            PortRange { first, last } => write!(f, "{first}-{last}/{protocol}"),
        }
    }
}
