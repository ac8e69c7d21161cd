//! The policy language, told a second time: slowly, obviously, and from the
//! documents alone.
//!
//! Every function here is a sentence of `docs/policy.md` (or of `docs/architecture.md`
//! where it says how long something lasts), read rule by rule: no index, no
//! trie, no flattening, nothing remembered that could be looked at again. The
//! product is compared with it ([`crate::comparison`]); where the two disagree,
//! the document decides who is wrong.

pub mod range;
pub mod text;

use range::{Net, Special};
use std::net::IpAddr;

/// TCP, UDP, or ICMP echo, which has no ports and whose port is 0 here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Transport {
    Tcp,
    Udp,
    Icmp,
}

/// What stands under `protocols`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Https,
    Http,
    Tcp,
    Udp,
    Icmp,
}

/// An item under `ports`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Ports {
    One(u16),
    Range(u16, u16),
    Any,
}

/// What a rule or a blocklist entry is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A name in one of the three spellings, as a person may write it.
    Domain(String),
    /// A network.
    Cidr(Net),
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the keys of the language")]
pub struct Rule {
    pub subject: Subject,
    pub protocols: Vec<Protocol>,
    /// Nothing where the key is absent.
    pub ports: Vec<Ports>,
    pub allow_private: bool,
    pub allow_private_networks: Vec<Net>,
    /// In seconds since the beginning of the history.
    pub expires: Option<u64>,
}

/// The time spans under `dns`, in seconds, and the bound on addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the keys of the language")]
pub struct Dns {
    pub cache_ttl: u64,
    pub min_ttl: u64,
    pub max_ttl: u64,
    pub grace: u64,
    pub max_addresses: usize,
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the keys of the language")]
pub struct Policy {
    pub name: String,
    pub shadow: bool,
    pub rules: Vec<Rule>,
    pub blocklist: Vec<Subject>,
    pub dns: Dns,
}

/// Where a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Destination {
    pub transport: Transport,
    pub address: IpAddr,
    pub port: u16,
}

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is brought to the agent's resolver.
    Resolver,
    /// It is refused.
    Denied,
    /// It passes, and these are the positions of the rules that let it.
    Allowed(Vec<usize>),
}

/// "Case, a trailing dot and international letters make no difference". The one
/// international name of the histories is that of the document.
pub fn canonical(name: &str) -> String {
    let name = name.to_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    name.replace("bücher", "xn--bcher-kva")
}

/// The three spellings.
pub fn means(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (canonical(pattern), canonical(name));
    let is_below = |base: &str| name.ends_with(&format!(".{base}"));
    if let Some(base) = pattern.strip_prefix("**.") {
        name == base || is_below(base)
    } else if let Some(base) = pattern.strip_prefix("*.") {
        is_below(base)
    } else {
        name == pattern
    }
}

impl Protocol {
    /// "`https` and `http` are TCP with a default port."
    fn transport(self) -> Transport {
        match self {
            Self::Https | Self::Http | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
            Self::Icmp => Transport::Icmp,
        }
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Self::Https => Some(443),
            Self::Http => Some(80),
            Self::Tcp | Self::Udp | Self::Icmp => None,
        }
    }
}

impl Ports {
    fn hold(self, port: u16) -> bool {
        match self {
            Self::One(own) => own == port,
            Self::Range(first, last) => first <= port && port <= last,
            Self::Any => true,
        }
    }
}

impl Rule {
    /// "From this moment on the rule does not apply."
    fn applies(&self, now: u64) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    /// The items under `ports`, or the protocol's default. `icmp` has no ports.
    fn ports_of(&self, protocol: Protocol) -> Vec<Ports> {
        match protocol.default_port() {
            _ if protocol == Protocol::Icmp => vec![Ports::Any],
            Some(port) if self.ports.is_empty() => vec![Ports::One(port)],
            _ => self.ports.clone(),
        }
    }

    fn opens(&self, transport: Transport, port: u16) -> bool {
        self.protocols.iter().any(|protocol| {
            let ports = self.ports_of(*protocol);
            protocol.transport() == transport && ports.iter().any(|ports| ports.hold(port))
        })
    }

    /// Whether `any` is written, or meant.
    fn opens_any(&self, transport: Transport) -> bool {
        let mut protocols = self.protocols.iter();
        protocols.any(|p| p.transport() == transport && self.ports_of(*p).contains(&Ports::Any))
    }

    /// Every port one by one; `any` "costs one", and is `None`.
    fn single_ports(&self) -> impl Iterator<Item = (Transport, Option<u16>)> {
        self.protocols.iter().flat_map(|protocol| {
            let ports = self.ports_of(*protocol).into_iter();
            let ports = ports.flat_map(|item| match item {
                Ports::One(port) => vec![Some(port)],
                Ports::Range(first, last) => (first..=last).map(Some).collect(),
                Ports::Any => vec![None],
            });
            ports.map(|port| (protocol.transport(), port))
        })
    }

    /// Whether the rule is about a name; `localhost` is about networks.
    fn means_name(&self, name: &str) -> bool {
        match &self.subject {
            Subject::Domain(pattern) => canonical(pattern) != "localhost" && means(pattern, name),
            Subject::Cidr(_) => false,
        }
    }

    /// "`domain: localhost` opens (…) 127.0.0.0/8 and ::1."
    fn networks(&self) -> Vec<Net> {
        match &self.subject {
            Subject::Domain(pattern) if canonical(pattern) == "localhost" => {
                vec![Net::parse("127.0.0.0/8"), Net::parse("::1/128")]
            }
            Subject::Domain(_) => Vec::new(),
            Subject::Cidr(net) => vec![*net],
        }
    }

    /// The column "a name may lead there".
    fn may_lead_to(&self, address: IpAddr) -> bool {
        let Some((special, range)) = range::special(address) else {
            return true;
        };
        let named = self
            .allow_private_networks
            .iter()
            .any(|net| range.holds_all_of(net) && net.holds(address));
        match special {
            Special::Private => self.allow_private || named,
            Special::LinkLocal | Special::CloudService => named,
            Special::Loopback | Special::Never => false,
        }
    }

    /// The column "a network rule opens it".
    fn network_opens(&self, address: IpAddr) -> bool {
        let open = |net: &Net| {
            net.holds(address)
                && match range::special(address) {
                    None => true,
                    Some((Special::Private, range)) => {
                        self.allow_private || range.holds_all_of(net)
                    }
                    Some((Special::Never, _)) => false,
                    Some((_, range)) => range.holds_all_of(net),
                }
        };
        self.networks().iter().any(open)
    }
}

impl Policy {
    /// "A blocked name is never forwarded."
    fn blocks_name(&self, name: &str) -> bool {
        self.blocklist.iter().any(|entry| match entry {
            Subject::Domain(pattern) => means(pattern, name),
            Subject::Cidr(_) => false,
        })
    }

    fn blocks_address(&self, address: IpAddr) -> bool {
        self.blocklist.iter().any(|entry| match entry {
            Subject::Domain(_) => false,
            Subject::Cidr(net) => net.holds(address),
        })
    }

    /// Whether the name may be asked for at all.
    pub fn allows_name(&self, name: &str, now: u64) -> bool {
        let rules = || self.rules.iter();
        !self.blocks_name(name) && rules().any(|rule| rule.applies(now) && rule.means_name(name))
    }

    /// Positions of the rules by which `name` may lead to `address`.
    fn leading(&self, name: &str, address: IpAddr, now: u64) -> Vec<usize> {
        let refused = self.blocks_name(name) || self.blocks_address(address);
        let leads = |rule: &Rule| {
            rule.applies(now) && rule.means_name(name) && rule.may_lead_to(address) && !refused
        };
        (0..self.rules.len())
            .filter(|at| leads(&self.rules[*at]))
            .collect()
    }

    /// Positions of the network rules that open a destination.
    fn network_rules(&self, to: &Destination, now: u64) -> Vec<usize> {
        let opens = |rule: &Rule| {
            rule.applies(now)
                && rule.network_opens(to.address)
                && rule.opens(to.transport, to.port)
                && !self.blocks_address(to.address)
        };
        (0..self.rules.len())
            .filter(|at| opens(&self.rules[*at]))
            .collect()
    }
}

/// That an answer led a name to an address: one port of one transport, or `any`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Grant {
    name: String,
    address: IpAddr,
    transport: Transport,
    /// `None` for `any`.
    port: Option<u16>,
    until: u64,
}

impl Grant {
    fn covers(&self, to: &Destination) -> bool {
        self.address == to.address.to_canonical()
            && self.transport == to.transport
            && self.port.is_none_or(|port| port == to.port)
    }

    fn same_place(&self, other: &Self) -> bool {
        (self.address, self.transport, self.port) == (other.address, other.transport, other.port)
    }
}

/// A sandbox: the policy that it is under, by name, and what it was granted.
#[derive(Clone, Debug)]
struct Sandbox {
    policy: String,
    grants: Vec<Grant>,
}

/// The policies in force, the sandboxes, and the time in seconds.
#[derive(Clone, Debug, Default)]
pub struct Model {
    policies: Vec<Policy>,
    sandboxes: Vec<Sandbox>,
    now: u64,
    stopped: bool,
}

impl Model {
    /// Time passes. Rules can expire, and what they alone opened closes.
    pub fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        self.revoke();
    }

    /// The time.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Other policies come into force. "Connections that lost their rule" lose it.
    pub fn reload(&mut self, policies: Vec<Policy>) {
        self.policies = policies;
        self.revoke();
    }

    /// The emergency block begins or ends. Nothing is forgotten meanwhile.
    pub fn emergency(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Whether everything is stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// A sandbox begins; its number is the count of those before it.
    pub fn begin(&mut self, policy: &str) {
        self.sandboxes.push(Sandbox {
            policy: policy.to_owned(),
            grants: Vec::new(),
        });
    }

    /// A sandbox ends and another begins in its place.
    pub fn restart(&mut self, sandbox: usize, policy: &str) {
        self.sandboxes[sandbox] = Sandbox {
            policy: policy.to_owned(),
            grants: Vec::new(),
        };
    }

    /// The policy of a sandbox, if it is loaded.
    pub fn policy(&self, sandbox: usize) -> Option<&Policy> {
        let name = &self.sandboxes[sandbox].policy;
        self.policies.iter().find(|policy| policy.name == *name)
    }

    /// An upstream answers with these addresses: which of them the sandbox is
    /// told, and may then reach. `None` if the name was not even asked for.
    pub fn answer(
        &mut self,
        sandbox: usize,
        name: &str,
        addresses: &[IpAddr],
        ttl: u64,
    ) -> Option<Vec<IpAddr>> {
        let now = self.now;
        let policy = self.policy(sandbox)?;
        if !policy.allows_name(name, now) {
            return None;
        }
        let mut told: Vec<IpAddr> = Vec::new();
        let mut grants = Vec::new();
        // "Not less and not more than these", but "the grant always outlives
        // the answer"; grace is added.
        let answer_ttl = ttl.min(policy.dns.cache_ttl);
        let open_for = ttl.max(policy.dns.min_ttl).min(policy.dns.max_ttl);
        let until = now + open_for.max(answer_ttl) + policy.dns.grace;
        for address in addresses.iter().map(IpAddr::to_canonical) {
            let rules = policy.leading(name, address, now);
            let is_full = told.len() == policy.dns.max_addresses;
            if rules.is_empty() || told.contains(&address) || is_full {
                continue;
            }
            told.push(address);
            for rule in rules.iter().map(|at| &policy.rules[*at]) {
                grants.extend(rule.single_ports().map(|(transport, port)| Grant {
                    name: canonical(name),
                    address,
                    transport,
                    port,
                    until,
                }));
            }
        }
        self.sandboxes[sandbox].grants.extend(grants);
        Some(told)
    }

    /// What becomes of a packet. `live` is a packet of a connection that was
    /// allowed when it began: "an expired grant stops new connections only".
    pub fn fate(&self, sandbox: usize, to: &Destination, live: bool) -> Fate {
        // "It wins over every rule, over shadow mode, and over the resolver."
        if self.stopped {
            return Fate::Denied;
        }
        if to.port == 53 {
            return Fate::Resolver;
        }
        let Some(policy) = self.policy(sandbox) else {
            return Fate::Denied;
        };
        let mut rules = policy.network_rules(to, self.now);
        for grant in &self.sandboxes[sandbox].grants {
            if grant.covers(to) && (live || self.now < grant.until) {
                rules.extend(self.rules_for(policy, grant));
            }
        }
        if rules.is_empty() {
            return Fate::Denied;
        }
        Fate::Allowed(rules)
    }

    /// Grants that lapsed long ago are forgotten, also for live connections. A
    /// place is remembered as long as any name keeps it.
    pub fn sweep(&mut self, keep: u64) {
        let now = self.now;
        for sandbox in &mut self.sandboxes {
            let all = sandbox.grants.clone();
            sandbox.grants.retain(|grant| {
                all.iter()
                    .any(|other| other.same_place(grant) && now < other.until + keep)
            });
        }
    }

    /// The rules of the policy in force that give what was granted.
    fn rules_for(&self, policy: &Policy, grant: &Grant) -> Vec<usize> {
        let mut rules = policy.leading(&grant.name, grant.address, self.now);
        rules.retain(|at| match grant.port {
            Some(port) => policy.rules[*at].opens(grant.transport, port),
            None => policy.rules[*at].opens_any(grant.transport),
        });
        rules
    }

    /// "From this moment on": what no rule in force gives any more is taken away,
    /// and does not come back by itself.
    fn revoke(&mut self) {
        for sandbox in 0..self.sandboxes.len() {
            let mut grants = std::mem::take(&mut self.sandboxes[sandbox].grants);
            grants.retain(|grant| {
                let policy = self.policy(sandbox);
                policy.is_some_and(|policy| !self.rules_for(policy, grant).is_empty())
            });
            self.sandboxes[sandbox].grants = grants;
        }
    }
}
