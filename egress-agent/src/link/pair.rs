//! A network of a sandbox's own: a veth pair into its network namespace, with
//! addresses and the way out.

use super::{Interfaces, LinkError};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// The sandbox's end, as it is called inside.
pub const INSIDE: &str = "eth0";

/// What a pair is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The host's end.
    pub name: String,
    /// The Ethernet addresses of the host's end and the sandbox's.
    pub macs: [[u8; 6]; 2],
    /// The host's addresses with their networks, to which the sandbox's way out leads.
    pub host: Vec<IpNet>,
    /// The sandbox's, in the same order.
    pub inside: Vec<IpNet>,
}

fn failed(what: &'static str) -> impl Fn(rtnetlink::Error) -> LinkError {
    move |error| LinkError::Request { what, error }
}

impl Interfaces {
    /// Makes a pair with one end in a network namespace. Both ends are down, and
    /// carry nothing before [`Interfaces::raise`]. Gives the host's index.
    pub async fn make_pair(
        &self,
        pair: &Pair,
        namespace: BorrowedFd<'_>,
    ) -> Result<u32, LinkError> {
        let [host, inside] = pair.macs;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(INSIDE)
            .address(inside.to_vec())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let message = LinkVeth::new(&pair.name, INSIDE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(host.to_vec())
            .build();
        let made = self.handle.link().add(message).execute().await;
        made.map_err(failed("make a pair of interfaces"))?;
        match self.named(&pair.name).await? {
            Some((interface, _)) => Ok(interface.index),
            None => Err(LinkError::Gone(pair.name.clone())),
        }
    }

    /// Gives the host's end of a pair its addresses, and brings it up.
    pub async fn raise(&self, index: u32, pair: &Pair) -> Result<(), LinkError> {
        raise(&self.handle, index, &pair.host).await
    }

    /// Takes an interface down: nothing passes it, whatever is attached there.
    pub async fn lower(&self, index: u32) -> Result<(), LinkError> {
        let down = LinkUnspec::new_with_index(index).down().build();
        let lowered = self.handle.link().set(down).execute().await;
        lowered.map_err(failed("take an interface down"))
    }

    /// Removes an interface, and with it its peer.
    pub async fn remove(&self, index: u32) -> Result<(), LinkError> {
        let removed = self.handle.link().del(index).execute().await;
        removed.map_err(failed("remove an interface"))
    }
}

async fn raise(handle: &Handle, index: u32, addresses: &[IpNet]) -> Result<(), LinkError> {
    for network in addresses {
        let (address, bits) = (network.addr(), network.prefix_len());
        let mut request = handle.address().add(index, address, bits);
        if address.is_ipv6() {
            // A link with two ends has no third that could have the address.
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(flags);
        }
        let added = request.execute().await;
        added.map_err(failed("give an interface its address"))?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let raised = handle.link().set(up).execute().await;
    raised.map_err(failed("bring an interface up"))
}

/// Brings the sandbox's side of a pair up: its loopback device, its end, and the
/// way out through the host's addresses. Then does `then` there, as sockets
/// belong to the namespace in which they are made.
pub fn inside<T: Send + 'static>(
    namespace: OwnedFd,
    pair: Option<&Pair>,
    then: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LinkError> {
    let pair = pair.cloned();
    // A thread of its own, which ends with its namespace.
    let thread = std::thread::Builder::new()
        .name("sandbox-network".into())
        .spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| LinkError::Open(error.into()))?;
            if let Some(pair) = pair {
                tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()
                    .map_err(LinkError::Open)?
                    .block_on(furnish(&pair))?;
            }
            Ok(then())
        })
        .map_err(LinkError::Open)?;
    let lost = |_| LinkError::Open(io::Error::other("the thread of the namespace is gone"));
    thread.join().map_err(lost)?
}

async fn furnish(pair: &Pair) -> Result<(), LinkError> {
    let here = Interfaces::open()?;
    const LOOPBACK: u32 = 1;
    raise(&here.handle, LOOPBACK, &[]).await?;
    let (interface, _) = here
        .named(INSIDE)
        .await?
        .ok_or_else(|| LinkError::Gone(INSIDE.into()))?;
    raise(&here.handle, interface.index, &pair.inside).await?;
    for gateway in &pair.host {
        let route = match gateway.addr() {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build(),
        };
        let added = here.handle.route().add(route).execute().await;
        added.map_err(failed("add the way out"))?;
    }
    Ok(())
}
