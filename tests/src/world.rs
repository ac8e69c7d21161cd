//! A small internet: a near namespace where sandboxes run, and a far one in
//! which everything they could reach listens, with the judge beside it.

use crate::address::{
    FAR_V4, FAR_V6, NEAR_V4, NEAR_V6, OTHER_RESOLVER_V4, OTHER_RESOLVER_V6, PORTS, SERVERS,
    UPSTREAM_V4, UPSTREAM_V6,
};
use crate::dns::DnsServer;
use crate::packet::{Mac, Packet};
use crate::servers::{Threads, echo};
use crate::{Ephemeral, Namespace, Sniffer, probe, product};
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The hardware address of the far end of the link.
const FAR_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// The discard port, on which the harness itself speaks to the sniffer.
const MARKER_PORT: u16 = 9;

/// Two connected namespaces with servers, resolvers and a sniffer.
///
/// The near side's default route leads to the far side, so that a packet to
/// any address at all would be seen there.
#[derive(Debug)]
pub struct World {
    /// Where sandboxes run; also a place outside of every sandbox.
    pub near: Namespace,
    /// Where everybody else is.
    pub far: Namespace,
    /// What arrived in the far namespace.
    pub sniffer: Sniffer,
    /// The agent's upstream.
    pub dns: DnsServer,
    /// A resolver that no sandbox may reach.
    pub other_dns: DnsServer,
    /// Ends the servers.
    _echo: Threads,
    directory: tempfile::TempDir,
    directories: AtomicU32,
    markers: AtomicU32,
}

impl World {
    /// Makes a world, or says why `test` is skipped.
    ///
    /// # Panics
    ///
    /// If it cannot be made although the privileges are there.
    pub fn or_skip(test: &str) -> Option<Self> {
        let world = crate::privilege::granted(test).then(Self::new)?;
        Some(world.expect("root can make network namespaces"))
    }

    /// Makes a world; needs root.
    pub fn new() -> io::Result<Self> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        connect(&near, &far)?;
        let sniffer = Sniffer::start(&far, FAR_MAC)?;
        let upstream = [UPSTREAM_V4.into(), UPSTREAM_V6.into()];
        let dns = DnsServer::start(&far, &upstream)?;
        let others = [OTHER_RESOLVER_V4.into(), OTHER_RESOLVER_V6.into()];
        let other_dns = DnsServer::start(&far, &others)?;
        let echo = echo(&far, &SERVERS, &PORTS)?;
        // The home directory of whoever builds is often closed to the user
        // that a sandbox runs as, and /tmp may be hidden from it.
        let directory = tempfile::Builder::new()
            .prefix("egress-tests-")
            .tempdir_in("/var/tmp")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        fs::copy(
            product::binary(probe::PROGRAM),
            directory.path().join(probe::PROGRAM),
        )?;
        Ok(Self {
            near,
            far,
            sniffer,
            dns,
            other_dns,
            _echo: echo,
            directory,
            directories: AtomicU32::new(0),
            markers: AtomicU32::new(0),
        })
    }

    /// Prepares sandboxes under this policy.
    pub fn sandbox(&self, policy: &str) -> Ephemeral<'_> {
        Ephemeral::new(self, policy)
    }

    /// The probe, where every user can execute it.
    pub fn probe(&self) -> PathBuf {
        self.directory.path().join(probe::PROGRAM)
    }

    /// A directory that every user can enter, removed with the world.
    pub fn fresh_directory(&self) -> PathBuf {
        let number = self.directories.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(number.to_string());
        fs::create_dir(&path).expect("the world's directory is writable");
        path
    }

    /// The directory that holds everything of this world.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until the sniffer has seen everything that was sent so far, by
    /// sending something itself from outside of every sandbox. That also proves
    /// each time that the judge is awake.
    ///
    /// # Panics
    ///
    /// If the judge does not see it.
    pub fn settle(&self) {
        let number = self.markers.fetch_add(1, Ordering::Relaxed);
        let marker = format!("egress-tests marker {number};");
        let sent = self.near.run(|| {
            let socket = UdpSocket::bind((NEAR_V4, 0))?;
            socket.send_to(marker.as_bytes(), (FAR_V4, MARKER_PORT))
        });
        sent.expect("the near side can send");
        let seen = self
            .sniffer
            .awaits(|packet| packet.carries(marker.as_bytes()));
        assert!(
            seen,
            "the sniffer does not see what is sent; it cannot judge"
        );
    }

    /// Everything that left the near side for anywhere but `allowed`, the
    /// agent's upstream, and what the link itself needs.
    pub fn escaped(&self, allowed: &[SocketAddr]) -> Vec<Packet> {
        self.settle();
        let upstream = [IpAddr::from(UPSTREAM_V4), IpAddr::from(UPSTREAM_V6)];
        let own = [(FAR_V4.into(), MARKER_PORT)]
            .into_iter()
            .chain(upstream.map(|address| (address, 53)))
            .map(SocketAddr::from);
        let expected: Vec<SocketAddr> = own.chain(allowed.iter().copied()).collect();
        let mut packets = self.sniffer.packets();
        packets.retain(|packet| {
            !packet.belongs_to_the_link()
                && !packet.is_port_unreachable_for(&expected)
                && !expected
                    .iter()
                    .any(|&address| packet.goes_to_socket(address))
        });
        packets
    }

    /// Asserts that nothing left for anywhere but `allowed`.
    #[track_caller]
    pub fn nothing_escaped(&self, allowed: &[SocketAddr]) {
        let escaped = self.escaped(allowed);
        assert!(escaped.is_empty(), "these packets escaped: {escaped:#?}");
    }
}

fn connect(near: &Namespace, far: &Namespace) -> io::Result<()> {
    for namespace in [near, far] {
        // No announcements of their own, and addresses that work at once: what
        // the sniffer sees should be what somebody sent.
        namespace.set("ipv6/conf/default/accept_dad", "0")?;
        namespace.set("ipv6/conf/default/accept_ra", "0")?;
        namespace.set("ipv6/conf/default/router_solicitations", "0")?;
        namespace.set("ipv6/conf/default/addr_gen_mode", "1")?;
    }
    let far_mac = FAR_MAC.map(|byte| format!("{byte:02x}")).join(":");
    near.configure(&format!(
        "link set lo up\n\
         link add near type veth peer name far address {far_mac} netns {}\n\
         addr add {NEAR_V4}/30 dev near\n\
         addr add {NEAR_V6}/64 dev near nodad\n\
         link set near up\n",
        far.path()
    ))?;
    let mut far_side = format!(
        "link set lo up\n\
         addr add {FAR_V4}/30 dev far\n\
         addr add {FAR_V6}/64 dev far nodad\n\
         link set far up\n"
    );
    for address in SERVERS {
        // Without `nodad` an IPv6 address, even of the loopback device, can only
        // be bound a moment later.
        let how = if address.is_ipv4() {
            "/32"
        } else {
            "/128 nodad"
        };
        // Writing into a string cannot fail.
        let _ = writeln!(far_side, "addr add {address}{how} dev lo");
    }
    far.configure(&far_side)?;
    near.configure(&format!(
        "route add default via {FAR_V4} dev near\n\
         route add ::/0 via {FAR_V6} dev near\n"
    ))?;
    await_addresses(near)?;
    await_addresses(far)
}

/// Waits until the IPv6 addresses can be used: the kernel takes their tentative
/// mark away in a work queue, also where it detects no duplicates.
fn await_addresses(namespace: &Namespace) -> io::Result<()> {
    const TENTATIVE: u32 = 0x40;
    const PATIENCE: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let table = namespace.run(|| fs::read_to_string("/proc/thread-self/net/if_inet6"))?;
        let tentative = table.lines().any(|line| {
            let flags = line.split_whitespace().nth(4);
            flags
                .and_then(|flags| u32::from_str_radix(flags, 16).ok())
                .is_none_or(|flags| flags & TENTATIVE != 0)
        });
        if !tentative {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("IPv6 addresses stay tentative"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
