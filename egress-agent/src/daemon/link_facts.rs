//! What is said about an interface, and what the kernel is told of it.

use super::links::usage;
use crate::api::wire::{Failure, FailureKind, NewInterface};
use crate::link::Interface;
use crate::model::{LinkSpec, MacAddress, SandboxName};
use crate::policy::Policy;
use egress_common::interface::MAX_ASSIGNED;
use egress_common::{Assigned, Ip, Link, Mac};
use ipnet::IpNet;
use std::net::IpAddr;

pub(super) fn spec(wanted: &NewInterface) -> Result<LinkSpec, Failure> {
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
pub(super) fn name_for(
    interface: &str,
    taken: impl Fn(&str) -> bool,
) -> Result<SandboxName, Failure> {
    match SandboxName::parse(interface) {
        Ok(name) if !taken(name.as_str()) => Ok(name),
        Ok(_) | Err(_) => super::control::unused_name(taken).map_err(usage),
    }
}

/// What stands in the kernel about an interface.
pub(super) fn describe(
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
