//! The enforcer on the running kernel, in a governed root of its own. Needs
//! root; without it every test says that it was skipped.

use super::*;
use crate::image::{MAX_GRANTS, MAX_NETWORKS, MAX_SANDBOXES};
use egress_common::{SandboxId, names};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup directory right below the cgroup2 root, gone with its value.
pub(super) struct Root {
    pub(super) place: Place,
}

impl Root {
    pub(super) fn make(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !egress_tests::privilege::granted(test) {
            return None;
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mount = mounts
            .lines()
            .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
            .and_then(|line| line.split(' ').nth(1))
            .expect("a cgroup2 mount");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!(
            "{mount}/egress-unit-{}-{number}",
            std::process::id()
        ));
        std::fs::create_dir(&path).expect("a cgroup");
        let cgroup = CgroupId(std::fs::metadata(&path).expect("metadata").ino());
        Some(Self {
            place: Place {
                path,
                cgroup,
                level: 1,
            },
        })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Ok(directory) = File::open(&self.place.path) {
            let _ = disarm(directory.as_fd(), &self.place.path);
        }
        let _ = std::fs::remove_dir(&self.place.path);
    }
}

/// How many programs are in force: those of the cgroup hooks, and the second wall
/// where the kernel has one.
fn in_force(enforcer: &Enforcer) -> usize {
    HOOKS.len() + enforcer.wall.as_ref().map_or(0, |_| LsmHook::ALL.len())
}

#[test]
fn a_second_start_takes_over_what_the_first_left_and_changes_nothing() {
    let Some(root) =
        Root::make("enforcer: a second start takes over what the first left and changes nothing")
    else {
        return;
    };
    let first = Enforcer::start(root.place.clone(), 1000, false).expect("a first start");
    assert_eq!(*first.started(), Started::Fresh);
    first
        .set_resolver(Some(5300), Some(5301))
        .expect("settings");
    let sandbox = egress_common::Sandbox {
        id: SandboxId(7),
        ..Default::default()
    };
    first
        .apply(&[Change::PutSandbox(CgroupId(42), sandbox)])
        .expect("a sandbox");
    let before = first.image().expect("an image");
    let programs = first.own().clone();
    drop(first);

    let second = Enforcer::start(root.place.clone(), 1000, false).expect("a second start");
    assert_eq!(
        *second.started(),
        Started::TookOver {
            replaced: 0,
            added: 0
        }
    );
    assert_eq!(second.image().expect("an image"), before);
    assert_eq!(second.resolver().expect("ports"), (Some(5300), Some(5301)));
    assert_eq!(
        second.own().iter().map(|p| p.1).collect::<Vec<_>>(),
        programs.iter().map(|p| p.1).collect::<Vec<_>>()
    );
    assert_eq!(second.inspect().expect("findings"), []);
    let all = in_force(&second);
    assert_eq!(second.disarm().expect("disarmed"), all);
}

#[test]
fn what_a_newer_version_left_in_force_is_refused_and_stays() {
    let Some(root) =
        Root::make("enforcer: what a newer version left in force is refused and stays")
    else {
        return;
    };
    let newer = Enforcer::start(root.place.clone(), 1000, true).expect("a start");
    let settings = Settings {
        contract: CONTRACT + 1,
        ..newer.maps.settings().expect("settings")
    };
    newer.maps.set_settings(settings).expect("written");
    let before = newer.image().expect("an image");
    let error = Enforcer::start(root.place.clone(), 7, false).err();
    assert!(
        matches!(error, Some(EnforcerError::NewerVersion { found, .. }) if found == CONTRACT + 1),
        "{error:?}"
    );
    assert_eq!(newer.inspect().expect("findings"), []);
    assert_eq!(newer.image().expect("an image"), before);
    assert!(newer.is_stopped(), "the emergency block of the newer one");
}

#[test]
fn a_program_that_was_taken_out_is_noticed_and_put_back_by_the_next_start() {
    let Some(root) = Root::make(
        "enforcer: a program that was taken out is noticed and put back by the next start",
    ) else {
        return;
    };
    let first = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
    let (gate, id) = first.own()[0];
    let program = sys::program_by_id(id).expect("the gate");
    sys::detach(first.directory.as_fd(), program.as_fd(), gate.point).expect("detached");
    assert_eq!(
        first.inspect().expect("findings"),
        [Finding::Missing { program: "egress" }]
    );
    drop((first, program));
    let second = Enforcer::start(root.place.clone(), 1000, false).expect("a second start");
    assert_eq!(
        *second.started(),
        Started::TookOver {
            replaced: 0,
            added: 1
        }
    );
}

#[test]
fn programs_that_were_taken_out_are_put_back_onto_the_same_maps() {
    let Some(root) = Root::make("enforcer: repair") else {
        return;
    };
    let enforcer = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
    let sandbox = egress_common::Sandbox {
        id: SandboxId(7),
        ..Default::default()
    };
    let change = Change::PutSandbox(CgroupId(42), sandbox);
    enforcer.apply(&[change]).expect("a sandbox");
    let before = enforcer.image().expect("an image");
    let all = in_force(&enforcer);
    assert_eq!(disarm_at(&root.place.path).expect("disarmed"), all);
    assert_eq!(enforcer.inspect().expect("findings").len(), all);
    assert_eq!(enforcer.repair().expect("repaired").len(), all);
    assert_eq!(enforcer.inspect().expect("findings"), []);
    drop(enforcer);
    // What the programs in force use is what the next agent finds.
    let next = Enforcer::start(root.place.clone(), 1000, false).expect("a second start");
    assert_eq!(next.image().expect("an image"), before);
}

#[test]
fn maps_of_another_layout_are_refused_and_stay_in_force() {
    let Some(root) = Root::make("enforcer: maps of another layout are refused and stay in force")
    else {
        return;
    };
    let directory = File::open(&root.place.path).expect("the root");
    // A program of our name on a map of our name with another value size.
    let first = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
    let layouts = object::layouts().expect("layouts");
    assert_eq!(layouts.len(), names::MAPS.len());
    let predecessor = Predecessor::find(directory.as_fd(), &root.place.path)
        .expect("found")
        .expect("one");
    for (name, expected) in layouts {
        let name = names::MAPS
            .iter()
            .find(|own| **own == name)
            .expect("a known name");
        let map = predecessor.map(name).expect("a map");
        assert_eq!(
            object::Layout::of(map).expect("its layout"),
            expected,
            "{name}"
        );
    }
    drop(first);
}

#[test]
fn the_budget_knows_the_bounds_of_the_object() {
    for (name, layout) in object::layouts().expect("layouts") {
        match name.as_str() {
            names::SANDBOXES | names::METERS => assert_eq!(layout.entries as usize, MAX_SANDBOXES),
            names::NETWORKS => assert_eq!(layout.entries as usize, MAX_NETWORKS),
            names::GRANTS => assert_eq!(layout.entries as usize, MAX_GRANTS),
            _ => {}
        }
    }
}

/// The gate is the largest; 6.1 walks about twice what newer kernels do
/// (docs/kernels.md). The verifier's limit is a million, the budget a tenth of
/// it, so that growth is noticed while it is cheap.
#[test]
fn the_programs_stay_within_the_verifier_budget() {
    const BUDGET: u32 = 100_000;
    // Both families are read whole, with three protocols each: 107,997 on Linux
    // 6.18, of which 6.1 may walk twice as many.
    const LINK_BUDGET: u32 = 250_000;
    let Some(root) = Root::make("enforcer: the programs stay within the verifier budget") else {
        return;
    };
    let enforcer = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
    let statistics = enforcer.statistics();
    assert_eq!(statistics.len(), HOOKS.len() + hooks::LINK_HOOKS.len());
    for program in statistics {
        let walked = program
            .verified_instructions
            .expect("a count, since Linux 5.16");
        eprintln!("{:15} {walked:6} instructions verified", program.program);
        let is_link = program.program.starts_with("link_");
        let budget = if is_link { LINK_BUDGET } else { BUDGET };
        assert!(walked < budget, "{} needs {walked}", program.program);
    }
}

#[test]
fn a_full_map_is_told_from_other_errors() {
    let Some(root) = Root::make("enforcer: a full map is told from other errors") else {
        return;
    };
    let enforcer = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
    let sandbox = egress_common::Sandbox::default();
    let error = (1..=MAX_SANDBOXES as u64 + 1)
        .find_map(|n| {
            enforcer
                .apply(&[Change::PutSandbox(CgroupId(n), sandbox)])
                .err()
        })
        .expect("the map to fill up");
    assert!(error.is_full(), "{error}");
}
