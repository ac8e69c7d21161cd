//! What the kernel reports, and what it can only count.

use crate::destination::{Ip, Port};
use crate::layout::shared;
use crate::sandbox::{CgroupId, NameId, RuleId, SandboxId};

/// Declares a numbered vocabulary with names.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident($repr:ty) { $($(#[$vdoc:meta])* $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr($repr)]
        pub enum $name { $($(#[$vdoc])* $variant = $code),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The one with this number.
            pub const fn from_code(code: $repr) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

vocabulary! {
    /// Where in the kernel something was judged.
    Hook(u8) {
        /// `cgroup/connect4` or `connect6`.
        Connect = 1, "connect";
        /// `cgroup/sendmsg4` or `sendmsg6`.
        Sendmsg = 2, "sendmsg";
        /// `cgroup_skb/egress`.
        Egress = 3, "egress";
        /// `cgroup_skb/ingress`.
        Ingress = 4, "ingress";
        /// `cgroup/sock_create`.
        SocketCreate = 5, "socket_create";
        /// `cgroup/setsockopt`.
        SetSocketOption = 6, "setsockopt";
        /// The agent's resolver.
        Resolver = 7, "resolver";
        /// The host's side of an interface: what the sandbox behind it sends.
        InterfaceLeaves = 32, "interface_leaves";
        /// The same: what would reach it.
        InterfaceReaches = 33, "interface_reaches";
    }
}

vocabulary! {
    /// How an [`Event`] ended.
    Outcome(u8) {
        /// It passed.
        Allowed = 0, "allow";
        /// It was refused.
        Denied = 1, "deny";
        /// It passed, because the policy is in shadow mode.
        WouldDeny = 2, "would_deny";
    }
}

vocabulary! {
    /// What is counted per CPU because nobody could be told, or because telling
    /// each one would cost too much. Index into the counter map.
    Counter(u32) {
        /// Packets and calls refused.
        Denied = 0, "denied";
        /// Packets and calls that shadow mode let pass.
        WouldDeny = 1, "would_deny";
        /// Events that found the ring full.
        RingFull = 2, "ring_full";
        /// Events beyond their sandbox's budget.
        OverBudget = 3, "over_budget";
        /// Socket storage that could not be made: the socket is judged on every packet.
        StorageFailed = 4, "storage_failed";
        /// DNS packets dropped because the asker could not be written down.
        AskerFailed = 5, "asker_failed";
        /// Denials in no known sandbox, which have no budget of their own.
        UnknownSandbox = 6, "unknown_sandbox";
        /// DNS queries brought to the resolver.
        Redirected = 7, "redirected";
        /// Inbound packets refused.
        InboundDenied = 8, "inbound_denied";
        /// Device nodes that were not opened or made.
        DeviceRefused = 9, "device_refused";
        /// New connections through an interface that found their table full.
        ConnectionsFull = 13, "connections_full";
        /// Announcements of a link (neighbour discovery, multicast membership,
        /// gratuitous ARP) that go nowhere and are not worth a record each.
        LinkChatter = 14, "link_chatter";
    }
}

/// One report through the ring buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Event {
    /// Boot-time nanoseconds.
    pub time: u64,
    /// The cgroup that was judged; 0 if there was none.
    pub cgroup: CgroupId,
    /// Where to, or for inbound packets where from.
    pub ip: Ip,
    /// The sandbox; 0 if unknown.
    pub sandbox: SandboxId,
    /// The process (thread group) id; 0 if the hook runs where no process can be told.
    pub process: u32,
    /// The real user id of the process or the owner of the socket; `u32::MAX` if unknown.
    pub user: u32,
    /// The name that decided, or none.
    pub name: NameId,
    /// The rule that decided, or none.
    pub rule: RuleId,
    /// By hook: the option (`level << 16 | name`) or the socket kind
    /// (`family << 16 | type << 8 | protocol`); else 0.
    pub detail: u32,
    /// Port.
    pub port: Port,
    /// IANA transport number, as the packet says.
    pub protocol: u8,
    /// [`Hook`] as a number.
    pub hook: u8,
    /// [`Outcome`] as a number.
    pub outcome: u8,
    /// [`crate::Reason`] as a number; 0 when allowed.
    pub reason: u8,
    /// Zero.
    pub reserved: u16,
    /// The command name of the process, NUL-padded; empty if unknown.
    pub command: [u8; 16],
}

shared! {
    Event: 80 = {
        time: u64, cgroup: u64, ip: Ip, sandbox: u32, process: u32, user: u32, name: u32, rule: u32,
        detail: u32, port: u16, protocol: u8, hook: u8, outcome: u8, reason: u8, reserved: u16,
        command: [u8; 16],
    }
}

#[cfg(feature = "user")]
impl Event {
    /// Reads an event as the ring holds it; `None` if the length is another one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        crate::layout::read(bytes)
    }
}
