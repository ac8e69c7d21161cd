//! The product beside the reference model: one history through both, and every
//! packet judged twice.

use crate::reference::text::{self, Written};
use crate::reference::{self, Destination, Fate, Model, Transport};
use crate::scenario::{History, Packet, Step};
use egress_agent::daemon::book::{Book, Newcomer};
use egress_agent::dns::{Judgement, Opening};
use egress_agent::image::{Change, Image, View};
use egress_agent::model::{DomainName, SandboxName};
use egress_agent::policy::{Diagnostic, Policy, PolicySet};
use egress_common::{
    CgroupId, Emergency, Ip, Mode, Port, Protocol, Reason, SandboxId, Standing, Verdict,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Why a history did not go through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A policy opens more port ranges at one network than fit, which the
    /// language refuses and the model does not count.
    Refused,
    /// The product and the model differ: the finding.
    Disagreement(String),
}

/// What one history compared.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tally {
    pub packets: usize,
    pub allowed: usize,
    pub answers: usize,
}

/// The product's book, the kernel's content as the book's changes make it, and
/// the model.
pub struct World {
    model: Model,
    book: Book,
    image: Image,
    emergency: Emergency,
    /// Boot-time seconds at the model's time 0.
    boot: u64,
    began: Timestamp,
    cgroups: Vec<CgroupId>,
    sandboxes: Vec<SandboxId>,
    /// Lines of the rules of each policy in force.
    lines: BTreeMap<String, Vec<u32>>,
    /// What must be done to a kernel that follows the image.
    changes: Vec<Change>,
}

fn differ<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Disagreement(what.into()))
}

impl World {
    /// A world over what a kernel holds, at boot-time second `boot`, whose
    /// sandboxes will live in these cgroups.
    pub fn new(in_force: &Image, boot: u64, cgroups: Vec<CgroupId>) -> Self {
        Self {
            model: Model::default(),
            book: Book::new(in_force),
            image: in_force.clone(),
            emergency: Emergency::NONE,
            boot,
            began: "2026-11-20T12:00:00Z".parse().expect("a time"),
            cgroups,
            sandboxes: Vec::new(),
            lines: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Runs a whole history with its packets after each step, in a world of its own.
    pub fn run(history: &History) -> Result<Tally, Stop> {
        let cgroups = (1..=history.sandboxes.len() as u64).map(CgroupId);
        let mut world = Self::new(&Image::default(), 1_000_000, cgroups.collect());
        world.begin(history)?;
        let mut tally = Tally::default();
        for step in &history.steps {
            world.step(step)?;
            tally.answers += usize::from(matches!(step, Step::Answer { .. }));
            for packet in world.packets(history, step) {
                tally.packets += 1;
                tally.allowed += usize::from(world.compare(&packet)?);
            }
        }
        Ok(tally)
    }

    /// Loads the first policies and begins the sandboxes.
    pub fn begin(&mut self, history: &History) -> Result<(), Stop> {
        self.step(&Step::Reload(history.policies.clone()))?;
        for (sandbox, policy) in history.sandboxes.iter().enumerate() {
            let id = self.begin_sandbox(sandbox, *policy)?;
            self.sandboxes.extend(id);
            self.model.begin(&format!("policy-{policy}"));
        }
        Ok(())
    }

    /// Does one step in both, and looks whether the kernel is as it should be.
    pub fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Answer {
                sandbox,
                name,
                addresses,
                ttl,
            } => self.answer(*sandbox, name, addresses, *ttl)?,
            Step::Wait(seconds) => {
                self.model.wait(*seconds);
                let now = self.now();
                if self.book.has_expired_rules(now) {
                    let changes = self.book.expire_rules(now);
                    self.replace(changes.map_err(|e| Stop::Disagreement(e.to_string()))?)?;
                }
            }
            Step::Reload(policies) => {
                let set = self.parse(policies)?;
                self.model.reload(policies.clone());
                let changes = self.book.load(set, self.now());
                self.replace(changes.map_err(|e| Stop::Disagreement(e.to_string()))?)?;
            }
            Step::Restart(sandbox, policy) => {
                if self.lines.contains_key(&format!("policy-{policy}")) {
                    let ended = self.book.end(self.sandboxes[*sandbox]);
                    let changes = ended.map_err(|e| Stop::Disagreement(e.to_string()))?;
                    self.apply(changes);
                    if let Some(id) = self.begin_sandbox(*sandbox, *policy)? {
                        self.sandboxes[*sandbox] = id;
                    }
                    self.model.restart(*sandbox, &format!("policy-{policy}"));
                }
            }
            Step::Sweep(keep) => {
                let boot = self.boot_now();
                let gone = self
                    .book
                    .ledger_mut()
                    .sweep(boot, Duration::from_secs(*keep));
                self.apply(gone.into_iter().map(Change::RemoveGrant).collect());
                self.model.sweep(*keep);
            }
            Step::Emergency(stopped) => {
                self.emergency = Emergency(u64::from(*stopped) * self.boot_now());
                self.model.emergency(*stopped);
            }
        }
        if self.book.image() != self.image {
            return differ(format!(
                "the book says {:#?}, its changes made {:#?}",
                self.book.image(),
                self.image
            ));
        }
        Ok(())
    }

    /// Judges a packet by the model and by the shared decision on the image, and
    /// says whether it may pass.
    pub fn compare(&self, packet: &Packet) -> Result<bool, Stop> {
        let wanted = self.model.fate(packet.sandbox, &packet.to, packet.live);
        let standing = if packet.live {
            Standing::Live
        } else {
            Standing::New
        };
        let cgroup = self.cgroups[packet.sandbox];
        let view = View::new(&self.image, self.boot_now());
        let found = self
            .emergency
            .admit()
            .and_then(|()| view.decide(cgroup, &destination(&packet.to), standing));
        let agree = match (&wanted, &found) {
            (fate, Err(Reason::Emergency)) => *fate == Fate::Denied && self.model.is_stopped(),
            // What is in no sandbox is denied before anything else is asked.
            (Fate::Denied | Fate::Resolver, Err(_)) => self.model.policy(packet.sandbox).is_none(),
            (Fate::Resolver, Ok(Verdict::Redirect)) | (Fate::Denied, Ok(Verdict::Deny(_))) => true,
            (Fate::Allowed(_), Ok(Verdict::Allow(because))) => {
                // Of several names on one place the last that was asked for is
                // told, also after its own time was over.
                let ever = self.model.fate(packet.sandbox, &packet.to, true);
                self.names_one_of(packet.sandbox, &ever, because.rule())
            }
            _ => false,
        };
        if !agree {
            return differ(format!(
                "{packet:?} at {}s: the model says {wanted:?}, the product {found:?}",
                self.model.now()
            ));
        }
        Ok(matches!(wanted, Fate::Allowed(_)))
    }

    /// What the kernel is to hold.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The model, to ask it something else.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The changes since this was asked last, for a kernel that follows.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Ends every sandbox, which leaves nothing open.
    pub fn end(&mut self) -> Result<(), Stop> {
        for id in std::mem::take(&mut self.sandboxes) {
            let ended = self.book.end(id);
            self.apply(ended.map_err(|e| Stop::Disagreement(e.to_string()))?);
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.began + SignedDuration::from_secs(self.model.now().cast_signed())
    }

    fn boot_now(&self) -> u64 {
        (self.boot + self.model.now()) * SECOND
    }

    /// Reads the policies as text; the model takes them as they are.
    fn parse(&mut self, policies: &[reference::Policy]) -> Result<PolicySet, Stop> {
        let mut lines = BTreeMap::new();
        let mut read = Vec::new();
        for policy in policies {
            let Written { yaml, lines: own } = text::write(policy, self.began);
            match Policy::parse(format!("{}.yaml", policy.name), &yaml, self.now()) {
                Ok((policy, _)) => read.push(policy),
                Err(problems) => return Err(refused(&problems, &yaml)),
            }
            lines.insert(policy.name.clone(), own);
        }
        self.lines = lines;
        PolicySet::new(read).map_err(|problems| refused(&problems, "several files"))
    }

    fn begin_sandbox(&mut self, sandbox: usize, policy: usize) -> Result<Option<SandboxId>, Stop> {
        let Some(policy) = self
            .book
            .policies()
            .get(&format!("policy-{policy}"))
            .cloned()
        else {
            return Ok(None);
        };
        let name = SandboxName::parse(&format!("sandbox-{sandbox}"));
        let name = name.map_err(|e| Stop::Disagreement(e.to_string()))?;
        let newcomer = Newcomer::new(name, self.cgroups[sandbox], 1);
        let begun = self.book.begin(newcomer, &policy, self.now());
        let (member, changes) = begun.map_err(|e| Stop::Disagreement(e.to_string()))?;
        self.apply(changes);
        Ok(Some(member.id))
    }

    /// What the resolver does with an upstream's answer, up to the map.
    fn answer(
        &mut self,
        sandbox: usize,
        name: &str,
        addresses: &[IpAddr],
        ttl: u64,
    ) -> Result<(), Stop> {
        let wanted = self.model.answer(sandbox, name, addresses, ttl);
        let dns = self.model.policy(sandbox).map(|policy| policy.dns);
        let parsed = DomainName::parse(name).map_err(|e| Stop::Disagreement(e.to_string()))?;
        let id = self.sandboxes[sandbox];
        let permit = match self.book.judge(id, &parsed, self.now()) {
            Judgement::Allow { permit, .. } => Some(permit),
            // In shadow mode it is resolved, and opens nothing.
            Judgement::Shadow { .. } | Judgement::Refuse(_) => None,
        };
        let (Some(permit), Some(dns)) = (permit, dns) else {
            return match wanted {
                None => Ok(()),
                Some(_) => differ(format!("the product refuses {name}")),
            };
        };
        let mut told: Vec<IpAddr> = Vec::new();
        for address in addresses.iter().map(IpAddr::to_canonical) {
            let passes = self.book.screen(id, &permit, address).is_ok();
            if passes && !told.contains(&address) && told.len() < dns.max_addresses {
                told.push(address);
            }
        }
        if wanted.as_ref() != Some(&told) {
            return differ(format!(
                "{name}: the model tells {wanted:?}, the product {told:?}"
            ));
        }
        let opening = Opening {
            name: &parsed,
            addresses: &told,
            ttl: Duration::from_secs(ttl),
            answer_ttl: Duration::from_secs(ttl.min(dns.cache_ttl)),
        };
        let boot = self.boot_now();
        let mut opened = Vec::new();
        let result = self.book.open(boot, id, &permit, opening, &mut opened);
        result.map_err(|e| Stop::Disagreement(e.to_string()))?;
        for changes in opened {
            let gone = changes.remove.into_iter().map(Change::RemoveGrant);
            let new = changes.write.into_iter();
            let new = new.map(|(key, grant)| Change::PutGrant(key, grant));
            self.apply(gone.chain(new).collect());
        }
        Ok(())
    }

    /// Applies changes of policy, of which no prefix may be looser than both
    /// ends. What can open in between is what one of the changes opens.
    fn replace(&mut self, changes: Vec<Change>) -> Result<(), Stop> {
        let (before, mut after) = (self.image.clone(), self.image.clone());
        for change in &changes {
            change.apply_to(&mut after);
        }
        let is_open = |image: &Image, cgroup: CgroupId, to: &egress_common::Destination| {
            let view = View::new(image, self.boot_now());
            matches!(
                view.decide(cgroup, to, Standing::New),
                Ok(Verdict::Allow(_))
            )
        };
        let tried: Vec<_> = (before.grants.keys().chain(after.grants.keys()))
            .filter_map(|key| {
                Some(egress_common::Destination {
                    ip: key.ip,
                    port: key.port,
                    protocol: Protocol::from_key(key.protocol)?,
                })
            })
            .take(8)
            .collect();
        let mut step = before.clone();
        for change in &changes {
            change.apply_to(&mut step);
            for (cgroup, to) in self
                .cgroups
                .iter()
                .flat_map(|c| tried.iter().map(move |t| (c, t)))
            {
                let ends = is_open(&before, *cgroup, to) || is_open(&after, *cgroup, to);
                if !ends && is_open(&step, *cgroup, to) {
                    return differ(format!("{change:?} opens {to} that neither end opens"));
                }
            }
        }
        self.apply(changes);
        self.modes()
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in &changes {
            change.apply_to(&mut self.image);
        }
        self.changes.extend(changes);
    }

    /// Shadow mode is a bit of the sandbox, and no part of the decision.
    fn modes(&self) -> Result<(), Stop> {
        for (number, cgroup) in self.cgroups.iter().enumerate().take(self.sandboxes.len()) {
            let wanted = self.model.policy(number).map(|policy| policy.shadow);
            let found = self.image.sandboxes.get(cgroup);
            let found = found.map(|sandbox| sandbox.mode == Mode::Shadow as u32);
            if wanted != found {
                return differ(format!(
                    "sandbox {number}: shadow is {found:?}, not {wanted:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether the rule that the product names is one of those, by its line.
    fn names_one_of(&self, sandbox: usize, fate: &Fate, named: egress_common::RuleId) -> bool {
        let Fate::Allowed(rules) = fate else {
            return false;
        };
        let lines = self
            .model
            .policy(sandbox)
            .map(|policy| &self.lines[&policy.name]);
        let Some((lines, origin)) = lines.zip(self.book.rule(named)) else {
            return false;
        };
        rules.iter().any(|rule| lines[*rule] == origin.line)
    }

    /// The packets of a history, those that the step makes interesting, and some
    /// for what the kernel holds.
    pub fn packets(&self, history: &History, step: &Step) -> Vec<Packet> {
        let mut packets = history.packets.clone();
        if let Step::Answer {
            sandbox, addresses, ..
        } = step
        {
            let base = history.packets.iter().cycle().zip(addresses);
            packets.extend(base.map(|(packet, address)| Packet {
                sandbox: *sandbox,
                to: Destination {
                    address: *address,
                    ..packet.to
                },
                live: packet.live,
            }));
        }
        let held = self.image.grants.keys().take(MOST_HELD);
        let held = held.filter_map(|key| {
            let sandbox = self.sandboxes.iter().position(|id| *id == key.sandbox)?;
            let to = Destination {
                transport: match Protocol::from_key(key.protocol)? {
                    Protocol::Tcp => Transport::Tcp,
                    Protocol::Udp => Transport::Udp,
                    Protocol::Icmp => Transport::Icmp,
                },
                address: IpAddr::from(key.ip),
                port: key.port.host(),
            };
            Some([false, true].map(|live| Packet { sandbox, to, live }))
        });
        packets.extend(held.flatten());
        packets
    }
}

/// Entries of the allow map that are tried after each step.
const MOST_HELD: usize = 16;

fn refused(problems: &[Diagnostic], yaml: &str) -> Stop {
    let mut errors = problems.iter().filter(|problem| problem.is_error());
    if errors.all(|problem| problem.code == "too-many-services") {
        return Stop::Refused;
    }
    let said: Vec<_> = problems.iter().map(|p| (p.code, &p.message)).collect();
    Stop::Disagreement(format!("the product refuses {said:?} in\n{yaml}"))
}

/// A destination in the words of the contract.
pub fn destination(to: &Destination) -> egress_common::Destination {
    egress_common::Destination {
        ip: Ip::from(to.address),
        port: Port::from_host(to.port),
        protocol: match to.transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
            Transport::Icmp => Protocol::Icmp,
        },
    }
}
