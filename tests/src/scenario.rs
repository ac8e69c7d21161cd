//! Random policies and histories. Names, addresses and ports come from small
//! pools, so that rules, answers and packets meet; the pools lie on the edges
//! that the language draws.

use crate::reference::range::{self, Net, Special};
use crate::reference::{Destination, Dns, Policy, Ports, Protocol, Rule, Subject, Transport};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::net::IpAddr;

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A sandbox asks for a name, and an upstream answers.
    Answer {
        /// Which sandbox, by number.
        sandbox: usize,
        /// The name, as the client spells it.
        name: String,
        /// What the upstream says.
        addresses: Vec<IpAddr>,
        /// In seconds.
        ttl: u64,
    },
    /// Time passes, in seconds.
    Wait(u64),
    /// Other policies come into force.
    Reload(Vec<Policy>),
    /// A sandbox ends, and another begins in its place under the policy of this number.
    Restart(usize, usize),
    /// Grants that lapsed longer than so many seconds ago are removed.
    Sweep(u64),
    /// Everything is stopped, or policy decides again.
    Emergency(bool),
}

/// A packet that somebody tries to send.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The sandbox, by number.
    pub sandbox: usize,
    /// Where to.
    pub to: Destination,
    /// Whether it belongs to a connection that was allowed when it began.
    pub live: bool,
}

/// Everything that happens in one case.
#[derive(Clone, Debug)]
pub struct History {
    /// The policies in force at first.
    pub policies: Vec<Policy>,
    /// The sandboxes, each with the number of its policy.
    pub sandboxes: Vec<usize>,
    /// What happens.
    pub steps: Vec<Step>,
    /// What is tried after each step.
    pub packets: Vec<Packet>,
}

/// Policies and sandboxes have numbers below this.
pub const MANY: usize = 3;

/// Names that clients ask for and rules mean.
const NAMES: &[&str] = &[
    "example.test",
    "a.example.test",
    "b.a.example.test",
    "badexample.test",
    "other.test",
    "xn--bcher-kva.example.test",
    "a.b.c.d.other.test",
];

/// Addresses on both sides of every edge of the table, and some on none.
fn addresses() -> Vec<IpAddr> {
    const MORE: &[&str] = &[
        "203.0.113.7",
        "203.0.113.8",
        "198.51.100.1",
        "10.66.1.2",
        "172.20.0.1",
        "192.168.1.1",
        "100.100.1.1",
        "169.254.169.254",
        "127.0.0.1",
        "2001:db8::1",
        "2001:db8:1::1",
        "fd00::1",
        "fe80::1",
        "::ffff:203.0.113.7",
        "::ffff:10.66.1.2",
    ];
    let more = MORE.iter().map(|text| text.parse().expect("an address"));
    range::all()
        .iter()
        .flat_map(Net::edges)
        .chain(more)
        .collect()
}

/// Any address: the pool, and sometimes anything at all.
pub fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => select(addresses()),
        1 => any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        1 => any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

/// A network that a rule may name.
fn network() -> impl Strategy<Value = Net> {
    any_network().prop_map(|net| match range::special_around(&net) {
        // It would be refused; in its place stands one that never is.
        Some(Special::Never) => Net::parse("203.0.113.0/29"),
        _ => net,
    })
}

/// A network around some address, IPv4 now and then written as IPv6.
pub fn any_network() -> impl Strategy<Value = Net> {
    (address(), 0..=128_u8, 0..4_u8).prop_map(|(address, bits, form)| match (address, form) {
        (IpAddr::V4(v4), 0) => Net::new(v4.to_ipv6_mapped().into(), bits),
        (IpAddr::V4(_), 1) => Net::new(address, 32),
        (IpAddr::V4(_), _) => Net::new(address, bits % 33),
        (IpAddr::V6(_), 1) => Net::new(address, 128),
        (IpAddr::V6(_), _) => Net::new(address, bits),
    })
}

/// A name in some spelling.
fn name() -> impl Strategy<Value = String> {
    (select(NAMES), 0..5_u8).prop_map(|(name, spelling)| match spelling {
        0 => name.to_uppercase(),
        1 => format!("{name}."),
        2 => name.replace("xn--bcher-kva", "Bücher"),
        _ => name.to_owned(),
    })
}

fn pattern() -> impl Strategy<Value = String> {
    let star = select(vec!["", "*.", "**."]);
    (star, name()).prop_map(|(star, name)| format!("{star}{name}"))
}

fn ports() -> impl Strategy<Value = Vec<Ports>> {
    let item = prop_oneof![
        select(vec![80_u16, 443, 8080, 1, 65535]).prop_map(Ports::One),
        select(vec![(8078_u16, 8081_u16), (1, 3), (50, 55), (442, 443)])
            .prop_map(|(first, last)| Ports::Range(first, last)),
    ];
    prop_oneof![4 => vec(item, 1..3), 1 => Just(vec![Ports::Any])]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        8 => select(vec![80_u16, 443, 8080, 8078, 8081, 8082, 442, 1, 3, 65535]),
        1 => Just(53),
        1 => any::<u16>(),
    ]
}

/// Where a packet may go.
pub fn destination() -> impl Strategy<Value = Destination> {
    let transport = select(vec![Transport::Tcp, Transport::Udp, Transport::Icmp]);
    (transport, address(), port()).prop_map(|(transport, address, port)| Destination {
        transport,
        address,
        port: match transport {
            Transport::Tcp | Transport::Udp => port,
            Transport::Icmp => 0,
        },
    })
}

/// Special networks that a rule for names can name with effect: ranges of the
/// table, and networks at their ends.
fn private_network() -> impl Strategy<Value = Net> {
    let mut ranges = range::all();
    ranges.retain(|net| {
        matches!(
            range::special_around(net),
            Some(Special::Private | Special::LinkLocal | Special::CloudService)
        )
    });
    (select(ranges), 0..2_usize, prop_oneof![Just(0), 0..=96_u8])
        .prop_map(|(range, end, more)| range.narrower(end, more))
}

fn protocols() -> impl Strategy<Value = Vec<Protocol>> {
    let all = vec![
        Protocol::Https,
        Protocol::Http,
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Icmp,
    ];
    proptest::sample::subsequence(all, 1..3)
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        5 => pattern().prop_map(Subject::Domain),
        1 => Just(Subject::Domain("localhost".to_owned())),
        4 => network().prop_map(Subject::Cidr),
    ]
}

prop_compose! {
    fn rule()(
        subject in subject(),
        protocols in protocols(),
        mut ports in ports(),
        default_ports in any::<bool>(),
        allow_private in any::<bool>(),
        private_networks in prop_oneof![2 => Just(Vec::new()), 1 => vec(private_network(), 1..3)],
        expires in proptest::option::weighted(0.2, 0_u64..4000),
    ) -> Rule {
        let may_be_absent = !protocols.iter().any(|p| matches!(p, Protocol::Tcp | Protocol::Udp));
        let would_be_for_none = protocols == [Protocol::Icmp];
        if would_be_for_none || (may_be_absent && default_ports) {
            ports.clear();
        }
        let is_name = matches!(&subject, Subject::Domain(name) if name != "localhost");
        Rule {
            subject,
            protocols,
            ports,
            allow_private,
            allow_private_networks: if is_name { private_networks } else { Vec::new() },
            expires,
        }
    }
}

prop_compose! {
    fn dns()(
        cache_ttl in select(vec![0_u64, 10, 300, 7200]),
        min_ttl in select(vec![0_u64, 30, 100]),
        max_ttl in select(vec![100_u64, 3600]),
        grace in select(vec![0_u64, 60]),
        max_addresses in prop_oneof![1 => 1..4_usize, 1 => Just(32)],
    ) -> Dns {
        Dns { cache_ttl, min_ttl, max_ttl, grace, max_addresses }
    }
}

/// What the policies of one history are made of. They share their rules, as the
/// versions of a policy do; one rule may be in one version and not in the next.
#[derive(Clone, Debug)]
struct Parts {
    rules: Vec<Rule>,
    blocklist: Vec<Subject>,
    addresses: Vec<IpAddr>,
}

/// A policy before its parts are known.
#[derive(Clone, Debug)]
struct Draft {
    number: usize,
    shadow: bool,
    /// Of each rule, whether it is there, and whether with its private networks.
    rules: Vec<(bool, bool)>,
    blocklist: Vec<bool>,
    dns: Dns,
}

/// A step before its parts are known.
#[derive(Clone, Debug)]
enum Plan {
    Answer(usize, String, Vec<Index>, u64),
    Reload(Vec<Draft>),
    Other(Step),
}

const RULES: usize = 7;
const BLOCKS: usize = 3;

fn parts() -> impl Strategy<Value = Parts> {
    let block = prop_oneof![
        pattern().prop_map(Subject::Domain),
        any_network().prop_map(Subject::Cidr),
    ];
    let parts = (vec(rule(), RULES), vec(block, BLOCKS), vec(address(), 4));
    parts.prop_map(|(rules, blocklist, mut addresses)| {
        // Answers and packets go where something changes.
        let subjects = rules.iter().map(|rule| &rule.subject).chain(&blocklist);
        let written = subjects.filter_map(|subject| match subject {
            Subject::Cidr(net) => Some(net),
            Subject::Domain(_) => None,
        });
        let private = rules.iter().flat_map(|rule| &rule.allow_private_networks);
        addresses.extend(written.chain(private).flat_map(Net::edges));
        Parts {
            rules,
            blocklist,
            addresses,
        }
    })
}

fn draft(number: usize) -> impl Strategy<Value = Draft> {
    let rule = (proptest::bool::weighted(0.6), proptest::bool::weighted(0.7));
    let block = proptest::bool::weighted(0.2);
    let shadow = proptest::bool::weighted(0.1);
    let draft = (shadow, vec(rule, RULES), vec(block, BLOCKS), dns());
    draft.prop_map(move |(shadow, rules, blocklist, dns)| Draft {
        number,
        shadow,
        rules,
        blocklist,
        dns,
    })
}

impl Parts {
    fn policy(&self, draft: &Draft) -> Policy {
        let rules = self.rules.iter().zip(&draft.rules);
        let blocklist = self.blocklist.iter().zip(&draft.blocklist);
        Policy {
            name: format!("policy-{}", draft.number),
            shadow: draft.shadow,
            rules: rules
                .filter(|(_, (is_there, _))| *is_there)
                .map(|(rule, (_, private))| match private {
                    true => rule.clone(),
                    false => Rule {
                        allow_private: false,
                        allow_private_networks: Vec::new(),
                        ..rule.clone()
                    },
                })
                .collect(),
            blocklist: blocklist
                .filter(|(_, is_there)| **is_there)
                .map(|(entry, _)| entry.clone())
                .collect(),
            dns: draft.dns,
        }
    }

    fn policies(&self, drafts: &[Draft]) -> Vec<Policy> {
        drafts.iter().map(|draft| self.policy(draft)).collect()
    }

    fn address(&self, index: &Index) -> IpAddr {
        *index.get(&self.addresses)
    }

    fn step(&self, plan: Plan) -> Step {
        match plan {
            Plan::Answer(sandbox, name, addresses, ttl) => Step::Answer {
                sandbox,
                name,
                addresses: addresses.iter().map(|index| self.address(index)).collect(),
                ttl,
            },
            Plan::Reload(drafts) => Step::Reload(self.policies(&drafts)),
            Plan::Other(step) => step,
        }
    }
}

/// Some of the policies; a reload can leave one out.
fn some_drafts() -> impl Strategy<Value = Vec<Draft>> {
    let all = (0..MANY).map(|number| proptest::option::weighted(0.9, draft(number)));
    all.collect::<Vec<_>>()
        .prop_map(|drafts| drafts.into_iter().flatten().collect())
}

fn plan() -> impl Strategy<Value = Plan> {
    let addresses = vec(any::<Index>(), 0..6);
    let answer = (0..MANY, name(), addresses, select(TTLS));
    prop_oneof![
        8 => answer.prop_map(|(sandbox, name, addresses, ttl)| {
            Plan::Answer(sandbox, name, addresses, ttl)
        }),
        2 => prop_oneof![0..100_u64, 0..3000_u64].prop_map(|s| Plan::Other(Step::Wait(s))),
        3 => some_drafts().prop_map(Plan::Reload),
        1 => (0..MANY, 0..MANY).prop_map(|(s, p)| Plan::Other(Step::Restart(s, p))),
        1 => any::<bool>().prop_map(|stopped| Plan::Other(Step::Emergency(stopped))),
        1 => select(&[0_u64, 60, 3600]).prop_map(|s| Plan::Other(Step::Sweep(s))),
    ]
}

const TTLS: &[u64] = &[0, 5, 60, 400, 5000];

prop_compose! {
    /// A history of fewer steps than `longest`, with so many packets.
    pub fn history(longest: usize, packets: usize)(
        parts in parts(),
        policies in (0..MANY).map(draft).collect::<Vec<_>>(),
        sandboxes in vec(0..MANY, MANY),
        plans in vec(plan(), 1..longest),
        packets in vec((0..MANY, destination(), any::<Option<Index>>(), proptest::bool::weighted(0.2)), 1..=packets),
    ) -> History {
        let packets = packets.into_iter().map(|(sandbox, to, near, live)| {
            let address = near.map_or(to.address, |index| parts.address(&index));
            Packet { sandbox, to: Destination { address, ..to }, live }
        });
        History {
            policies: parts.policies(&policies),
            sandboxes,
            packets: packets.collect(),
            steps: plans.into_iter().map(|plan| parts.step(plan)).collect(),
        }
    }
}
