//! Telling the agent what happened, within each sandbox's budget.

use crate::context::{self, Skb};
use crate::{lookups, maps};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use egress_common::{CgroupId, Counter, Event, Hook, Ip, NameId, Outcome, Port, RuleId, SandboxId};

/// What a hook has found out so far; whatever it could not is left at zero.
pub struct Seen {
    /// Where.
    pub hook: Hook,
    /// The judged cgroup.
    pub cgroup: CgroupId,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Whether its policy only observes.
    pub shadow: bool,
    /// The other end's address.
    pub ip: Ip,
    /// The other end's port.
    pub port: Port,
    /// IANA transport number.
    pub protocol: u8,
    /// See [`Event::detail`].
    pub detail: u32,
    /// The deciding name.
    pub name: NameId,
    /// The deciding rule.
    pub rule: RuleId,
}

impl Seen {
    /// Nothing seen yet.
    #[inline(always)]
    pub const fn at(hook: Hook) -> Self {
        Self {
            hook,
            cgroup: CgroupId(0),
            sandbox: SandboxId(0),
            shadow: false,
            ip: Ip::UNSPECIFIED,
            port: Port::ANY,
            protocol: 0,
            detail: 0,
            name: NameId(0),
            rule: RuleId(0),
        }
    }
}

/// Who did it.
#[derive(Clone, Copy)]
pub enum Actor<'a> {
    /// The running process: true where the hook runs inside its system call.
    Current,
    /// Only the owner of the packet's socket is known: packet hooks may run in
    /// anybody's context.
    Owner(&'a Skb<'a>),
    /// Nobody on this host: the packet came through an interface.
    Behind,
}

/// Wakes nobody (`BPF_RB_NO_WAKEUP`).
const QUIETLY: u64 = 1;
/// Bytes that may wait in the ring before the agent is woken for them.
const PATIENCE: u64 = 1 << 20;

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = lookups::counter(counter) {
        context::add_one(value);
    }
}

/// Reports, or counts what could not be reported.
#[inline(always)]
pub fn emit(seen: &Seen, outcome: Outcome, reason: u8, actor: Actor<'_>) {
    let time = lookups::now();
    // What belongs to no sandbox shares the budget of cgroup 0.
    let payer = if seen.sandbox.0 == 0 {
        CgroupId(0)
    } else {
        seen.cgroup
    };
    if !within_budget(payer, time) {
        count(Counter::OverBudget);
        return;
    }
    let Some(mut slot) = maps::EVENTS.reserve(0) else {
        count(Counter::RingFull);
        return;
    };
    let (process, user, command) = match actor {
        Actor::Current => (
            current_process(),
            bpf_get_current_uid_gid() as u32,
            bpf_get_current_comm().unwrap_or([0; 16]),
        ),
        Actor::Owner(skb) => (0, skb.user(), [0; 16]),
        Actor::Behind => (0, u32::MAX, [0; 16]),
    };
    slot.write(Event {
        time,
        cgroup: seen.cgroup,
        ip: seen.ip,
        sandbox: seen.sandbox,
        process,
        user,
        name: seen.name,
        rule: seen.rule,
        detail: seen.detail,
        port: seen.port,
        protocol: seen.protocol,
        hook: seen.hook as u8,
        outcome: outcome as u8,
        reason,
        reserved: 0,
        command,
    });
    slot.submit(wakeup(outcome));
}

/// Waking the agent is an interrupt, which costs more than everything else that
/// a connection is judged by. What was allowed can wait for its next look into
/// the ring, as long as the ring has room.
#[inline(always)]
fn wakeup(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Allowed if lookups::unread_events() < PATIENCE => QUIETLY,
        Outcome::Allowed | Outcome::WouldDeny | Outcome::Denied => 0,
    }
}

/// Takes one token. Two CPUs that race may both take the last one: the budget
/// protects the ring, it is not an account. The count of losses is exact.
#[inline(always)]
fn within_budget(payer: CgroupId, time: u64) -> bool {
    let Some(meter) = lookups::meter(payer) else {
        return false;
    };
    if meter.tokens == 0 {
        const SECOND: u64 = 1_000_000_000;
        if time.wrapping_sub(meter.refilled) < SECOND {
            context::add_one(&mut meter.lost);
            return false;
        }
        meter.refilled = time;
        meter.tokens = lookups::settings().events_per_second;
    }
    meter.tokens = meter.tokens.saturating_sub(1);
    true
}

/// The process in whose context this runs, as the first pid namespace numbers it.
#[inline(always)]
pub fn current_process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
