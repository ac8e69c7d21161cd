//! Who sends.

use crate::layout::shared;
use crate::verdict::Reason;

/// Declares an integer that must not be mistaken for another integer.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $name(pub $inner);
    };
}

id!(
    /// The kernel's 64-bit id of a cgroup (its inode number); 0 is never one.
    CgroupId(u64)
);
id!(
    /// The agent's id of a sandbox; never used twice while the maps live. 0 is never one.
    SandboxId(u32)
);
id!(
    /// A compiled policy. Sandboxes under one policy share its networks. 0 is never one.
    PolicyId(u32)
);
id!(
    /// A rule, for explanations. 0 says that none applies.
    RuleId(u32)
);
id!(
    /// A domain name, for explanations. 0 says that none applies.
    NameId(u32)
);

/// What happens to what policy does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce = 0,
    /// It is reported as what would have been refused, and passes.
    Shadow = 1,
}

/// A sandbox as the kernel knows it; found by its [`CgroupId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Sandbox {
    /// The agent's id.
    pub id: SandboxId,
    /// Whose networks apply.
    pub policy: PolicyId,
    /// [`Mode`] as a number: a map value can hold any bits, an enum cannot.
    pub mode: u32,
    /// TCP sockets that may be connected at a time; 0 if they are not counted.
    pub max_connections: u32,
    /// The send buffer of each TCP socket that connects, in bytes; 0 if the kernel
    /// and the sandbox choose.
    pub send_buffer: u32,
    /// Bits of [`Sandbox::OWN_NETWORK`] and [`Sandbox::BLOCKED`].
    pub flags: u32,
}

impl Sandbox {
    /// [`Sandbox::flags`]: it has a network namespace of its own, in which the
    /// resolver's sockets are reached by nobody else. Who asks is known there by
    /// the socket that is asked; ports mean something else than on the host.
    pub const OWN_NETWORK: u32 = 1;

    /// Whether it has a network namespace of its own.
    #[inline(always)]
    pub const fn has_own_network(&self) -> bool {
        self.flags & Self::OWN_NETWORK != 0
    }

    /// [`Sandbox::flags`]: it is refused everything, whatever its policy says. It
    /// stays known, so that what it is refused is told in its name.
    pub const BLOCKED: u32 = 2;

    /// The question before every rule: whether it may do anything at all.
    #[inline(always)]
    pub const fn admit(&self) -> Result<(), Reason> {
        if self.flags & Self::BLOCKED == 0 {
            Ok(())
        } else {
            Err(Reason::SandboxBlocked)
        }
    }

    /// Whether denials are only reported. Unknown numbers enforce.
    #[inline(always)]
    pub const fn is_shadow(&self) -> bool {
        self.mode == Mode::Shadow as u32
    }
}

/// What all programs must know, in a one-element array.
///
/// Written by the agent before the first program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Settings {
    /// The policy generation. It moves whenever anything was taken away from
    /// anybody; a live connection whose flow carries another is judged again.
    pub epoch: u32,
    /// Where the resolver listens on `127.0.0.1`, network order; 0 if nowhere.
    pub resolver_port4: u16,
    /// Where the resolver listens on `::1`, network order; 0 if nowhere.
    pub resolver_port6: u16,
    /// The cgroup in which the agent runs. A "resolver" in any other is an
    /// impostor that took the port while the agent was away.
    pub agent: CgroupId,
    /// Events a sandbox may report per second before they are only counted.
    pub events_per_second: u64,
    /// DNS datagrams a sandbox may send in each [`QUERY_PERIOD`], and until the
    /// resolver has read what waits; the rest is refused.
    pub queries_per_period: u64,
    /// The [`CONTRACT`] of the agent that wrote this.
    pub contract: u32,
    /// Whether [`Traffic`] is counted; 0 if it is not.
    pub count_bytes: u32,
}

/// What programs and maps mean to each other, as a number that grows with every
/// change that an older agent would not know how to honour. An agent refuses to
/// take over from a newer one: its older programs could be more open.
pub const CONTRACT: u32 = 5;

/// The emergency block, in a one-element array of its own: it is written whole,
/// by whoever presses the button, and no other writer can lose it.
///
/// Boot-time nanoseconds since when everything is stopped; 0 if nothing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Emergency(pub u64);

impl Emergency {
    /// Nothing is stopped.
    pub const NONE: Self = Self(0);

    /// The question before every other: whether anything may be asked at all.
    #[inline(always)]
    pub const fn admit(self) -> Result<(), Reason> {
        match self {
            Self::NONE => Ok(()),
            Self(_) => Err(Reason::Emergency),
        }
    }
}

/// How many events a sandbox may still report, what it lost, and how many
/// queries it may still send; per sandbox.
///
/// Without it one sandbox could hide what another does by filling the ring, or
/// keep another from resolving by filling the resolver's receive queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Meter {
    /// Events that may be reported before the next refill.
    pub tokens: u64,
    /// Boot-time nanoseconds of the last refill.
    pub refilled: u64,
    /// Events that were not reported, since the sandbox began. Only ever grows.
    pub lost: u64,
    /// DNS datagrams that may be sent before the next refill.
    pub queries: u32,
    /// The resolver's count of having read everything, at that one's last refill:
    /// while it stays the same, what was sent may still wait in the queue that all
    /// share, and there is no further refill.
    pub drained: u32,
    /// Boot-time nanoseconds of that one's last refill.
    pub queries_refilled: u64,
}

/// What a sandbox has sent and received, on each processor: bytes of packets that
/// passed, with their IP headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Traffic {
    /// What left.
    pub sent: u64,
    /// What entered.
    pub received: u64,
}

/// Over which [`Settings::queries_per_period`] counts, in nanoseconds.
pub const QUERY_PERIOD: u64 = 100_000_000;

shared! {
    CgroupId: 8 = { 0: u64 }
    SandboxId: 4 = { 0: u32 }
    PolicyId: 4 = { 0: u32 }
    RuleId: 4 = { 0: u32 }
    NameId: 4 = { 0: u32 }
    Sandbox: 24 = { id: u32, policy: u32, mode: u32, max_connections: u32, send_buffer: u32, flags: u32 }
    Settings: 40 = { epoch: u32, resolver_port4: u16, resolver_port6: u16, agent: u64, events_per_second: u64, queries_per_period: u64, contract: u32, count_bytes: u32 }
    Emergency: 8 = { 0: u64 }
    Traffic: 16 = { sent: u64, received: u64 }
    Meter: 40 = { tokens: u64, refilled: u64, lost: u64, queries: u32, drained: u32, queries_refilled: u64 }
}
