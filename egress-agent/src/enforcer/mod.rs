//! Makes an image true: the only module that touches the kernel's programs and
//! maps, and the only user of aya.
//!
//! [`Enforcer`] is the door: callers say what is to be allowed, in the words of
//! the contract, and see neither map handles nor flags. `sys` holds the raw
//! calls, `object` loads, `predecessor` finds what an earlier agent left in
//! force, `attach` puts programs in force and takes them out.

mod asker;
mod attach;
mod clock;
mod clsact;
mod emergency;
mod error;
mod hooks;
mod links;
mod lsm;
mod maps;
mod netlink;
mod object;
mod predecessor;
mod reports;
mod resets;
mod sockets;
mod statistics;
mod sys;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_links;
#[cfg(test)]
mod tests_stack;
mod trial;
mod usage;
mod words;

pub use attach::{Change as HookChange, Finding, disarm, disarm_at};
pub use clock::{boot_now, coarse_now};
pub use emergency::set_emergency_at;
pub use error::{EnforcerError, MapProblem};
pub use hooks::{HOOKS, HookPoint};
pub use links::LinkAttachment;
pub use reports::{Report, Reports};
pub use resets::Resets;
pub use sockets::{LiveConnection, SocketTable};
pub use statistics::{ProgramStatistics, Statistics};
pub use trial::{is_armed, strangers, try_load};

use crate::image::{Change, Image};
use egress_common::lsm::LsmHook;
use egress_common::sandbox::QUERY_PERIOD;
use egress_common::{
    CONTRACT, CgroupId, Counter, Emergency, Grant, GrantKey, Meter, Port, Settings,
};
use object::Loaded;
use predecessor::Predecessor;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The governed root: where the programs are attached.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its cgroup directory.
    pub path: PathBuf,
    /// Its cgroup id.
    pub cgroup: CgroupId,
    /// Its depth below the cgroup2 root, which has depth 0.
    pub level: u32,
}

/// Puts a governed root under programs with empty maps, unless programs are
/// there: everything below it is denied until an agent says otherwise. Whether
/// there was something to do.
pub fn arm(place: Place, events_per_second: u64) -> Result<bool, EnforcerError> {
    if attach::has_gate(&place.path)? {
        return Ok(false);
    }
    // Whether an emergency block is in force is for the agent to say: nothing
    // is known here yet, so everything is denied in any case.
    Enforcer::start(place, events_per_second, false).map(|_| true)
}

/// How enforcement came into force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Started {
    /// Nothing was there.
    Fresh,
    /// An earlier agent's maps and programs were taken over; how many programs
    /// had to be replaced or added.
    TookOver {
        /// Programs that were replaced by this version's.
        replaced: usize,
        /// Programs that were missing.
        added: usize,
    },
}

/// Unless told otherwise: far more than any program asks, and far fewer than
/// the resolver's queue holds.
const QUERIES_PER_PERIOD: u64 = 500;

/// Enforcement in force. Dropping it opens nothing: the programs stay.
pub struct Enforcer {
    place: Place,
    directory: File,
    maps: maps::Maps,
    words: words::Words,
    /// Kept so that a program that somebody takes out can be put back.
    loaded: Loaded,
    links: links::LinkPrograms,
    own: Mutex<Vec<(HookPoint, u32)>>,
    /// The second wall, or why there is none.
    wall: Result<lsm::Wall, String>,
    started: Started,
}

/// The cgroup of this process, by which the programs know the resolver's sockets.
fn own_cgroup(place: &Place) -> Result<CgroupId, EnforcerError> {
    use std::os::unix::fs::MetadataExt;
    let memberships = std::fs::read_to_string("/proc/self/cgroup");
    let found = memberships.and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = path.ok_or(std::io::ErrorKind::NotFound)?;
        let mount = place.path.ancestors().nth(place.level as usize);
        let mount = mount.ok_or(std::io::ErrorKind::NotFound)?;
        Ok(CgroupId(std::fs::metadata(mount.join(path))?.ino()))
    });
    found.map_err(|error| EnforcerError::Root {
        path: "/proc/self/cgroup".into(),
        error,
    })
}

/// Proof that grants stand in the kernel map. Only [`Enforcer::grant`] makes it.
#[derive(Debug)]
#[must_use = "an answer may only leave with its receipt"]
pub struct Receipt {
    expires: u64,
}

impl Receipt {
    /// Boot-time nanoseconds until which all of them open new connections, unless
    /// they are taken back.
    pub const fn expires(&self) -> u64 {
        self.expires
    }

    /// One that proves nothing, for tests of what is concluded from receipts.
    #[cfg(test)]
    pub const fn for_tests(expires: u64) -> Self {
        Self { expires }
    }
}

impl Enforcer {
    /// Puts the programs in force at `place`, onto what an earlier agent left
    /// there if it is compatible.
    ///
    /// When this returns, everything below the root is judged; what is in no
    /// known sandbox is denied. With `stopped` the emergency block is in force
    /// before the first program is; without, it is as it was.
    pub fn start(
        place: Place,
        events_per_second: u64,
        stopped: bool,
    ) -> Result<Self, EnforcerError> {
        // CAP_SYS_ADMIN alone would attach the programs; without CAP_NET_ADMIN
        // the connections that a policy takes back could not be ended.
        let capabilities = rustix::thread::capabilities(None)
            .map_err(|error| EnforcerError::NotPermitted(error.into()))?;
        if !capabilities
            .effective
            .contains(rustix::thread::CapabilitySet::NET_ADMIN)
        {
            let missing = std::io::Error::other("CAP_NET_ADMIN is missing");
            return Err(EnforcerError::NotPermitted(missing));
        }
        let directory = File::open(&place.path).map_err(|error| EnforcerError::Root {
            path: place.path.clone(),
            error,
        })?;
        let root = directory.as_fd();
        let predecessor = Predecessor::find(root, &place.path)?;
        // Sandboxes are the root's children.
        let mut loaded = Loaded::load(place.level + 1, predecessor.as_ref())?;
        let words = words::Words::take(&mut loaded)?;
        let maps = maps::Maps::take(&mut loaded)?;
        if stopped {
            maps.set_emergency(emergency::since_now())?;
        }
        let before = maps.settings()?;
        if before.contract > CONTRACT {
            return Err(EnforcerError::NewerVersion {
                path: place.path,
                found: before.contract,
            });
        }
        maps.set_settings(Settings {
            // Zero is what a socket storage that was never written holds.
            epoch: before.epoch.max(1),
            agent: own_cgroup(&place)?,
            events_per_second,
            queries_per_period: QUERIES_PER_PERIOD,
            contract: CONTRACT,
            ..before
        })?;
        // What belongs to no sandbox has a budget too.
        maps.begin_meter(CgroupId(0))?;

        let changes = attach::put_in_force(root, &place.path, &loaded, predecessor.as_ref())?;
        let mut own = Vec::with_capacity(changes.len());
        for (hook, change) in &changes {
            let kept = predecessor
                .as_ref()
                .and_then(|old| old.program(hook.program));
            let id = match (change, kept) {
                (HookChange::Kept, Some(old)) => old.id,
                _ => loaded
                    .program(hook.program)?
                    .info()
                    .map_err(|error| EnforcerError::Object(error.to_string()))?
                    .id(),
            };
            own.push((*hook, id));
        }
        let links = links::LinkPrograms::take(&loaded, predecessor.as_ref())?;
        let of = |wanted| {
            changes
                .iter()
                .filter(|(_, change)| *change == wanted)
                .count()
        };
        let started = match predecessor {
            None => Started::Fresh,
            Some(_) => Started::TookOver {
                replaced: of(HookChange::Replaced),
                added: of(HookChange::Attached),
            },
        };
        // Nothing depends on it: what it says is told, and the start goes on.
        let wall = lsm::Wall::start(&place, directory.as_fd());
        if let Err(why) = &wall {
            tracing::info!("LSM programs are not usable here: {why}");
        }
        sys::give_back_memory();
        Ok(Self {
            place,
            directory,
            maps,
            words,
            loaded,
            links,
            own: Mutex::new(own),
            wall,
            started,
        })
    }

    /// Sets how many DNS datagrams one sandbox may send per second, to the next ten.
    pub fn limit_queries(&self, per_second: u32) -> Result<(), EnforcerError> {
        let periods = 1_000_000_000 / QUERY_PERIOD;
        self.maps.set_settings(Settings {
            queries_per_period: u64::from(per_second).div_ceil(periods).max(1),
            ..self.maps.settings()?
        })
    }

    /// How it came into force.
    pub const fn started(&self) -> &Started {
        &self.started
    }

    /// Where.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// What the kernel holds now.
    pub fn image(&self) -> Result<Image, EnforcerError> {
        Ok(Image {
            settings: self.maps.settings()?,
            sandboxes: self.maps.sandboxes()?.into_iter().collect(),
            networks: self.maps.networks()?.into_iter().collect(),
            grants: self.maps.grants()?.into_iter().collect(),
        })
    }

    /// Carries changes out in their order; stops at the first that fails.
    /// Every prefix of a plan is at least as strict as both its ends, so
    /// stopping is safe.
    pub fn apply(&self, changes: &[Change]) -> Result<(), EnforcerError> {
        for change in changes {
            match change {
                Change::PutMeter(cgroup) => self.maps.begin_meter(*cgroup)?,
                Change::RemoveMeter(cgroup) => self.maps.remove_meter(*cgroup)?,
                Change::PutNetwork(prefix, network) => self.maps.put_network(prefix, network)?,
                Change::RemoveNetwork(prefix) => self.maps.remove_network(prefix)?,
                Change::PutSandbox(cgroup, sandbox) => self.maps.put_sandbox(*cgroup, sandbox)?,
                Change::RemoveSandbox(cgroup) => self.maps.remove_sandbox(*cgroup)?,
                Change::PutGrant(key, grant) => self.maps.put_grant(key, grant)?,
                Change::RemoveGrant(key) => self.maps.remove_grant(key)?,
                Change::SetSettings(settings) => self.maps.set_settings(*settings)?,
            }
        }
        Ok(())
    }

    /// Writes grants. All of them or an error; what was written before the
    /// error stays, and no answer tells the sandbox of it.
    pub fn grant(&self, grants: &[(GrantKey, Grant)]) -> Result<Receipt, EnforcerError> {
        for (key, grant) in grants {
            self.maps.put_grant(key, grant)?;
        }
        let first = grants.iter().map(|(_, grant)| grant.expires).min();
        Ok(Receipt {
            expires: first.unwrap_or(u64::MAX),
        })
    }

    /// Tells the programs where the resolver listens; `None` where it does not.
    /// Returns the settings that are then in force.
    pub fn set_resolver(
        &self,
        port4: Option<u16>,
        port6: Option<u16>,
    ) -> Result<Settings, EnforcerError> {
        let network = |port: Option<u16>| Port::from_host(port.unwrap_or(0)).network();
        let settings = Settings {
            resolver_port4: network(port4),
            resolver_port6: network(port6),
            ..self.maps.settings()?
        };
        self.maps.set_settings(settings)?;
        Ok(settings)
    }

    /// Where the resolver of an earlier agent listened, so that sockets that
    /// were redirected there find it again.
    pub fn resolver(&self) -> Result<(Option<u16>, Option<u16>), EnforcerError> {
        let settings = self.maps.settings()?;
        let host = |port: u16| Some(Port::from_network(port).host()).filter(|port| *port != 0);
        Ok((host(settings.resolver_port4), host(settings.resolver_port6)))
    }

    /// Stops everything, or lets policy decide again: one map write, which
    /// counts for every packet that is judged after it.
    pub fn set_emergency(&self, stopped: bool) -> Result<(), EnforcerError> {
        self.maps.set_emergency(if stopped {
            emergency::since_now()
        } else {
            Emergency::NONE
        })
    }

    /// The event stream; once.
    pub fn reports(&self) -> Result<Reports, EnforcerError> {
        let ring = self
            .maps
            .take_events()
            .ok_or_else(|| EnforcerError::Object("the event ring has a reader already".into()))?;
        Reports::new(ring)
    }

    /// A kernel counter's sum over all CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64, EnforcerError> {
        self.maps.counter(counter)
    }

    /// What each sandbox's budget says, by cgroup.
    pub fn meters(&self) -> Result<Vec<(CgroupId, Meter)>, EnforcerError> {
        self.maps.meters()
    }

    /// Looks whether every program is still attached, and who came after them.
    pub fn inspect(&self) -> Result<Vec<Finding>, EnforcerError> {
        let mut findings = self.findings(&self.own())?;
        findings.extend(self.gone_from_the_wall()?.into_iter().map(|hook| {
            let program = hook.program();
            Finding::Missing { program }
        }));
        Ok(findings)
    }

    fn gone_from_the_wall(&self) -> Result<Vec<LsmHook>, EnforcerError> {
        let Ok(wall) = &self.wall else {
            return Ok(Vec::new());
        };
        let gone = wall.gone(self.directory.as_fd());
        gone.map_err(|error| self.cannot_inspect(&error))
    }

    fn cannot_inspect(&self, error: &std::io::Error) -> EnforcerError {
        EnforcerError::Inspect {
            path: self.place.path.clone(),
            error: error.to_string(),
        }
    }

    /// The second wall in words: `in force: …`, or `not usable here: …`.
    pub fn lsm(&self) -> String {
        match &self.wall {
            Ok(wall) => wall.describe(),
            Err(why) => format!("not usable here: {why}"),
        }
    }

    /// What the second wall refused since this agent began, by hook; empty where
    /// there is none.
    pub fn lsm_refusals(&self) -> Vec<(&'static str, u64)> {
        let refusals = self
            .wall
            .as_ref()
            .map_or_else(|_| Vec::new(), lsm::Wall::refusals);
        let named = refusals
            .into_iter()
            .map(|(hook, count)| (hook.name(), count));
        named.collect()
    }

    fn findings(&self, own: &[(HookPoint, u32)]) -> Result<Vec<Finding>, EnforcerError> {
        attach::inspect(self.directory.as_fd(), own).map_err(|error| self.cannot_inspect(&error))
    }

    /// Puts back what is missing, and returns the names of what it was. The
    /// programs use the maps in force, so nothing is forgotten.
    pub fn repair(&self) -> Result<Vec<&'static str>, EnforcerError> {
        let mut own = self.own();
        let mut repaired = Vec::new();
        for finding in self.findings(&own)? {
            let Finding::Missing { program } = finding else {
                continue;
            };
            if let Some((hook, id)) = own.iter_mut().find(|(hook, _)| hook.program == program) {
                *id =
                    attach::put_back(self.directory.as_fd(), &self.place.path, &self.loaded, hook)?;
                repaired.push(program);
            }
        }
        if let Ok(wall) = &self.wall {
            for hook in self.gone_from_the_wall()? {
                let back = wall.put_back(self.directory.as_fd(), hook);
                back.map_err(|error| EnforcerError::Attach {
                    path: self.place.path.clone(),
                    program: hook.program(),
                    error,
                })?;
                repaired.push(hook.program());
            }
        }
        Ok(repaired)
    }

    /// Ids stay right even if their holder panics.
    fn own(&self) -> MutexGuard<'_, Vec<(HookPoint, u32)>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything out of force. The off switch's inner half.
    pub fn disarm(self) -> Result<usize, EnforcerError> {
        disarm(self.directory.as_fd(), &self.place.path)
    }

    /// The governed root's directory.
    pub fn path(&self) -> &Path {
        &self.place.path
    }
}
