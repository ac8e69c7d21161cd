//! The maps, with their bounds. What happens at each bound is said here.

use aya_ebpf::{
    btf_maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage,
    },
    macros::btf_map,
};
use egress_common::{
    Asked, Asker, AskerKey, AskerWord, CgroupId, Connection, ConnectionKey, Emergency, Event, Flow,
    Grant, GrantKey, Link, LinkUse, Meter, Network, NetworkKey, Origin, Sandbox, Settings, Traffic,
    interface::MAX_CONNECTIONS,
};

/// `BPF_F_NO_PREALLOC`: entries cost memory only while they are there.
const ON_DEMAND: usize = 1;

/// What all programs must know.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// The emergency block. The resolver asks for it with every name that it hands out, so
/// the agent reads it in memory.
#[btf_map]
pub static EMERGENCY: Array<Emergency, 1, MMAPABLE> = Array::new();

/// The sandboxes. Full: the agent refuses to start another one.
#[btf_map]
pub static SANDBOXES: HashMap<CgroupId, Sandbox, 4096> = HashMap::new();

/// The event budgets, one per sandbox and one (under cgroup 0) for what belongs
/// to none. Full: as for [`SANDBOXES`], with which it is filled.
#[btf_map]
pub static METERS: HashMap<CgroupId, Meter, 4096> = HashMap::new();

/// The learned addresses. Preallocated, so that memory pressure cannot fail an
/// answer. Full: the resolver answers SERVFAIL; quotas keep one sandbox from
/// filling it.
#[btf_map]
pub static GRANTS: HashMap<GrantKey, Grant, 131_072> = HashMap::new();

/// The static networks. Full: the policy that would overfill it is refused.
#[btf_map]
pub static NETWORKS: LpmTrie<NetworkKey, Network, 65_536> = LpmTrie::new();

/// Who asks the resolver over TCP, or from another address than the words of
/// [`ASKER_WORDS`] are for. Least recently used first out: an entry is needed
/// only from the packet that it describes until the resolver reads that packet.
#[btf_map]
pub static ASKERS: LruHashMap<AskerKey, Asker, 65_536> = LruHashMap::new();

/// Who asks from the ports of `127.0.0.1` and `::1` over UDP, which is nearly
/// everybody. It has a place for each port, so it is never full; the agent maps
/// it into its memory and reads it without a system call.
#[btf_map]
pub static ASKER_WORDS: Array<AskerWord, { egress_common::ASKER_WORDS }, MMAPABLE> = Array::new();

/// Which process asks from there, for the record only. As large as
/// [`ASKER_WORDS`] and mapped as they are; a place without a process holds 0. Of 8
/// bytes, as the kernel rounds the elements of arrays up to.
#[btf_map]
pub static ASKER_PROCESSES: Array<u64, { egress_common::ASKER_WORDS }, MMAPABLE> = Array::new();

/// How often the resolver has read all that waited for it. The agent maps it and
/// counts; the gate compares.
#[btf_map]
pub static DRAINED: Array<u64, 1, MMAPABLE> = Array::new();

/// `BPF_F_MMAPABLE`, Linux 5.5.
const MMAPABLE: usize = 1 << 10;

/// What sockets remember. No bound but the sockets themselves. Out of memory:
/// the socket is judged on every packet.
#[btf_map]
pub static FLOWS: SkStorage<Flow> = SkStorage::new();

/// Sockets that speak to the resolver. Out of memory: the query is refused.
#[btf_map]
pub static ORIGINS: SkStorage<Origin> = SkStorage::new();

/// Whose bound sockets are. Out of memory: connecting to it fails with EPERM.
#[btf_map]
pub static HOMES: SkStorage<CgroupId> = SkStorage::new();

/// Connected TCP sockets, of the sandboxes in which they are counted. Full: as for
/// [`SANDBOXES`], with which it is filled.
#[btf_map]
pub static OPEN_SOCKETS: HashMap<CgroupId, u64, 4096> = HashMap::new();

/// What sandboxes sent and received, where the agent wants it counted. Full: as for
/// [`SANDBOXES`], with which it is filled.
#[btf_map]
pub static TRAFFIC: PerCpuHashMap<CgroupId, Traffic, 4096> = PerCpuHashMap::new();

/// In which sandbox's count a socket is. Out of memory: it cannot connect.
#[btf_map]
pub static COUNTED: SkStorage<CgroupId> = SkStorage::new();

/// What is behind interfaces. Full: as for [`SANDBOXES`].
#[btf_map]
pub static INTERFACES: HashMap<u32, Link, 4096, ON_DEMAND> = HashMap::new();

/// What the programs count about them. Made and removed with [`INTERFACES`].
#[btf_map]
pub static INTERFACE_USE: HashMap<u32, LinkUse, 4096, ON_DEMAND> = HashMap::new();

/// Connections through interfaces. Full, or a sandbox's share of it, or no
/// memory: new connections are refused and counted, and live ones go on.
#[btf_map]
pub static CONNECTIONS: HashMap<ConnectionKey, Connection, MAX_CONNECTIONS, ON_DEMAND> =
    HashMap::new();

/// Which DNS server was asked through an interface. Least recently used first
/// out, as for [`ASKERS`]: its answer is dropped, and the client asks again.
#[btf_map]
pub static ASKED: LruHashMap<AskerKey, Asked, 16_384> = LruHashMap::new();

/// Reports to the agent, 4 MiB: 47,000 events. Full: the event is counted.
#[btf_map]
pub static EVENTS: RingBuf<Event, { 4 << 20 }> = RingBuf::new();

/// What can only be counted.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, 16> = PerCpuArray::new();
