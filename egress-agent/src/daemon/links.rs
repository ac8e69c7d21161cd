//! Sandboxes that are an interface: attaching, finding, looking after and
//! ending them.
//!
//! The programs are attached before anything is known about an interface, and
//! let nothing pass until it is. One lock guards what is attached; it is taken
//! before the book's.

use super::agent::Agent;
use super::book::{Member, Newcomer};
use super::control::{failed, mode_name};
use crate::api::wire::{Created, Failure, FailureKind, NewInterface};
use crate::dns::Place;
use crate::enforcer::HookChange;
use crate::link::{Interface, Interfaces, LinkError};
use crate::model::{LinkSpec, MacAddress, SandboxName};
use crate::policy::Policy;
use egress_common::interface::MAX_ASSIGNED;
use egress_common::{Assigned, CgroupId, Ip, Link, Mac, Port, SandboxId};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The interfaces in the agent's hands.
#[derive(Default)]
pub struct Links {
    table: Mutex<Table>,
    /// Whether a look is to come already: a thousand changes at once need one.
    awaited: AtomicBool,
}

#[derive(Default)]
pub(super) struct Table {
    interfaces: Option<Interfaces>,
    attached: BTreeMap<u32, Attached>,
    /// Found by a pattern and denied, with what was told about why.
    denied: BTreeMap<u32, String>,
}

/// One interface.
struct Attached {
    sandbox: SandboxId,
    spec: Arc<LinkSpec>,
    link: Link,
    /// Where the resolver answers on it.
    places: Vec<(SocketAddr, Place)>,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn interfaces(&mut self) -> Result<&Interfaces, LinkError> {
        let opened = match self.interfaces.take() {
            Some(opened) => opened,
            None => Interfaces::open()?,
        };
        Ok(self.interfaces.insert(opened))
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(work)
}

fn usage(error: impl std::fmt::Display) -> Failure {
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

    fn attach(
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
            ..Newcomer::new(name, CgroupId::of_interface(index), std::process::id())
        };
        let (member, changes) = book
            .begin(newcomer, policy, Timestamp::now())
            .map_err(|error| undo(error.into()))?;
        let written = self
            .runtime()
            .remember(&member)
            .map_err(failed)
            .and_then(|()| self.carry_out(&mut book, &changes).map_err(failed));
        if let Err(failure) = written {
            if let Ok(changes) = book.end(member.id) {
                let _ = self.carry_out(&mut book, &changes);
            }
            let _ = self.runtime().forget(&member.name);
            return Err(undo(failure));
        }
        drop(book);
        table.denied.remove(&index);
        table.attached.insert(
            index,
            Attached {
                sandbox: member.id,
                spec: Arc::clone(&spec),
                link,
                places,
            },
        );
        let mode = mode_name(policy.mode);
        self.tell_of_sandbox(
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
        })
    }

    /// Lets the resolver answer on the gateway's addresses, and says in `link` where.
    fn open_places(
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
    pub(super) fn detach_interface(&self, member: &Member) -> Result<(), Failure> {
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
        self.tell_of_sandbox(member, format!("ended; the interface {name} is free"));
        Ok(())
    }

    /// Takes a sandbox out of book and kernel; nothing passes its interface then.
    fn forget_interface(&self, member: &Member) -> Result<(), Failure> {
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
                .filter(|m| m.link.is_some())
                .cloned()
                .collect()
        };
        let in_kernel = self.enforcer().links().unwrap_or_default();
        if members.is_empty() && in_kernel.is_empty() {
            return self.look_at_interfaces();
        }
        let mut table = self.links().lock();
        let known: BTreeSet<u32> = members
            .iter()
            .filter_map(|m| m.cgroup.interface())
            .collect();
        for (index, _) in in_kernel.iter().filter(|(index, _)| !known.contains(index)) {
            if let Err(error) = self.enforcer().remove_link(*index) {
                tracing::warn!(%error, "an interface that nobody knows stays in the maps");
            }
        }
        for member in &members {
            let (Some(index), Some(spec)) = (member.cgroup.interface(), member.link.clone()) else {
                continue;
            };
            let before = in_kernel.iter().find(|(other, _)| *other == index);
            let Some((_, before)) = before else {
                // It was never in force; what is behind it stays denied.
                if let Err(failure) = self.forget_interface(member) {
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
                },
            );
        }
        drop(table);
        self.look_at_interfaces();
    }

    /// Looks soon, in a thread that may wait.
    pub(super) fn look_soon(self: &Arc<Self>) {
        if self.links().awaited.swap(true, Ordering::AcqRel) {
            return;
        }
        let agent = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            agent.links().awaited.store(false, Ordering::Release);
            agent.look_at_interfaces();
        });
    }

    /// Looks whether everything is as it should be: programs in force, links
    /// as the host has them, new interfaces found, gone ones ended, ended
    /// connections out of the table.
    pub(super) fn look_at_interfaces(&self) {
        if *self.disarmed() {
            return;
        }
        let mut table = self.links().lock();
        let patterns = {
            let book = self.book();
            book.policies()
                .iter()
                .any(|policy| !policy.interfaces.is_empty())
        };
        if table.attached.is_empty() && table.denied.is_empty() && !patterns {
            return;
        }
        let all = match table.interfaces().map(|open| wait(open.all())) {
            Ok(Ok(all)) => all,
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "interfaces cannot be looked after");
                table.interfaces = None;
                return;
            }
        };
        self.end_gone(&mut table, &all);
        self.refresh(&mut table, &all);
        self.discover(&mut table, &all);
        drop(table);
        self.sweep_connections();
    }

    fn end_gone(&self, table: &mut Table, all: &BTreeMap<u32, Interface>) {
        table.denied.retain(|index, _| all.contains_key(index));
        let is_gone = |index: &u32, attached: &Attached| {
            all.get(index)
                .is_none_or(|interface| interface.name != attached.spec.interface)
        };
        let gone: Vec<u32> = table
            .attached
            .iter()
            .filter(|(index, attached)| is_gone(index, attached))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            let Some(attached) = table.attached.get(&index) else {
                continue;
            };
            let member = self.book().member(attached.sandbox).cloned();
            let Some(member) = member else { continue };
            match self.forget_interface(&member) {
                Ok(()) => {
                    let name = attached.spec.interface.clone();
                    table.attached.remove(&index);
                    self.tell_of_sandbox(&member, format!("ended: the interface {name} is gone"));
                }
                Err(failure) => {
                    tracing::warn!(error = failure.message, "a sandbox cannot be ended yet");
                }
            }
        }
    }

    /// Puts back what is missing, and follows what the host changed.
    fn refresh(&self, table: &mut Table, all: &BTreeMap<u32, Interface>) {
        for (index, attached) in &mut table.attached {
            let Some(interface) = all.get(index) else {
                continue;
            };
            let gateway = interface.controller.and_then(|index| all.get(&index));
            let gateway = gateway.unwrap_or(interface);
            match self.enforcer().inspect_link(*index) {
                Ok(None) => continue,
                Ok(Some(missing)) if missing.is_empty() => {}
                Ok(Some(missing)) => match self.enforcer().attach_link(*index) {
                    Ok(HookChange::Replaced) => {}
                    Ok(HookChange::Kept | HookChange::Attached) => self.tell(format!(
                        "enforcement disturbed: somebody detached {} at the interface {}; put back",
                        missing.join(", "),
                        interface.name
                    )),
                    Err(error) => tracing::error!(%error, "enforcement disturbed"),
                },
                Err(error) => tracing::error!(%error, "an interface cannot be looked at"),
            }
            let policy = {
                let book = self.book();
                let compiled = book.policy_of(attached.sandbox);
                compiled.map(|compiled| Arc::clone(&compiled.policy))
            };
            let Some(policy) = policy else { continue };
            let mut link = match describe(&attached.spec, interface, gateway, &policy) {
                Ok(link) => link,
                Err(failure) => {
                    tracing::debug!(error = failure.message, "the link is not usable now");
                    continue;
                }
            };
            let same_places = link.gateway4 == attached.link.gateway4
                && link.gateway6 == attached.link.gateway6
                && !attached.places.is_empty();
            link.resolver_port = attached.link.resolver_port;
            link.swept = attached.link.swept;
            if !same_places {
                let port = Port::from_network(attached.link.resolver_port).host();
                attached.places.clear();
                match self.open_places(&mut link, gateway, port) {
                    Ok(places) => attached.places = places,
                    Err(failure) => {
                        tracing::error!(error = failure.message, "names do not resolve there");
                        link.resolver_port = 0;
                    }
                }
            }
            if link == attached.link {
                continue;
            }
            match self.enforcer().put_link(*index, &link) {
                Ok(()) => attached.link = link,
                Err(error) => tracing::error!(%error, "an interface's change is not in force"),
            }
        }
    }

    /// Finds interfaces that a policy applies to: denied at once, and a sandbox
    /// as soon as the host has said what is behind them.
    fn discover(&self, table: &mut Table, all: &BTreeMap<u32, Interface>) {
        for interface in all.values() {
            if table.attached.contains_key(&interface.index) || interface.mac.is_none() {
                continue;
            }
            let policy = self
                .book()
                .policies()
                .for_interface(&interface.name)
                .cloned();
            let Some(policy) = policy else {
                // No policy is for it any more.
                if table.denied.remove(&interface.index).is_some()
                    && let Err(error) = self.enforcer().detach_link(interface.index)
                {
                    tracing::error!(%error, "an interface stays denied");
                }
                continue;
            };
            if let Err(error) = self.enforcer().attach_link(interface.index) {
                tracing::error!(%error, interface = interface.name, "it cannot be governed");
                continue;
            }
            let spec = Arc::new(LinkSpec {
                interface: interface.name.clone(),
                addresses: Vec::new(),
                mac: None,
                discovered: true,
            });
            let controller = interface.controller.and_then(|index| all.get(&index));
            let name = name_for(&spec.interface, |name| self.book().by_name(name).is_some());
            let begun = name
                .and_then(|name| self.attach(table, interface, controller, spec, name, &policy));
            if let Err(failure) = begun
                && table.denied.get(&interface.index) != Some(&failure.message)
            {
                self.tell(format!(
                    "the interface {} is denied until it can have policy {}: {}",
                    interface.name, policy.name, failure.message
                ));
                table.denied.insert(interface.index, failure.message);
            }
        }
    }

    /// Takes the programs off every interface: the off switch.
    pub(super) fn disarm_interfaces(&self) {
        let table = self.links().lock();
        for index in table.attached.keys().chain(table.denied.keys()) {
            if let Err(error) = self.enforcer().detach_link(*index) {
                tracing::error!(%error, "an interface stays enforced");
            }
        }
    }
}

fn spec(wanted: &NewInterface) -> Result<LinkSpec, Failure> {
    let addresses = wanted.addresses.iter().map(|text| {
        let network = text.parse::<IpNet>();
        let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| usage(format!("`{text}` is no address and no network")))
    });
    let mac = wanted.mac.as_deref().map(str::parse::<MacAddress>);
    Ok(LinkSpec {
        interface: wanted.interface.clone(),
        addresses: addresses.collect::<Result<_, _>>()?,
        mac: mac.transpose().map_err(usage)?,
        discovered: false,
    })
}

/// The interface's name, which can hold more than a sandbox's.
fn name_for(interface: &str, taken: impl Fn(&str) -> bool) -> Result<SandboxName, Failure> {
    match SandboxName::parse(interface) {
        Ok(name) if !taken(name.as_str()) => Ok(name),
        Ok(_) | Err(_) => super::control::unused_name(taken).map_err(usage),
    }
}

/// What stands in the kernel about an interface.
fn describe(
    spec: &LinkSpec,
    interface: &Interface,
    gateway: &Interface,
    policy: &Policy,
) -> Result<Link, Failure> {
    let refuse = |text: String| Failure::new(FailureKind::Failed, text);
    let name = &interface.name;
    let Some(gateway_mac) = gateway.mac.filter(|_| interface.mac.is_some()) else {
        return Err(refuse(format!("`{name}` carries no Ethernet frames")));
    };
    let is_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let networks: Vec<IpNet> = if spec.addresses.is_empty() {
        if interface.index != gateway.index {
            return Err(refuse(format!(
                "`{name}` is a port of `{}`, whose network is not one sandbox's; \
                 say with `--addresses` what it may send from",
                gateway.name
            )));
        }
        let direct = interface.networks.iter();
        direct
            .filter(|net| !is_local(&net.addr()))
            .copied()
            .collect()
    } else {
        spec.addresses.clone()
    };
    if networks.is_empty() {
        return Err(refuse(format!(
            "the host has no network on `{name}`; give it an address or a route, or say with \
             `--addresses` what the sandbox may send from"
        )));
    }
    if networks.len() > MAX_ASSIGNED {
        return Err(refuse(format!(
            "`{name}` has {} networks; a sandbox can have {MAX_ASSIGNED}, say with `--addresses` which",
            networks.len()
        )));
    }
    let mut assigned = [Assigned::NONE; MAX_ASSIGNED];
    for (slot, network) in assigned.iter_mut().zip(&networks) {
        *slot = network_of(network);
    }
    let find =
        |wanted: &dyn Fn(&IpAddr) -> bool| gateway.addresses.iter().copied().find(|a| wanted(a));
    // The address out of the sandbox's own network before any other.
    let of_family = |v4: bool| {
        let fits = |ip: &IpAddr| ip.is_ipv4() == v4 && !is_local(ip);
        find(&|ip| fits(ip) && networks.iter().any(|net| net.contains(ip))).or_else(|| find(&fits))
    };
    let local6 = find(&is_local);
    let gateway4 = match of_family(true) {
        Some(IpAddr::V4(v4)) => u32::from_ne_bytes(v4.octets()),
        Some(IpAddr::V6(_)) | None => 0,
    };
    let gateway6 = of_family(false)
        .or(local6)
        .map_or(Ip::UNSPECIFIED, Ip::from);
    for (family, has, lacks) in [
        (
            "IPv4",
            networks.iter().any(|n| n.addr().is_ipv4()),
            gateway4 == 0,
        ),
        (
            "IPv6",
            networks.iter().any(|n| n.addr().is_ipv6()),
            gateway6 == Ip::UNSPECIFIED,
        ),
    ] {
        if has && lacks {
            return Err(refuse(format!(
                "the host has no {family} address on `{}`, to which the sandbox's DNS could be brought",
                gateway.name
            )));
        }
    }
    let settings = policy.link;
    let permit = |is_on: bool, bit: u32| if is_on { bit } else { 0 };
    Ok(Link {
        assigned,
        gateway6,
        local6: local6.map_or(Ip::UNSPECIFIED, Ip::from),
        swept: 0,
        gateway4,
        permits: permit(settings.dhcp, Link::DHCP)
            | permit(settings.router_advertisements, Link::ROUTER_ADVERTISEMENTS),
        mac: spec.mac.map_or(Mac::NONE, |mac| Mac::from_bytes(mac.0)),
        gateway_mac: Mac::from_bytes(gateway_mac),
        resolver_port: 0,
        reserved: 0,
    })
}

/// A network as the kernel compares with it: IPv4 in its mapped form.
fn network_of(network: &IpNet) -> Assigned {
    let before = if network.addr().is_ipv4() { 96 } else { 0 };
    Assigned::network(
        Ip::from(network.addr()),
        before + u32::from(network.prefix_len()),
    )
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
