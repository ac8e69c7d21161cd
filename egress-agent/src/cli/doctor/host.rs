//! The host: kernel, cgroups, LSMs, other people's programs.

use super::{Check, State};
use crate::daemon::Config;
use crate::enforcer::{EnforcerError, is_armed, strangers, try_load};
use crate::sandbox::{GovernedRoot, Hierarchy};
use std::fs::read_to_string;
use std::path::Path;

/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (6, 1);
/// Controllers that limits in policies need.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![kernel(), programs(), modules()];
    checks.extend(lockdown());
    checks.extend(grace_periods());
    match Hierarchy::find() {
        Ok(hierarchy) => {
            checks.push(Check::new(
                "cgroup2",
                State::Good,
                format!("mounted at {}", hierarchy.path().display()),
                "sandboxes are cgroups in it; the kernel knows by them who sends",
            ));
            checks.push(controllers(hierarchy.path()));
            checks.extend(root(&hierarchy, &config.root));
        }
        Err(error) => checks.push(Check::new(
            "cgroup2",
            State::Broken,
            error,
            "nothing can be enforced without it",
        )),
    }
    checks
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    let found = format!("Linux {release}");
    match version {
        Some(version) if version >= OLDEST => Check::new(
            "kernel",
            State::Good,
            found,
            "new enough; what counts is whether the programs load",
        ),
        Some(_) | None => Check::new(
            "kernel",
            State::Weak,
            found,
            "older than the 6.1 that is tested; use a newer one",
        ),
    }
}

fn programs() -> Check {
    match try_load() {
        Ok(count) => Check::new(
            "programs",
            State::Good,
            format!("all {count} load"),
            "the kernel accepts the packet gate, the address hooks and all maps",
        ),
        Err(EnforcerError::NotPermitted(_)) => Check::new(
            "programs",
            State::Unknown,
            "only root may load them",
            "run this as root to know whether the kernel accepts them",
        ),
        Err(error) => Check::new(
            "programs",
            State::Broken,
            error.to_string().trim_end(),
            "nothing can be enforced with this kernel",
        ),
    }
}

fn modules() -> Check {
    let Ok(list) = read_to_string("/sys/kernel/security/lsm") else {
        return Check::new(
            "lsm",
            State::Unknown,
            "the list of security modules cannot be read",
            "securityfs is not mounted, or only root may read it",
        );
    };
    let list = list.trim().to_owned();
    if list.split(',').any(|module| module == "landlock") {
        Check::new(
            "lsm",
            State::Good,
            list,
            "with Landlock (scopes from 6.12 on) sandboxes do not reach abstract sockets of the host",
        )
    } else {
        Check::new(
            "lsm",
            State::Weak,
            list,
            "without Landlock a sandbox may reach abstract Unix sockets of the host; boot with `lsm=landlock,…`",
        )
    }
}

fn lockdown() -> Option<Check> {
    let text = read_to_string("/sys/kernel/security/lockdown").ok()?;
    let mode = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    Some(if mode == "confidentiality" {
        Check::new(
            "lockdown",
            State::Weak,
            mode,
            "some helpers of BPF programs are refused in this mode; whether ours load says `programs`",
        )
    } else {
        Check::new(
            "lockdown",
            State::Good,
            mode,
            "does not hinder BPF programs",
        )
    })
}

/// How long the kernel waits before an interface's programs are in place.
fn grace_periods() -> Option<Check> {
    let setting = read_to_string("/sys/kernel/rcu_expedited").ok()?;
    let (found, means) = if setting.trim() == "0" {
        (
            "grace periods are not expedited",
            "attaching an interface through tcx waits for two of them, some milliseconds each; \
             a host that starts many interface sandboxes sets /sys/kernel/rcu_expedited to 1",
        )
    } else {
        (
            "grace periods are expedited",
            "attaching an interface does not wait for processors to become idle",
        )
    };
    Some(Check::new("rcu", State::Good, found, means))
}

fn controllers(mount: &Path) -> Check {
    let text = read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    let there: Vec<&str> = text.split_whitespace().collect();
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !there.contains(name))
        .collect();
    if missing.is_empty() {
        Check::new(
            "controllers",
            State::Good,
            text.trim(),
            "limits of processors, memory, processes and I/O can be enforced",
        )
    } else {
        Check::new(
            "controllers",
            State::Weak,
            format!("missing: {}", missing.join(", ")),
            "such limits cannot be enforced here (cgroup v1 may hold them); what may be reached is not affected",
        )
    }
}

fn root(hierarchy: &Hierarchy, name: &str) -> Vec<Check> {
    let root = match GovernedRoot::open(hierarchy, name) {
        Ok(root) => root,
        Err(error) => {
            return vec![Check::new(
                "root",
                State::Weak,
                error,
                "nothing is in force before the first start of an agent, or of egress-arm.service",
            )];
        }
    };
    let path = root.path();
    let unknown =
        |name, error: EnforcerError| Check::new(name, State::Unknown, error, "run this as root");
    let armed = match is_armed(path) {
        Ok(true) => Check::new(
            "root",
            State::Good,
            format!("{} is armed", path.display()),
            "what runs below it and is in no sandbox reaches nothing, with and without an agent",
        ),
        Ok(false) => Check::new(
            "root",
            State::Broken,
            format!("{} is there, and nothing is in force at it", path.display()),
            "what runs below it is limited by nothing; start the agent",
        ),
        Err(error) => unknown("root", error),
    };
    let others = match strangers(path) {
        Ok(None) => Check::new(
            "strangers",
            State::Good,
            "no programs of others at the same hooks",
            "nobody else decides about these packets",
        ),
        Ok(Some(others)) => Check::new(
            "strangers",
            State::Weak,
            others,
            "such programs can refuse more; none can overrule the packet gate, but an attached address hook of theirs may hide a refusal's errno",
        ),
        Err(error) => unknown("strangers", error),
    };
    vec![armed, others]
}
