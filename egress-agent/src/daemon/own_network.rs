//! A network namespace of a sandbox's own, behind a veth: made by its launcher,
//! furnished here, judged at its interface beside the gate of its cgroup.
//!
//! Both gates ask with the sandbox's own id, so one grant opens both. Names are
//! resolved inside, where the programs of the cgroup bring them, on sockets that
//! only this sandbox can reach; DNS across the interface is refused.

use super::agent::Agent;
use super::book::{Member, OwnNetwork};
use super::control::failed;
use super::links::{Attached, Table, wait};
use crate::api::wire::{Failure, FailureKind, Network, NewNetwork};
use crate::dns::{BindError, Place};
use crate::link::{self, Pair, Translation};
use crate::model::{LinkSpec, MacAddress};
use ipnet::IpNet;
use rustix::process::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

/// The host's ends are called this and a number.
const PREFIX: &str = "egress";
/// Networks that there are: of two bits in an IPv4 network of 16.
const NETWORKS: u16 = 1 << 14;

impl Agent {
    /// Wires the network namespace of a process of a sandbox to the host. When it
    /// returns, what the policy allows passes, and nothing else ever did.
    pub fn wire_network(&self, name: &str, wanted: &NewNetwork) -> Result<Network, Failure> {
        let member = self.book().by_name(name).cloned();
        let member = member.ok_or_else(|| {
            Failure::new(FailureKind::NotFound, format!("no sandbox `{name}` runs"))
        })?;
        if !member.own_network || member.network.is_some() {
            let text = format!("`{name}` was not made to get a network of its own, or has one");
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        self.can_forward()?;
        let namespace = self.namespace_of(&member, wanted.process)?;
        let mut table = self.links().lock();
        let (pair, index) = self.make_pair(&mut table, &namespace)?;
        let given = self.attach_own(&mut table, &member, &pair, index, wanted.process, namespace);
        if let Err(failure) = given {
            self.forget_own_interface(&mut table, index);
            return Err(failure);
        }
        Ok(Network {
            interface: pair.name,
            addresses: pair.inside.iter().map(ToString::to_string).collect(),
        })
    }

    /// The network namespace of a process that is surely the sandbox's, and surely
    /// in none of the host's.
    fn namespace_of(&self, member: &Member, process: u32) -> Result<OwnedFd, Failure> {
        let open = || File::open(format!("/proc/{process}/ns/net")).map_err(failed);
        let namespace = open()?;
        let processes = self.cgroup_of(member).and_then(|cgroup| cgroup.processes());
        // Looked at after the namespace was opened: a number that was given to
        // another process since is not among them.
        let is_it = |pid: &Pid| pid.as_raw_nonzero().get().unsigned_abs() == process;
        if !processes.map_err(failed)?.iter().any(is_it) {
            let text = format!("process {process} is none of `{}`", member.name);
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        let own = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let id = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).map_err(failed);
        if id(&own)? == id(&namespace)? {
            let text = "the process has the host's network namespace, and not one of its own";
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        Ok(namespace.into())
    }

    /// The host has to be a router already: turning it into one is not ours.
    fn can_forward(&self) -> Result<(), Failure> {
        for network in &self.config().sandbox_networks {
            let (file, variable) = match network {
                IpNet::V4(_) => ("ipv4/ip_forward", "net.ipv4.ip_forward"),
                IpNet::V6(_) => ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
            };
            let path = format!("/proc/sys/net/{file}");
            let is_on = std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1");
            if !is_on {
                let text = format!(
                    "the host does not forward packets, so a sandbox with a network of its own would \
                     reach nobody; set `{variable} = 1`, or take {network} out of `sandbox_networks`"
                );
                return Err(Failure::new(FailureKind::Conflict, text));
            }
        }
        Ok(())
    }

    fn make_pair(&self, table: &mut Table, namespace: &OwnedFd) -> Result<(Pair, u32), Failure> {
        let networks = &self.config().sandbox_networks;
        let interfaces = table.interfaces().map_err(failed)?;
        let all = wait(interfaces.all()).map_err(failed)?;
        let ours = |name: &str| {
            name.strip_prefix(PREFIX)
                .and_then(|n| n.parse::<u16>().ok())
        };
        for interface in all.values().filter(|i| ours(&i.name).is_none()) {
            for (network, own) in networks
                .iter()
                .flat_map(|own| interface.networks.iter().map(move |n| (n, own)))
            {
                if own.contains(network) || network.contains(own) {
                    let text = format!(
                        "the host has {network} on `{}`, which overlaps {own} of `sandbox_networks`; \
                         set another one",
                        interface.name
                    );
                    return Err(Failure::new(FailureKind::Conflict, text));
                }
            }
        }
        self.translation().put().map_err(failed)?;
        let taken: BTreeSet<u16> = all.values().filter_map(|i| ours(&i.name)).collect();
        let number = (0..NETWORKS).find(|number| !taken.contains(number));
        let number = number.ok_or_else(|| {
            Failure::new(
                FailureKind::Conflict,
                "every network for sandboxes is in use",
            )
        })?;
        let pair = pair(number, networks);
        let made = wait(interfaces.make_pair(&pair, namespace.as_fd()));
        Ok((pair, made.map_err(failed)?))
    }

    fn attach_own(
        &self,
        table: &mut Table,
        member: &Member,
        pair: &Pair,
        index: u32,
        process: u32,
        namespace: OwnedFd,
    ) -> Result<(), Failure> {
        self.enforcer().attach_link(index).map_err(failed)?;
        let interfaces = table.interfaces().map_err(failed)?;
        wait(interfaces.raise(index, pair)).map_err(failed)?;
        let found = wait(interfaces.named(&pair.name)).map_err(failed)?;
        let (interface, _) = found.ok_or_else(|| failed("the interface is gone again"))?;
        let policy = {
            let book = self.book();
            let compiled = book.policy_of(member.id);
            compiled.map(|compiled| Arc::clone(&compiled.policy))
        };
        let policy = policy.ok_or_else(|| failed("the sandbox has no policy any more"))?;
        let spec = Arc::new(LinkSpec {
            interface: pair.name.clone(),
            addresses: pair
                .inside
                .iter()
                .map(|net| IpNet::from(net.addr()))
                .collect(),
            mac: Some(MacAddress(pair.macs[1])),
            discovered: false,
        });
        // Without a place at the gateway, so that no DNS crosses the interface.
        let link = super::link_facts::describe(&spec, &interface, &interface, &policy)?;
        let places = self.open_inside(member, namespace, Some(pair))?;
        self.enforcer().put_link(index, &link).map_err(failed)?;
        let network = OwnNetwork {
            interface: index,
            name: pair.name.clone(),
            process,
        };
        let mut book = self.book();
        let (member, changes) = book.give_network(member.id, network)?;
        if let Err(failure) = self.remember_and_carry_out(&mut book, &member, &changes) {
            if let Ok((_, changes)) = book.take_network(member.id) {
                let _ = self.carry_out(&mut book, &changes);
            }
            return Err(failure);
        }
        drop(book);
        let attached = Attached {
            sandbox: member.id,
            spec,
            link,
            places,
            is_own: true,
        };
        table.attached.insert(index, attached);
        Ok(())
    }

    /// Lets the resolver answer inside, where the cgroup's programs bring queries.
    pub(super) fn open_inside(
        &self,
        member: &Member,
        namespace: OwnedFd,
        pair: Option<&Pair>,
    ) -> Result<Vec<(SocketAddr, Place)>, Failure> {
        let mut wanted = Vec::new();
        if let Some(ports) = self.resolver_ports() {
            let loopback: [(IpAddr, u16); 2] = [
                (Ipv4Addr::LOCALHOST.into(), ports.v4),
                (Ipv6Addr::LOCALHOST.into(), ports.v6),
            ];
            let used = loopback.into_iter().filter(|(_, port)| *port != 0);
            wanted.extend(used.map(|(ip, port)| SocketAddr::new(ip, port)));
        }
        let opener = self.places().cloned();
        let (runtime, sandbox) = (tokio::runtime::Handle::current(), member.id);
        let opened = link::inside(namespace, pair, move || {
            let _entered = runtime.enter();
            let Some(opener) = opener else {
                return Ok(Vec::new());
            };
            let open = |address| Ok((address, opener.open_for(sandbox, address)?));
            let opened: Result<Vec<_>, BindError> = wanted.into_iter().map(open).collect();
            opened
        });
        opened.map_err(failed)?.map_err(failed)
    }

    /// Opens the places of a sandbox whose network an earlier agent made.
    pub(super) fn reopen_inside(
        &self,
        member: &Member,
    ) -> Result<Vec<(SocketAddr, Place)>, Failure> {
        let Some(network) = &member.network else {
            return Ok(Vec::new());
        };
        let namespace = self.namespace_of(member, network.process)?;
        self.open_inside(member, namespace, None)
    }

    /// Takes the network of a sandbox away, when either has ended.
    pub(super) fn take_network(&self, table: &mut Table, member: &Member) -> Result<(), Failure> {
        let Some(network) = &member.network else {
            return Ok(());
        };
        let mut book = self.book();
        if let Ok((member, changes)) = book.take_network(member.id) {
            self.remember_and_carry_out(&mut book, &member, &changes)?;
        }
        drop(book);
        self.forget_own_interface(table, network.interface);
        Ok(())
    }

    /// Removes the host's end of a pair, and what stands about it.
    pub(super) fn forget_own_interface(&self, table: &mut Table, index: u32) {
        table.attached.remove(&index);
        if let Err(error) = self.enforcer().remove_link(index) {
            tracing::warn!(%error, "an interface that is gone stays in the maps");
        }
        // With the namespace it may be gone already.
        if let Ok(interfaces) = table.interfaces() {
            let _ = wait(interfaces.remove(index));
        }
        if table.attached.values().any(|attached| attached.is_own) {
            return;
        }
        if let Err(error) = self.translation().remove() {
            tracing::warn!(%error, "a table of nftables stays, which is for nobody now");
        }
    }

    fn translation(&self) -> Translation {
        let config = self.config();
        Translation::new(&config.root, PREFIX, &config.sandbox_networks)
    }
}

/// The pair of a number: the host has the first address of its network, and the
/// sandbox the second.
fn pair(number: u16, networks: &[IpNet]) -> Pair {
    let [high, low] = number.to_be_bytes();
    // Locally administered.
    let mac = |end| [2, 0x65, 0x67, high, low, end];
    let end = |net: &IpNet, end: u8| match net {
        IpNet::V4(v4) => {
            let first = u32::from(v4.network()) + u32::from(number) * 4;
            let ip = Ipv4Addr::from(first + u32::from(end));
            IpNet::new_assert(ip.into(), 30)
        }
        IpNet::V6(v6) => {
            let first = u128::from(v6.network()) + (u128::from(number) << 64);
            let ip = Ipv6Addr::from(first + u128::from(end));
            IpNet::new_assert(ip.into(), 64)
        }
    };
    Pair {
        name: format!("{PREFIX}{number}"),
        macs: [mac(1), mac(2)],
        host: networks.iter().map(|net| end(net, 1)).collect(),
        inside: networks.iter().map(|net| end(net, 2)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_names_and_addresses_of_their_own() {
        let networks = ["100.96.0.0/16", "fd65:6772:6573::/48"];
        let networks = networks.map(|net| net.parse().expect("a network"));
        let mut seen = BTreeSet::new();
        for number in [0, 1, 63, 64, NETWORKS - 1] {
            let pair = pair(number, &networks);
            // What a Linux interface may be called.
            assert!(pair.name.len() < 16, "{}", pair.name);
            for (host, inside) in pair.host.iter().zip(&pair.inside) {
                assert_eq!(host.trunc(), inside.trunc(), "one network");
                assert_ne!(host.addr(), inside.addr());
                assert!(networks.iter().any(|net| net.contains(host)), "{host}");
                assert!(seen.insert(host.trunc()), "{host} is somebody else's");
            }
            assert_ne!(pair.macs[0], pair.macs[1]);
        }
    }

    #[test]
    fn the_second_pair_has_the_addresses_that_the_documentation_says() {
        let pair = pair(1, &["100.96.0.0/16".parse().expect("a network")]);
        assert_eq!(pair.host[0].to_string(), "100.96.0.5/30");
        assert_eq!(pair.inside[0].to_string(), "100.96.0.6/30");
    }
}
