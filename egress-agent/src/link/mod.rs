//! The host's interfaces: what there is, what the host has on each, and when
//! that changes. The only user of rtnetlink.

mod error;
mod pair;
mod read;
mod translation;

pub use error::LinkError;
pub use pair::{Pair, inside};
pub use translation::Translation;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ipnet::IpNet;
use rtnetlink::{Handle, MulticastGroup};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::task::JoinHandle;

/// An interface of the agent's network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` if frames on it are no Ethernet frames.
    pub mac: Option<[u8; 6]>,
    /// The bridge or other device that it is a port of.
    pub controller: Option<u32>,
    /// The host's addresses on it.
    pub addresses: Vec<IpAddr>,
    /// Networks that the host reaches directly through it.
    pub networks: Vec<IpNet>,
}

/// A conversation with the kernel about interfaces.
pub struct Interfaces {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Interfaces {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Interfaces {
    /// Opens it, in the network namespace of the agent.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Open)?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// All interfaces, by index.
    pub async fn all(&self) -> Result<BTreeMap<u32, Interface>, LinkError> {
        read::all(&self.handle).await
    }

    /// The interface of this name and, if it is a port, its controller.
    pub async fn named(
        &self,
        name: &str,
    ) -> Result<Option<(Interface, Option<Interface>)>, LinkError> {
        read::named(&self.handle, name).await
    }
}

/// Tells when interfaces, addresses or routes change.
pub struct Changes {
    messages: BoxStream<'static, ()>,
    connection: JoinHandle<()>,
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Changes {
    /// Begins to listen.
    pub fn listen() -> Result<Self, LinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(LinkError::Open)?;
        Ok(Self {
            messages: messages.map(drop).boxed(),
            connection: tokio::spawn(connection),
        })
    }

    /// Resolves at the next change; never again if the kernel stops telling.
    pub async fn next(&mut self) {
        if self.messages.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
