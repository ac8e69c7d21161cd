//! What was decided, and why.

use crate::sandbox::{NameId, RuleId};

/// The answer of [`crate::decide()`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Let it pass.
    Allow(Because),
    /// Refuse it.
    Deny(Reason),
    /// It is a DNS query: bring it to the agent's resolver.
    Redirect,
}

/// Why something is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Because {
    /// The resolver handed the address out for a name that policy allows.
    Granted {
        /// The name.
        name: NameId,
        /// The rule that allows it.
        rule: RuleId,
        /// Boot-time nanoseconds until which new connections may use it.
        expires: u64,
    },
    /// A static network rule names it.
    Network(RuleId),
    /// It is the agent's resolver.
    Resolver,
    /// The socket at the other end belongs to the same sandbox.
    OwnSandbox,
}

impl Because {
    /// The rule that decided, or none.
    #[inline(always)]
    pub const fn rule(&self) -> RuleId {
        match *self {
            Self::Granted { rule, .. } | Self::Network(rule) => rule,
            Self::Resolver | Self::OwnSandbox => RuleId(0),
        }
    }

    /// The name that decided, or none.
    #[inline(always)]
    pub const fn name(&self) -> NameId {
        match *self {
            Self::Granted { name, .. } => name,
            Self::Network(_) | Self::Resolver | Self::OwnSandbox => NameId(0),
        }
    }
}

/// Declares the reasons with their number, stable name and sentence, once.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $sentence:literal;)+) => {
        /// Why something is refused. Numbers and names are stable: they stand in
        /// events, audit records, DNS answers and the API.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $code),+ }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The reason with this number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The stable name, in the words of the audit records.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it means, as half a sentence for a person.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence),+ }
            }
        }
    };
}

reasons! {
    /// The cgroup under the governed root is not a sandbox that the agent made.
    UnknownSandbox = 1, "unknown_sandbox", "the process runs below the governed root in no known sandbox";
    /// The packet is not plain IPv4 or IPv6 with TCP or UDP.
    Unparsable = 2, "unparsable_packet", "the packet is not plain IPv4 or IPv6 carrying TCP or UDP";
    /// The socket's family, type or protocol is not allowed.
    SocketKind = 3, "socket_kind", "only TCP and UDP sockets may be made in a sandbox";
    /// The socket option could send packets or change routes by itself.
    SocketOption = 4, "socket_option", "the socket option could send or steer packets by itself";
    /// The address names no single host.
    NeverAllowed = 5, "never_allowed", "the address is multicast, broadcast, reserved or embeds another address";
    /// No rule and no grant opens the destination.
    NoRule = 6, "no_rule", "no rule and no grant of the resolver opens it on this port";
    /// A grant was there, and has expired.
    Lapsed = 7, "lapsed_grant", "the resolver's grant for this address has lapsed; resolve the name again";
    /// A loopback destination that neither belongs to the sandbox nor is named by a rule.
    Loopback = 8, "loopback", "the loopback listener belongs to another party, and no rule names it";
    /// A packet from outside that answers nothing.
    Inbound = 9, "inbound", "sandboxes accept no connections and no unasked packets from outside";
    /// The socket belongs to one sandbox, the process to another.
    ForeignSocket = 10, "foreign_socket", "the socket belongs to another sandbox than the process";
    /// A DNS query that could not be brought to the agent's resolver.
    OtherResolver = 11, "other_resolver", "DNS goes to the agent's resolver only";
    /// The agent's resolver is not there to ask.
    NoResolver = 12, "no_resolver", "the agent's resolver is not listening";
    /// A live connection lost the rule that allowed it.
    Revoked = 13, "revoked", "the rule that allowed this connection was removed";
    /// A kernel helper failed where only success would have allowed.
    HelperFailed = 14, "kernel_helper_failed", "a kernel helper failed, so nothing could be proved";
    /// A loopback destination on its way to a real device.
    Misrouted = 15, "misrouted", "a loopback address does not leave through another device";
    /// More DNS datagrams than the resolver takes from one sandbox.
    TooManyQueries = 16, "too_many_queries", "the sandbox sends DNS queries faster than the resolver takes them from one sandbox";
    /// The emergency block is in force.
    Emergency = 17, "emergency", "everything is stopped by `egressctl emergency-block`, whatever policy says";
    /// As many TCP sockets are connected as the policy lets the sandbox have.
    TooManyConnections = 18, "too_many_connections", "the sandbox has as many connections open as `max_connections` of the policy";
    /// The sandbox itself was blocked, by ops or by an alert.
    SandboxBlocked = 19, "sandbox_blocked", "the sandbox is blocked, by ops or by an alert, whatever its policy says";

    /// A frame behind an interface that is neither plain IP nor what the link itself needs.
    LinkFrame = 32, "link_frame", "only plain IP over Ethernet, and ARP or neighbour discovery with the gateway, cross the interface";
    /// A source address, or Ethernet address, that is not the sandbox's.
    SpoofedSource = 33, "spoofed_source", "the source address was not assigned to the sandbox";
    /// A packet from inside that belongs to no connection that began here.
    NoConnection = 34, "no_connection", "the packet belongs to no connection that was allowed when it began";
    /// The sandbox's share of the connection table is used up.
    ConnectionsFull = 35, "connections_full", "the sandbox has as many connections as one may have";
    /// The resolver: no rule allows the name.
    NameNotAllowed = 64, "name_not_allowed", "no rule allows the name";
    /// The resolver: a blocklist entry or block pattern matches the name.
    NameBlocked = 65, "name_blocked", "the blocklist names it";
    /// The resolver: the name has no canonical form.
    NameInvalid = 66, "name_invalid", "it is not a valid domain name";
    /// The resolver: the record type is not answered.
    QueryType = 67, "query_type", "the policy does not allow this DNS record type";
    /// The resolver: the answer holds an address inside a protected range.
    Rebinding = 68, "rebinding", "the answer points into a private or special range that the rule does not open";
    /// The resolver: the rule has expired.
    RuleExpired = 69, "rule_expired", "the rule has passed its expiry date";
    /// The resolver: more addresses than are accepted.
    TooManyAddresses = 70, "too_many_addresses", "the bound on addresses is reached";
    /// The resolver: no upstream gave a usable answer.
    UpstreamFailed = 71, "upstream_failed", "no upstream resolver gave a usable answer";
    /// The resolver: the address could not be opened, so it was not handed out.
    GrantFailed = 72, "grant_failed", "the address could not be opened in the kernel, so it was not handed out";
    /// The resolver: the query comes from no sandbox.
    UnknownAsker = 73, "unknown_asker", "the query does not come from a sandbox";
    /// The resolver: the message is malformed.
    MalformedQuery = 74, "malformed_query", "the DNS message cannot be parsed";
    /// The resolver: the asked thing is allowed only where the address is not.
    ChainRefused = 75, "chain_refused", "the answer passes through a name that is blocked";
    /// The resolver: names below wildcards carry more than the policy lets them.
    NameBudget = 76, "name_budget", "names below wildcards say more than `dns.limits` of the policy lets them";
    /// The resolver: more queries than the policy lets the sandbox ask.
    QueryBudget = 77, "query_budget", "the sandbox asks more often than `dns.limits` of the policy lets it";

    /// The agent, of itself: somebody meddled with what is in force.
    Disturbed = 128, "enforcement_disturbed", "a kernel program was detached, or another one was attached after ours";
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use std::collections::BTreeSet;

    #[test]
    fn reasons_have_distinct_numbers_and_names_that_lead_back_to_them() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(*reason as u8), Some(*reason));
        }
        assert_eq!(Reason::from_code(0), None);
    }
}
