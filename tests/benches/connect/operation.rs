//! What is measured.

use std::time::Duration;

/// One thing that a sandboxed program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `connect` of a UDP socket that exists.
    UdpConnect,
    /// `socket` and `close`, UDP.
    UdpSocket,
    /// `sendto` of 64 bytes, always to one peer.
    UdpSendTo,
    /// `sendto` of 64 bytes to eight peers in turn: more than a socket remembers.
    UdpSendToMany,
    /// `send` of 64 bytes on a connected UDP socket.
    UdpSend,
    /// `socket`, `connect` and `close`, TCP.
    TcpConnect,
    /// 64 bytes written to one end of a TCP connection and read from the other.
    TcpSegment,
    /// As much as one TCP connection carries over the loopback device.
    BulkLoopback,
    /// As much as one TCP connection carries over a veth pair.
    BulkVeth,
}

impl Operation {
    /// All, in the order in which they are reported.
    pub const ALL: [Self; 9] = [
        Self::UdpSocket,
        Self::UdpConnect,
        Self::UdpSendTo,
        Self::UdpSendToMany,
        Self::UdpSend,
        Self::TcpConnect,
        Self::TcpSegment,
        Self::BulkVeth,
        Self::BulkLoopback,
    ];

    /// The name between driver, worker and report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UdpSocket => "udp-socket-close",
            Self::UdpConnect => "udp-connect",
            Self::UdpSendTo => "udp-sendto",
            Self::UdpSendToMany => "udp-sendto-8-peers",
            Self::UdpSend => "udp-send",
            Self::TcpConnect => "tcp-socket-connect-close",
            Self::TcpSegment => "tcp-64-byte-segment",
            Self::BulkVeth => "tcp-bulk-veth",
            Self::BulkLoopback => "tcp-bulk-loopback",
        }
    }

    /// The operation of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Whether a sample is a throughput and not a time.
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::BulkVeth | Self::BulkLoopback)
    }

    /// What a sample counts.
    pub const fn unit(self) -> &'static str {
        if self.is_bulk() { "Gbit/s" } else { "ns" }
    }

    /// How long one sample takes.
    pub const fn slice(self) -> Duration {
        Duration::from_millis(if self.is_bulk() { 100 } else { 12 })
    }
}
