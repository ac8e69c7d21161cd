//! The product in force, with full maps: everything that is measured runs
//! through the real programs, put there by the real enforcer.

use super::place::destinations;
use egress_agent::enforcer::{Enforcer, EnforcerError, Place, boot_now};
use egress_agent::image::{Image, flatten_into, plan};
use egress_agent::model::{PortRange, Transport};
use egress_common::{
    CgroupId, Destination, Grant, GrantKey, Ip, NameId, PolicyId, Port, Protocol, RuleId, Sandbox,
    SandboxId,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Sandboxes in the maps.
pub const SANDBOXES: u32 = 1_000;
/// Grants in the maps.
pub const GRANTS: usize = 100_000;
/// Static networks in the maps, of the policy that is measured; none of them
/// holds a destination that is used, so grants decide.
pub const NETWORKS: u32 = 64;
/// The agent's default.
const EVENTS_PER_SECOND: u64 = 2_000;
/// The sandbox that is measured.
const OWN: SandboxId = SandboxId(SANDBOXES);
const POLICY: PolicyId = PolicyId(1);

/// Puts the product in force at `root`, whose child `sandbox` is the worker's,
/// and fills the maps.
pub fn start(root: &Path, level: u32, sandbox: &Path) -> io::Result<Enforcer> {
    let place = Place {
        path: root.to_owned(),
        cgroup: cgroup_id(root)?,
        level,
    };
    let failed = |error: EnforcerError| io::Error::other(error.to_string());
    let enforcer = Enforcer::start(place, EVENTS_PER_SECOND, false).map_err(failed)?;
    let current = enforcer.image().map_err(failed)?;
    let wanted = Image {
        settings: current.settings,
        ..image(cgroup_id(sandbox)?)?
    };
    enforcer.apply(&plan(&current, &wanted)).map_err(failed)?;
    read_reports(&enforcer)?;
    Ok(enforcer)
}

fn cgroup_id(path: &Path) -> io::Result<CgroupId> {
    Ok(CgroupId(std::fs::metadata(path)?.ino()))
}

/// A host in full use. The worker's sandbox and its grants are the last of many.
fn image(own: CgroupId) -> io::Result<Image> {
    let mut image = Image::default();
    for n in 1..=SANDBOXES {
        let sandbox = Sandbox {
            id: SandboxId(n),
            policy: POLICY,
            ..Default::default()
        };
        // Numbers that no cgroup has.
        let cgroup = if sandbox.id == OWN {
            own
        } else {
            CgroupId(u64::MAX - u64::from(n))
        };
        image.sandboxes.insert(cgroup, sandbox);
    }
    for n in 0..NETWORKS {
        let network = format!("10.{n}.0.0/16").parse().map_err(io::Error::other)?;
        let service = Transport {
            protocol: Protocol::Tcp,
            ports: PortRange {
                first: 5432,
                last: 5432,
            },
        };
        if flatten_into(
            &mut image.networks,
            POLICY,
            &network,
            &[(service, RuleId(n))],
        ) != 0
        {
            return Err(io::Error::other("one service fits into a network"));
        }
    }
    let grant = Grant {
        expires: boot_now() + 3_600_000_000_000,
        name: NameId(1),
        rule: RuleId(1),
    };
    for (protocol, endpoint) in destinations() {
        let protocol =
            Protocol::from_number(protocol).ok_or_else(|| io::Error::other("TCP and UDP only"))?;
        let key = key(OWN, IpAddr::V4(*endpoint.ip()), endpoint.port(), protocol);
        image.grants.insert(key, grant);
    }
    for n in 0.. {
        if image.grants.len() == GRANTS {
            break;
        }
        let sandbox = SandboxId(1 + n % SANDBOXES);
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(203, 0, 0, 0)) + n);
        image
            .grants
            .insert(key(sandbox, ip.into(), 443, Protocol::Tcp), grant);
    }
    Ok(image)
}

fn key(sandbox: SandboxId, ip: IpAddr, port: u16, protocol: Protocol) -> GrantKey {
    let to = Destination {
        ip: Ip::from(ip),
        port: Port::from_host(port),
        protocol,
    };
    GrantKey::new(sandbox, &to, to.port)
}

/// Reads what the programs report, as the agent does, so that the ring neither
/// fills nor goes without its wake-ups.
fn read_reports(enforcer: &Enforcer) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reports = runtime.block_on(async { enforcer.reports() });
    let mut reports = reports.map_err(|error| io::Error::other(error.to_string()))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut batch = Vec::with_capacity(4096);
            while reports.next_batch(4096, &mut batch).await.is_ok() {
                batch.clear();
            }
        });
    });
    Ok(())
}
