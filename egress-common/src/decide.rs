//! The decision: may this sandbox reach this destination?
//!
//! One procedure, compiled into the kernel programs and into the agent, so that
//! what `egressctl policy explain` says is what the kernel does.
//! A test holds it equal to an obvious model of the policy language.

use crate::destination::{Destination, Port};
use crate::grant::{Grant, GrantKey, Network};
use crate::sandbox::{PolicyId, Sandbox};
use crate::verdict::{Because, Reason, Verdict};

/// Where the decision finds what is open. The kernel looks into its maps, the
/// agent into the image of those maps.
pub trait Lookups {
    /// The grant under this key, expired or not.
    fn grant(&self, key: &GrantKey) -> Option<Grant>;
    /// The longest static network of `policy` that holds the destination.
    fn network(&self, policy: PolicyId, to: &Destination) -> Option<Network>;
    /// Whose socket listens at a loopback destination.
    fn neighbour(&self, to: &Destination) -> Neighbour;
    /// Boot-time nanoseconds.
    fn now(&self) -> u64;
}

/// Whose socket a loopback packet would reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbour {
    /// The agent's resolver.
    Resolver,
    /// The same sandbox.
    Own,
    /// Somebody else, or nobody.
    Other,
}

/// Whether something begins or goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A new connection, or a datagram that stands for itself.
    New,
    /// A packet of a connection that was allowed when it began. An expired
    /// grant still covers it: expiry spares, only removal revokes.
    Live,
}

/// Decides whether `sandbox` may send to `to`.
///
/// Nothing found means denied. The order is by cost; no two steps can disagree,
/// because the agent grants no address that an earlier step refuses.
#[inline(always)]
pub fn decide<L: Lookups>(
    world: &L,
    sandbox: &Sandbox,
    to: &Destination,
    standing: Standing,
) -> Verdict {
    if to.port == Port::DNS {
        return Verdict::Redirect;
    }
    match judge(world, sandbox, to, standing) {
        Ok(because) => Verdict::Allow(because),
        Err(reason) => Verdict::Deny(reason),
    }
}

#[inline(always)]
fn judge<L: Lookups>(
    world: &L,
    sandbox: &Sandbox,
    to: &Destination,
    standing: Standing,
) -> Result<Because, Reason> {
    if to.ip.is_never_allowed() {
        return Err(Reason::NeverAllowed);
    }
    if to.ip.is_loopback() {
        match world.neighbour(to) {
            Neighbour::Resolver => return Ok(Because::Resolver),
            Neighbour::Own => return Ok(Because::OwnSandbox),
            Neighbour::Other => {}
        }
        return network(world, sandbox, to).ok_or(Reason::Loopback);
    }

    let mut lapsed = false;
    for port in [to.port, Port::ANY] {
        if let Some(grant) = world.grant(&GrantKey::new(sandbox.id, to, port)) {
            // Live first: a fresh `now` costs a helper call that most packets can spare.
            if standing == Standing::Live || world.now() < grant.expires {
                let Grant {
                    name,
                    rule,
                    expires,
                } = grant;
                return Ok(Because::Granted {
                    name,
                    rule,
                    expires,
                });
            }
            lapsed = true;
        }
    }
    network(world, sandbox, to).ok_or(if lapsed {
        Reason::Lapsed
    } else {
        Reason::NoRule
    })
}

#[inline(always)]
fn network<L: Lookups>(world: &L, sandbox: &Sandbox, to: &Destination) -> Option<Because> {
    world
        .network(sandbox.policy, to)?
        .rule_for(to.protocol, to.port)
        .map(Because::Network)
}
