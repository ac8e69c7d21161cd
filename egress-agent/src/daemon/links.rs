//! Sandboxes that are an interface: attaching, finding, looking after and
//! ending them.
//!
//! The programs are attached before anything is known about an interface, and
//! let nothing pass until it is. One lock guards what is attached; it is taken
//! before the book's.

use super::agent::Agent;
use super::book::{Member, Newcomer};
use super::control::{failed, mode_name};
use super::link_facts::{describe, name_for, spec};
use crate::api::wire::{Created, Ended, Failure, FailureKind, NewInterface};
use crate::dns::Place;
use crate::enforcer::HookChange;
use crate::link::{Interface, Interfaces, LinkError};
use crate::model::{LinkSpec, SandboxName};
use crate::policy::{Limits, Policy};
use crate::telemetry::ids;
use egress_common::{Assigned, CgroupId, Ip, Link, Port, SandboxId};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The interfaces in the agent's hands.
#[derive(Default)]
pub struct Links {
    table: Mutex<Table>,
    /// Whether a look is to come already: a thousand changes at once need one.
    pub(super) awaited: AtomicBool,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) interfaces: Option<Interfaces>,
    pub(super) attached: BTreeMap<u32, Attached>,
    /// Found by a pattern and denied, with what was told about why.
    pub(super) denied: BTreeMap<u32, String>,
}

/// One interface.
pub(super) struct Attached {
    pub(super) sandbox: SandboxId,
    pub(super) spec: Arc<LinkSpec>,
    pub(super) link: Link,
    /// Where the resolver answers on it.
    pub(super) places: Vec<(SocketAddr, Place)>,
    /// Whether it leads to the own network of a sandbox that is a cgroup.
    pub(super) is_own: bool,
}

impl Links {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    pub(super) fn interfaces(&mut self) -> Result<&Interfaces, LinkError> {
        let opened = match self.interfaces.take() {
            Some(opened) => opened,
            None => Interfaces::open()?,
        };
        Ok(self.interfaces.insert(opened))
    }
}

pub(super) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(work)
}

pub(super) fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Usage, error)
}

impl Agent {
    /// Attaches an interface that somebody named.
    pub(super) fn attach_interface(&self, wanted: &NewInterface) -> Result<Created, Failure> {
        let spec = Arc::new(spec(wanted)?);
        let mut table = self.links().lock();
        let found = wait(table.interfaces().map_err(failed)?.named(&spec.interface));
        let (interface, controller) = found.map_err(failed)?.ok_or_else(|| {
            let text = format!("there is no interface `{}` on this host", spec.interface);
            Failure::new(FailureKind::NotFound, text)
        })?;
        let name = match &wanted.name {
            Some(name) => SandboxName::parse(name).map_err(usage)?,
            None => name_for(&spec.interface, |name| self.book().by_name(name).is_some())?,
        };
        let policy = match wanted.policy.as_deref() {
            None => self
                .book()
                .policies()
                .for_interface(&spec.interface)
                .cloned(),
            Some(_) => None,
        };
        let policy = match policy {
            Some(policy) => policy,
            None => self
                .book()
                .policies()
                .select(&name, wanted.policy.as_deref())
                .map_err(|error| Failure::new(FailureKind::NotFound, error))?,
        };
        self.attach(
            &mut table,
            &interface,
            controller.as_ref(),
            spec,
            name,
            &policy,
        )
    }

    pub(super) fn attach(
        &self,
        table: &mut Table,
        interface: &Interface,
        controller: Option<&Interface>,
        spec: Arc<LinkSpec>,
        name: SandboxName,
        policy: &Policy,
    ) -> Result<Created, Failure> {
        let index = interface.index;
        if let Some(other) = table.attached.get(&index) {
            let text = format!(
                "the interface `{}` is attached already",
                other.spec.interface
            );
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        let left_out = limits_left_out(policy)?;
        let gateway = controller.unwrap_or(interface);
        let mut link = describe(&spec, interface, gateway, policy)?;
        overlaps(&table.attached, &link)?;
        let attachment = self.enforcer().attach_link(index).map_err(failed)?;
        let undo = |failure: Failure| {
            // What was found by a pattern stays denied.
            if attachment == HookChange::Attached && !spec.discovered {
                let _ = self.enforcer().detach_link(index);
            }
            let _ = self.enforcer().remove_link(index);
            failure
        };
        let places = self.open_places(&mut link, gateway, 0).map_err(&undo)?;
        self.enforcer()
            .put_link(index, &link)
            .map_err(|error| undo(failed(error)))?;
        let mut book = self.book();
        let newcomer = Newcomer {
            link: Some(Arc::clone(&spec)),
            left_out,
            ..Newcomer::new(name, CgroupId::of_interface(index), std::process::id())
        };
        let (member, changes) = book
            .begin(newcomer, policy, Timestamp::now())
            .map_err(|error| undo(error.into()))?;
        self.put_in_force(&mut book, &member, &changes)
            .map_err(undo)?;
        drop(book);
        table.denied.remove(&index);
        table.attached.insert(
            index,
            Attached {
                sandbox: member.id,
                spec: Arc::clone(&spec),
                link,
                places,
                is_own: false,
            },
        );
        let mode = mode_name(policy.mode);
        self.tell_of_sandbox(
            ids::SANDBOX_BEGAN,
            &member,
            format!(
                "began behind the interface {} under policy {} ({}), mode {mode}",
                spec.interface, policy.name, policy.digest
            ),
        );
        Ok(Created {
            name: member.name.to_string(),
            id: member.id.0,
            root: self.config().root.clone(),
            policy: policy.name.clone(),
            user: None,
            mode: mode.into(),
            relaxations: member.relaxations,
            // Of what is behind an interface only packets are in our hands.
            relaxed: member.relaxed,
            timeout_ms: None,
            disk: None,
            seccomp: policy.seccomp,
            hidden: Vec::new(),
            read_only: Vec::new(),
        })
    }

    /// Lets the resolver answer on the gateway's addresses, and says in `link` where.
    pub(super) fn open_places(
        &self,
        link: &mut Link,
        gateway: &Interface,
        port: u16,
    ) -> Result<Vec<(SocketAddr, Place)>, Failure> {
        let Some(opener) = self.places() else {
            return Ok(Vec::new());
        };
        let mut places: Vec<(SocketAddr, Place)> = Vec::new();
        let mut port = port;
        for ip in [Ip::from_v4(link.gateway4), link.gateway6] {
            if ip == Ip::UNSPECIFIED || ip.v4() == Some(0) {
                continue;
            }
            let address = |port| match IpAddr::from(ip) {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                    SocketAddrV6::new(v6, port, 0, gateway.index).into()
                }
                other => SocketAddr::new(other, port),
            };
            let opened = match opener.open(&gateway.name, address(port)) {
                // Others of this bridge have opened it, or somebody took it.
                Err(_) if port != 0 && places.is_empty() => opener.open(&gateway.name, address(0)),
                other => other,
            };
            let place = opened.map_err(failed)?;
            port = place.port();
            places.push((address(port), place));
        }
        link.resolver_port = Port::from_host(port).network();
        Ok(places)
    }

    /// Ends a sandbox and leaves its interface alone.
    pub(super) fn detach_interface(&self, member: &Member) -> Result<Ended, Failure> {
        let mut table = self.links().lock();
        let Some(index) = member.cgroup.interface() else {
            return Err(failed("the sandbox is no interface"));
        };
        let name = member
            .link
            .as_ref()
            .map_or("", |link| link.interface.as_str());
        if let Some(policy) = self.book().policies().for_interface(name) {
            let text = format!(
                "the policy `{}` applies to the interface `{name}`, so it would be attached again; \
                 change its `applies_to` first",
                policy.name
            );
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        self.forget_interface(member)?;
        self.enforcer().detach_link(index).map_err(failed)?;
        table.attached.remove(&index);
        let used = format!("the interface {name} is free");
        self.tell_of_sandbox(ids::SANDBOX_ENDED, member, format!("ended: {used}"));
        Ok(Ended {
            over: Vec::new(),
            used,
        })
    }

    /// Takes a sandbox out of book and kernel; nothing passes its interface then.
    pub(super) fn forget_interface(&self, member: &Member) -> Result<(), Failure> {
        self.note_last_reading(member);
        {
            let mut book = self.book();
            let changes = book.end(member.id)?;
            self.carry_out(&mut book, &changes).map_err(failed)?;
        }
        if let Some(index) = member.cgroup.interface() {
            self.enforcer().remove_link(index).map_err(failed)?;
        }
        self.runtime().forget(&member.name).map_err(failed)
    }

    /// Takes up what an earlier agent had attached.
    pub(super) fn adopt_interfaces(&self) {
        let members: Vec<Member> = {
            let book = self.book();
            book.members()
                .filter(|m| m.interface().is_some())
                .cloned()
                .collect()
        };
        let in_kernel = self.enforcer().links().unwrap_or_default();
        if members.is_empty() && in_kernel.is_empty() {
            return self.look_at_interfaces();
        }
        let mut table = self.links().lock();
        let known: BTreeSet<u32> = members.iter().filter_map(Member::interface).collect();
        for (index, _) in in_kernel.iter().filter(|(index, _)| !known.contains(index)) {
            if let Err(error) = self.enforcer().remove_link(*index) {
                tracing::warn!(%error, "an interface that nobody knows stays in the maps");
            }
        }
        for member in &members {
            let Some(index) = member.interface() else {
                continue;
            };
            let spec = match (&member.link, &member.network) {
                (Some(spec), _) => Arc::clone(spec),
                (None, Some(network)) => Arc::new(LinkSpec {
                    interface: network.name.clone(),
                    addresses: Vec::new(),
                    mac: None,
                    discovered: false,
                }),
                (None, None) => continue,
            };
            let before = in_kernel.iter().find(|(other, _)| *other == index);
            let Some((_, before)) = before else {
                // It was never in force; what is behind it stays denied.
                let forgotten = if member.link.is_some() {
                    self.forget_interface(member)
                } else {
                    self.take_network(&mut table, member)
                };
                if let Err(failure) = forgotten {
                    tracing::warn!(error = failure.message, "a sandbox cannot be forgotten");
                }
                continue;
            };
            table.attached.insert(
                index,
                Attached {
                    sandbox: member.id,
                    spec,
                    link: *before,
                    places: Vec::new(),
                    is_own: member.network.is_some(),
                },
            );
        }
        drop(table);
        self.look_at_interfaces();
    }

    /// Takes the programs off every interface: the off switch.
    pub(super) fn disarm_interfaces(&self) {
        let mut table = self.links().lock();
        // What has a network of its own reaches nobody without the agent.
        let own = table
            .attached
            .iter()
            .filter(|(_, attached)| attached.is_own);
        for index in own.map(|(index, _)| *index).collect::<Vec<_>>() {
            self.forget_own_interface(&mut table, index);
        }
        for index in table.attached.keys().chain(table.denied.keys()) {
            if let Err(error) = self.enforcer().detach_link(*index) {
                tracing::error!(%error, "an interface stays enforced");
            }
        }
    }
}

/// What a policy limits beside packets: nothing of it holds behind an interface,
/// which is a refusal, or in words where the policy says `best_effort`.
fn limits_left_out(policy: &Policy) -> Result<Vec<String>, Failure> {
    let none = Limits {
        best_effort: policy.limits.best_effort,
        ..Limits::default()
    };
    if policy.limits == none {
        return Ok(Vec::new());
    }
    if policy.limits.best_effort {
        return Ok(vec![
            "no limit of the policy but its rules holds behind an interface".into(),
        ]);
    }
    let text = format!(
        "policy {} limits what runs, and behind an interface only packets are in the agent's hands; \
         remove the limits, or write `best_effort: true` to go on without them",
        policy.name
    );
    Err(Failure::new(FailureKind::BadConfiguration, text))
}

/// Two sandboxes with one address could not be told apart by the resolver.
fn overlaps(attached: &BTreeMap<u32, Attached>, link: &Link) -> Result<(), Failure> {
    for other in attached.values() {
        let own = link.assigned.iter().filter(|a| **a != Assigned::NONE);
        for a in own {
            if other.link.assigned.iter().any(|b| b.meets(a)) {
                let text = format!(
                    "the addresses of `{}` overlap; no two sandboxes can have one address",
                    other.spec.interface
                );
                return Err(Failure::new(FailureKind::Conflict, text));
            }
        }
    }
    Ok(())
}
