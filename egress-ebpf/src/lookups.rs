//! How the shared decision finds things in kernel maps.

mod queries;

pub use queries::{drained, meter, name_asker, prove_asker, queries_left, refill_queries};

use crate::context::{Address, Skb, Socket, sandbox_level};
use crate::maps;
use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_tuple,
        bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    btf_maps::{SkStorage, lpm_trie},
    helpers::generated::{
        bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns, bpf_ringbuf_query,
        bpf_sk_ancestor_cgroup_id, bpf_sk_cgroup_id, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
        bpf_sk_release, bpf_sk_storage_get,
    },
};
use core::ffi::c_void;
use egress_common::{
    Asked, AskerKey, CgroupId, Connection, ConnectionKey, Counter, Destination, Emergency, Grant,
    GrantKey, Ip, Link, LinkUse, Lookups, Neighbour, Network, NetworkKey, PolicyId, Port, Protocol,
    Sandbox, Settings, Traffic,
};

/// Boot-time nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and always succeeds.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The settings. The element always exists; where the verifier cannot see that,
/// the zero settings know no resolver and match no epoch that was ever in force.
#[inline(always)]
pub fn settings() -> &'static Settings {
    const NONE: Settings = Settings {
        epoch: 0,
        resolver_port4: 0,
        resolver_port6: 0,
        agent: CgroupId(0),
        events_per_second: 0,
        queries_per_period: 0,
        contract: 0,
        count_bytes: 0,
    };
    maps::SETTINGS.get(0).unwrap_or(&NONE)
}

/// The emergency block. The element always exists; where the verifier cannot
/// see that, everything is stopped.
#[inline(always)]
pub fn emergency() -> Emergency {
    maps::EMERGENCY.get(0).copied().unwrap_or(Emergency(1))
}

/// The sandbox of a cgroup.
#[inline(always)]
pub fn sandbox(cgroup: CgroupId) -> Option<Sandbox> {
    // SAFETY: the value is copied out at once. A concurrent replacement of the
    // element can tear the copy between two values of the same sandbox only,
    // since elements of this map are never reused for a live cgroup.
    unsafe { maps::SANDBOXES.get(cgroup) }.copied()
}

/// What a socket remembers under `map`; made empty first if `create` and absent.
#[inline(always)]
pub fn remembered<T>(
    map: &'static SkStorage<T>,
    sk: *mut bpf_sock,
    create: bool,
) -> Option<&'static mut T> {
    let flags = if create {
        BPF_SK_STORAGE_GET_F_CREATE
    } else {
        0
    };
    let map: *mut c_void = core::ptr::from_ref(map).cast_mut().cast();
    // SAFETY: `sk` is a socket pointer that the verifier checked; the helper
    // returns null or a value of the map's type that lives as long as the
    // socket, which outlives the program run. Programs on other CPUs may write
    // the same value; every reader copes with a torn one by judging anew.
    unsafe {
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), u64::from(flags))
            .cast::<T>()
            .as_mut()
    }
}

/// A kernel counter, to add to.
#[inline(always)]
pub fn counter(counter: Counter) -> Option<&'static mut u64> {
    let value = maps::COUNTERS.get_ptr_mut(counter as u32)?;
    // SAFETY: an element of a per-CPU array always exists; programs that
    // interrupt this one add to it atomically.
    unsafe { value.as_mut() }
}

/// How many connected sockets a cgroup has, if that is counted.
#[inline(always)]
pub fn open_connections(cgroup: CgroupId) -> Option<&'static mut u64> {
    let count = maps::OPEN_SOCKETS.get_ptr_mut(cgroup)?;
    // SAFETY: the element outlives the program run; it is only added to, atomically.
    unsafe { count.as_mut() }
}

/// What a cgroup has sent and received on this processor, if that is counted.
#[inline(always)]
pub fn traffic(cgroup: CgroupId) -> Option<&'static mut Traffic> {
    let traffic = maps::TRAFFIC.get_ptr_mut(cgroup)?;
    // SAFETY: the element outlives the program run; programs that interrupt this
    // one add to it atomically.
    unsafe { traffic.as_mut() }
}

/// Bytes of reports that the agent has not read.
#[inline(always)]
pub fn unread_events() -> u64 {
    const AVAILABLE: u64 = 0;
    let ring: *mut c_void = core::ptr::from_ref(&maps::EVENTS).cast_mut().cast();
    // SAFETY: the helper only reads the positions of the ring that it is given.
    unsafe { bpf_ringbuf_query(ring, AVAILABLE) }
}

/// The resolver's address for the family of `ip`, if it listens there.
#[inline(always)]
pub fn resolver_for(ip: &Ip) -> Option<(Ip, Port)> {
    let settings = settings();
    let (address, port) = if ip.is_v4() {
        (RESOLVER4, settings.resolver_port4)
    } else {
        (RESOLVER6, settings.resolver_port6)
    };
    if port == 0 {
        None
    } else {
        Some((address, Port::from_network(port)))
    }
}

/// `127.0.0.1`.
pub const RESOLVER4: Ip = Ip::from_v4(0x7f00_0001_u32.to_be());
/// `::1`.
pub const RESOLVER6: Ip = Ip::from_v6([0, 0, 0, 1_u32.to_be()]);

/// Whether that endpoint is the resolver's.
#[inline(always)]
pub fn is_resolver(ip: &Ip, port: Port) -> bool {
    resolver_for(ip).is_some_and(|(address, own)| own == port && address == *ip)
}

/// Finds the socket that would receive a packet between two endpoints, in the
/// network namespace of the hook, and hands it to `use_it`.
#[inline(always)]
fn with_receiver<R>(
    context: *mut c_void,
    from: (&Ip, Port),
    to: (&Ip, Port),
    protocol: Protocol,
    use_it: impl FnOnce(*mut bpf_sock) -> R,
) -> Option<R> {
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv6: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: [0; 4],
                daddr: [0; 4],
                sport: 0,
                dport: 0,
            },
        },
    };
    let (from_ip, to_ip) = (from.0.words(), to.0.words());
    let size = if to.0.is_v4() {
        tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: from_ip[3],
            daddr: to_ip[3],
            sport: from.1.network(),
            dport: to.1.network(),
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
    } else {
        tuple.__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: from_ip,
            daddr: to_ip,
            sport: from.1.network(),
            dport: to.1.network(),
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
    } as u32;
    let netns = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the context is the hook's own, the tuple is initialised to the
    // size that is passed, and the socket is released on the only way out.
    unsafe {
        let sk = match protocol {
            Protocol::Tcp => bpf_sk_lookup_tcp(context, &raw mut tuple, size, netns, 0),
            // ICMP is judged at interfaces only, where nobody looks for sockets.
            Protocol::Udp | Protocol::Icmp => {
                bpf_sk_lookup_udp(context, &raw mut tuple, size, netns, 0)
            }
        };
        if sk.is_null() {
            return None;
        }
        let result = use_it(sk);
        bpf_sk_release(sk.cast());
        Some(result)
    }
}

/// Whose socket receives what goes from one endpoint to another, told by the
/// socket's own cgroup: exact, for the packet hooks.
#[inline(always)]
pub fn receiver(
    context: *mut c_void,
    own: CgroupId,
    from: (&Ip, Port),
    to: (&Ip, Port),
    protocol: Protocol,
) -> Neighbour {
    let is_resolver = is_resolver(to.0, to.1);
    let found = with_receiver(context, from, to, protocol, |sk| {
        // SAFETY: `sk` is the socket that was just found and is still held.
        let (sandbox, exact) = unsafe {
            (
                bpf_sk_ancestor_cgroup_id(sk.cast(), sandbox_level()),
                bpf_sk_cgroup_id(sk.cast()),
            )
        };
        if sandbox == own.0 {
            Neighbour::Own
        } else if is_resolver && exact != 0 && exact == settings().agent.0 {
            Neighbour::Resolver
        } else {
            Neighbour::Other
        }
    });
    found.unwrap_or(Neighbour::Other)
}

/// The maps, asked from a socket-address hook.
pub struct AtCall<'a> {
    /// The hook's view.
    pub address: &'a Address<'a>,
    /// The judged sandbox.
    pub cgroup: CgroupId,
}

/// The maps, asked from a packet hook.
pub struct AtPacket<'a> {
    /// The hook's view.
    pub skb: &'a Skb<'a>,
    /// The judged sandbox.
    pub cgroup: CgroupId,
    /// Source address and port.
    pub from: (&'a Ip, Port),
}

#[inline(always)]
fn grant(key: &GrantKey) -> Option<Grant> {
    // SAFETY: copied out at once. An element that is being recycled for another
    // key can only show a grant that the agent wrote for some key a moment ago;
    // see docs/guarantees.md for the bound.
    unsafe { maps::GRANTS.get(key) }.copied()
}

#[inline(always)]
fn network(policy: PolicyId, to: &Destination) -> Option<Network> {
    let key = lpm_trie::Key::new(
        NetworkKey::POLICY_BITS + 128,
        NetworkKey::new(policy, &to.ip),
    );
    maps::NETWORKS.get(&key).copied()
}

impl Lookups for AtCall<'_> {
    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> Option<Grant> {
        grant(key)
    }

    #[inline(always)]
    fn network(&self, policy: PolicyId, to: &Destination) -> Option<Network> {
        network(policy, to)
    }

    /// The exact answer needs the socket's cgroup, which no helper tells here,
    /// so it is what the socket's owner noted when it bound the socket. It only
    /// has to be right about errnos: the packet hook decides.
    #[inline(always)]
    fn neighbour(&self, to: &Destination) -> Neighbour {
        if is_resolver(&to.ip, to.port) {
            return Neighbour::Resolver;
        }
        // The kernel turns an unspecified destination into loopback after this hook.
        let ip = match to.ip {
            ip if ip != Ip::UNSPECIFIED && ip.v4() != Some(0) => ip,
            ip if ip.is_v4() => RESOLVER4,
            _ => RESOLVER6,
        };
        let from = if ip.is_v4() {
            Ip::from_v4(0)
        } else {
            Ip::UNSPECIFIED
        };
        let own = self.cgroup;
        let found = with_receiver(
            self.address.raw(),
            (&from, Port::ANY),
            (&ip, to.port),
            to.protocol,
            |sk| remembered(&maps::HOMES, sk, false).is_some_and(|home| *home == own),
        );
        if found == Some(true) {
            Neighbour::Own
        } else {
            Neighbour::Other
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }
}

impl Lookups for AtPacket<'_> {
    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> Option<Grant> {
        grant(key)
    }

    #[inline(always)]
    fn network(&self, policy: PolicyId, to: &Destination) -> Option<Network> {
        network(policy, to)
    }

    #[inline(always)]
    fn neighbour(&self, to: &Destination) -> Neighbour {
        receiver(
            self.skb.raw(),
            self.cgroup,
            self.from,
            (&to.ip, to.port),
            to.protocol,
        )
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }
}

/// The maps, asked for what crosses an interface.
pub struct AtInterface;

impl Lookups for AtInterface {
    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> Option<Grant> {
        grant(key)
    }

    #[inline(always)]
    fn network(&self, policy: PolicyId, to: &Destination) -> Option<Network> {
        network(policy, to)
    }

    /// Nothing on the host's loopback device is the sandbox's own.
    #[inline(always)]
    fn neighbour(&self, _to: &Destination) -> Neighbour {
        Neighbour::Other
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }
}

/// Monotonic nanoseconds as of the last tick of the kernel's clock: good enough
/// to tell an idle connection, and nearly free.
#[inline(always)]
pub fn coarse_now() -> u64 {
    // SAFETY: the helper takes nothing and always succeeds.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// What is behind an interface.
#[inline(always)]
pub fn link(interface: u32) -> Option<&'static Link> {
    // SAFETY: the agent replaces elements whole; one that was replaced while a
    // program looks at it shows the interface's own earlier content, or that of
    // one that was attached in the same instant.
    unsafe { maps::INTERFACES.get(interface) }
}

/// What the programs count about an interface.
#[inline(always)]
pub fn link_use(interface: u32) -> Option<&'static mut LinkUse> {
    let usage = maps::INTERFACE_USE.get_ptr_mut(interface)?;
    // SAFETY: as for meters.
    unsafe { usage.as_mut() }
}

/// Counts a connection that was put into the table.
#[inline(always)]
pub fn begun(usage: &mut LinkUse) {
    crate::context::add_one(&mut usage.begun);
}

/// A connection in the table, as it is now.
#[inline(always)]
pub fn connection(key: &ConnectionKey) -> Option<Connection> {
    // SAFETY: copied out at once; fields may be of different packets, which the
    // users allow for.
    unsafe { maps::CONNECTIONS.get(key) }.copied()
}

/// A connection in the table, to note what a packet changes.
#[inline(always)]
pub fn connection_mut(key: &ConnectionKey) -> Option<&'static mut Connection> {
    let connection = maps::CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: the element outlives the program run. Packets of both directions
    // may write it at once, each its own fields; `state` may lose a bit, after
    // which the connection is kept longer than it needs to be.
    unsafe { connection.as_mut() }
}

/// Which DNS server was asked from there.
#[inline(always)]
pub fn asked(key: &AskerKey) -> Option<Asked> {
    // SAFETY: copied out at once; the user compares the interface, so that an
    // element that is being reused for another source is not believed.
    unsafe { maps::ASKED.get(key) }.copied()
}

/// The flow of a packet's socket.
#[inline(always)]
pub fn flow(socket: Option<Socket>) -> Option<&'static mut egress_common::Flow> {
    remembered(&maps::FLOWS, socket?.raw(), false)
}
