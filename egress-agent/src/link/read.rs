//! Reading interfaces, addresses and routes.

use super::{Interface, LinkError};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn failed(what: &'static str) -> impl Fn(rtnetlink::Error) -> LinkError {
    move |error| LinkError::Request { what, error }
}

pub(super) async fn all(handle: &Handle) -> Result<BTreeMap<u32, Interface>, LinkError> {
    let mut found = BTreeMap::new();
    let mut links = handle.link().get().execute();
    let error = failed("list the interfaces");
    while let Some(message) = links.try_next().await.map_err(&error)? {
        let interface = interface(&message);
        found.insert(interface.index, interface);
    }
    addresses(handle, None, &mut found).await?;
    routes(handle, &mut found).await?;
    Ok(found)
}

pub(super) async fn named(
    handle: &Handle,
    name: &str,
) -> Result<Option<(Interface, Option<Interface>)>, LinkError> {
    let error = failed("look for the interface");
    let mut links = handle.link().get().match_name(name).execute();
    let message = match links.try_next().await {
        Ok(Some(message)) => message,
        Ok(None) => return Ok(None),
        Err(rtnetlink::Error::NetlinkError(answer)) if -answer.raw_code() == libc::ENODEV => {
            return Ok(None);
        }
        Err(other) => return Err(error(other)),
    };
    let mut found = BTreeMap::new();
    let interface = interface(&message);
    let (index, controller) = (interface.index, interface.controller);
    found.insert(index, interface);
    if let Some(index) = controller {
        let mut links = handle.link().get().match_index(index).execute();
        if let Some(message) = links.try_next().await.map_err(&error)? {
            found.insert(index, self::interface(&message));
        }
    }
    for index in found.keys().copied().collect::<Vec<_>>() {
        addresses(handle, Some(index), &mut found).await?;
    }
    routes(handle, &mut found).await?;
    let controller = controller.and_then(|index| found.remove(&index));
    Ok(found
        .remove(&index)
        .map(|interface| (interface, controller)))
}

fn interface(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        mac: None,
        controller: None,
        addresses: Vec::new(),
        networks: Vec::new(),
    };
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) if is_ethernet => {
                interface.mac = bytes.as_slice().try_into().ok();
            }
            LinkAttribute::Controller(index) => interface.controller = Some(*index),
            _ => {}
        }
    }
    interface
}

async fn addresses(
    handle: &Handle,
    only: Option<u32>,
    found: &mut BTreeMap<u32, Interface>,
) -> Result<(), LinkError> {
    let mut request = handle.address().get();
    if let Some(index) = only {
        request = request.set_link_index_filter(index);
    }
    let mut messages = request.execute();
    let error = failed("list the addresses");
    while let Some(message) = messages.try_next().await.map_err(&error)? {
        if only.is_some_and(|only| only != message.header.index) {
            continue;
        }
        let Some(interface) = found.get_mut(&message.header.index) else {
            continue;
        };
        // The local end where the link has two ends, else the address.
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(local) => address = Some(*local),
                AddressAttribute::Address(other) => address = address.or(Some(*other)),
                _ => {}
            }
        }
        interface.addresses.extend(address);
    }
    Ok(())
}

async fn routes(handle: &Handle, found: &mut BTreeMap<u32, Interface>) -> Result<(), LinkError> {
    let error = failed("list the routes");
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for wanted in [v4, v6] {
        let mut messages = handle.route().get(wanted).execute();
        while let Some(message) = messages.try_next().await.map_err(&error)? {
            if let Some((index, network)) = direct(&message)
                && let Some(interface) = found.get_mut(&index)
            {
                interface.networks.push(network);
            }
        }
    }
    Ok(())
}

/// The interface and the network of a route without a gateway, of the main table.
fn direct(message: &RouteMessage) -> Option<(u32, IpNet)> {
    if message.header.kind != RouteType::Unicast
        || message.header.table != RouteHeader::RT_TABLE_MAIN
        || message.header.destination_prefix_length == 0
    {
        return None;
    }
    let (mut index, mut to) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => return None,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => to = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => to = Some(IpAddr::V6(*v6)),
            _ => {}
        }
    }
    let network = IpNet::new(to?, message.header.destination_prefix_length).ok()?;
    Some((index?, network))
}
