//! Typed access to the kernel maps.

use super::error::{EnforcerError, MapProblem, chain};
use super::object::Loaded;
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf,
};
use aya::util::nr_cpus;
use egress_common::{
    Asker, AskerKey, CgroupId, Connection, ConnectionKey, Counter, Emergency, Grant, GrantKey,
    Link, LinkUse, Meter, Network, NetworkKey, Sandbox, Settings, Traffic, names,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A hash map behind a lock: aya wants exclusive access to write, the kernel
/// does not, and a write takes less than a microsecond.
pub(super) struct Table<K: Pod, V: Pod> {
    name: &'static str,
    map: Mutex<HashMap<MapData, K, V>>,
}

fn problem(map: &'static str, error: &MapError) -> EnforcerError {
    const E2BIG: i32 = 7;
    const ENOSPC: i32 = 28;
    let full = matches!(error, MapError::SyscallError(call)
        if matches!(call.io_error.raw_os_error(), Some(E2BIG | ENOSPC)));
    let problem = if full {
        MapProblem::Full
    } else {
        MapProblem::Other(chain(error))
    };
    EnforcerError::Map { map, problem }
}

impl<K: Pod + Ord, V: Pod> Table<K, V> {
    fn take(loaded: &mut Loaded, name: &'static str) -> Result<Self, EnforcerError> {
        let map =
            HashMap::try_from(loaded.take_map(name)?).map_err(|error| problem(name, &error))?;
        Ok(Self {
            name,
            map: Mutex::new(map),
        })
    }

    /// A panic while the lock was held cannot leave a map half written.
    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, K, V>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, key: &K, value: &V) -> Result<(), EnforcerError> {
        self.lock()
            .insert(key, value, 0)
            .map_err(|error| problem(self.name, &error))
    }

    /// Absent is as good as removed.
    pub(super) fn remove(&self, key: &K) -> Result<(), EnforcerError> {
        match self.lock().remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(call))
                if call.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            Err(error) => Err(problem(self.name, &error)),
        }
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, EnforcerError> {
        match self.lock().get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(problem(self.name, &error)),
        }
    }

    /// All entries. One that is removed while they are read may be missing.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, EnforcerError> {
        let map = self.lock();
        let keys: Vec<K> = map
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|error| problem(self.name, &error))?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            match map.get(&key, 0) {
                Ok(value) => entries.push((key, value)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(problem(self.name, &error)),
            }
        }
        Ok(entries)
    }
}

/// Every map that the agent reads or writes.
pub(super) struct Maps {
    settings: Mutex<Array<MapData, Settings>>,
    emergency: Mutex<Array<MapData, Emergency>>,
    sandboxes: Table<CgroupId, Sandbox>,
    meters: Table<CgroupId, Meter>,
    open_connections: Table<CgroupId, u64>,
    traffic: Mutex<PerCpuHashMap<MapData, CgroupId, Traffic>>,
    grants: Table<GrantKey, Grant>,
    askers: Table<AskerKey, Asker>,
    networks: Mutex<LpmTrie<MapData, NetworkKey, Network>>,
    pub(super) links: Table<u32, Link>,
    pub(super) link_use: Table<u32, LinkUse>,
    pub(super) connections: Table<ConnectionKey, Connection>,
    counters: PerCpuArray<MapData, u64>,
    events: Mutex<Option<RingBuf<MapData>>>,
}

/// A prefix of the network trie: how many bits of the key count, and the key.
pub type Prefix = (u32, NetworkKey);

impl Maps {
    pub(super) fn take(loaded: &mut Loaded) -> Result<Self, EnforcerError> {
        fn typed<M: TryFrom<Map, Error = MapError>>(
            loaded: &mut Loaded,
            name: &'static str,
        ) -> Result<M, EnforcerError> {
            M::try_from(loaded.take_map(name)?).map_err(|error| problem(name, &error))
        }
        Ok(Self {
            settings: Mutex::new(typed(loaded, names::SETTINGS)?),
            emergency: Mutex::new(typed(loaded, names::EMERGENCY)?),
            sandboxes: Table::take(loaded, names::SANDBOXES)?,
            meters: Table::take(loaded, names::METERS)?,
            open_connections: Table::take(loaded, names::OPEN_SOCKETS)?,
            traffic: Mutex::new(typed(loaded, names::TRAFFIC)?),
            grants: Table::take(loaded, names::GRANTS)?,
            askers: Table::take(loaded, names::ASKERS)?,
            networks: Mutex::new(typed(loaded, names::NETWORKS)?),
            links: Table::take(loaded, names::INTERFACES)?,
            link_use: Table::take(loaded, names::INTERFACE_USE)?,
            connections: Table::take(loaded, names::CONNECTIONS)?,
            counters: typed(loaded, names::COUNTERS)?,
            events: Mutex::new(Some(typed(loaded, names::EVENTS)?)),
        })
    }

    pub(super) fn settings(&self) -> Result<Settings, EnforcerError> {
        let map = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&0, 0)
            .map_err(|error| problem(names::SETTINGS, &error))
    }

    pub(super) fn set_settings(&self, settings: Settings) -> Result<(), EnforcerError> {
        let mut map = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(0, settings, 0)
            .map_err(|error| problem(names::SETTINGS, &error))
    }

    pub(super) fn set_emergency(&self, emergency: Emergency) -> Result<(), EnforcerError> {
        let mut map = self
            .emergency
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        map.set(0, emergency, 0)
            .map_err(|error| problem(names::EMERGENCY, &error))
    }

    pub(super) fn put_sandbox(
        &self,
        cgroup: CgroupId,
        sandbox: &Sandbox,
    ) -> Result<(), EnforcerError> {
        self.sandboxes.put(&cgroup, sandbox)
    }

    pub(super) fn remove_sandbox(&self, cgroup: CgroupId) -> Result<(), EnforcerError> {
        self.sandboxes.remove(&cgroup)
    }

    pub(super) fn sandboxes(&self) -> Result<Vec<(CgroupId, Sandbox)>, EnforcerError> {
        self.sandboxes.entries()
    }

    /// Begins to count for a cgroup; what counts already goes on.
    pub(super) fn begin_meter(&self, cgroup: CgroupId) -> Result<(), EnforcerError> {
        if self.open_connections.get(&cgroup)?.is_none() {
            self.open_connections.put(&cgroup, &0)?;
        }
        self.begin_traffic(cgroup)?;
        if self.meters.get(&cgroup)?.is_some() {
            return Ok(());
        }
        self.meters.put(&cgroup, &Meter::default())
    }

    pub(super) fn remove_meter(&self, cgroup: CgroupId) -> Result<(), EnforcerError> {
        self.open_connections.remove(&cgroup)?;
        // Absent is as good as removed.
        let _ = self.traffic().remove(&cgroup);
        self.meters.remove(&cgroup)
    }

    fn begin_traffic(&self, cgroup: CgroupId) -> Result<(), EnforcerError> {
        let failed = |error: MapError| problem(names::TRAFFIC, &error);
        let mut traffic = self.traffic();
        if traffic.get(&cgroup, 0).is_ok() {
            return Ok(());
        }
        let cpus = nr_cpus().map_err(|(_, error)| failed(MapError::IoError(error)))?;
        let nothing = PerCpuValues::try_from(vec![Traffic::default(); cpus])
            .map_err(|error| failed(MapError::IoError(error)))?;
        traffic.insert(cgroup, nothing, 0).map_err(failed)
    }

    /// What a cgroup has sent and received, on all processors.
    pub(super) fn traffic_of(&self, cgroup: CgroupId) -> Result<Traffic, EnforcerError> {
        let values = match self.traffic().get(&cgroup, 0) {
            Ok(values) => values,
            Err(MapError::KeyNotFound) => return Ok(Traffic::default()),
            Err(error) => return Err(problem(names::TRAFFIC, &error)),
        };
        Ok(values.iter().fold(Traffic::default(), |sum, one| Traffic {
            sent: sum.sent + one.sent,
            received: sum.received + one.received,
        }))
    }

    fn traffic(&self) -> MutexGuard<'_, PerCpuHashMap<MapData, CgroupId, Traffic>> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open_connections(&self, cgroup: CgroupId) -> Result<u64, EnforcerError> {
        Ok(self.open_connections.get(&cgroup)?.unwrap_or(0))
    }

    pub(super) fn meters(&self) -> Result<Vec<(CgroupId, Meter)>, EnforcerError> {
        self.meters.entries()
    }

    pub(super) fn put_grant(&self, key: &GrantKey, grant: &Grant) -> Result<(), EnforcerError> {
        self.grants.put(key, grant)
    }

    pub(super) fn remove_grant(&self, key: &GrantKey) -> Result<(), EnforcerError> {
        self.grants.remove(key)
    }

    pub(super) fn grants(&self) -> Result<Vec<(GrantKey, Grant)>, EnforcerError> {
        self.grants.entries()
    }

    pub(super) fn asker(&self, key: &AskerKey) -> Result<Option<Asker>, EnforcerError> {
        self.askers.get(key)
    }

    pub(super) fn put_network(
        &self,
        (bits, key): &Prefix,
        network: &Network,
    ) -> Result<(), EnforcerError> {
        let mut map = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(&Key::new(*bits, *key), network, 0)
            .map_err(|error| problem(names::NETWORKS, &error))
    }

    pub(super) fn remove_network(&self, (bits, key): &Prefix) -> Result<(), EnforcerError> {
        let mut map = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        match map.remove(&Key::new(*bits, *key)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(call))
                if call.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            Err(error) => Err(problem(names::NETWORKS, &error)),
        }
    }

    pub(super) fn networks(&self) -> Result<Vec<(Prefix, Network)>, EnforcerError> {
        let map = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .map(|entry| entry.map(|(key, network)| ((key.prefix_len(), key.data()), network)))
            .collect::<Result<_, _>>()
            .map_err(|error| problem(names::NETWORKS, &error))
    }

    pub(super) fn counter(&self, counter: Counter) -> Result<u64, EnforcerError> {
        let values = self
            .counters
            .get(&(counter as u32), 0)
            .map_err(|error| problem(names::COUNTERS, &error))?;
        Ok(values.iter().sum())
    }

    /// The ring; there is one reader.
    pub(super) fn take_events(&self) -> Option<RingBuf<MapData>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
