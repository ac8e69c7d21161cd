//! The package in a container with a systemd of its own, on this machine's
//! kernel: in a minute what takes a virtual machine half an hour. What the kernel
//! here does not have (controllers on cgroup v2, LSM programs) only machines show.

use super::guest::{MASKED, Share};
use super::kernel::unwritable;
use super::machine::{self, Ending};
use super::{Cell, Ground, package};
use crate::test::Tally;
use crate::{Failure, shell};
use egress_tests::cgroup::{Cgroup, remove_all};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is needed beside what machines need.
pub const PROGRAMS: [(&str, &str, &str); 1] = [(
    "systemd-nspawn",
    "systemd-container",
    "boots a container with a systemd of its own",
)];

/// What the product calls and a container usually may not.
const CALLS: &str =
    "bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self open_tree move_mount";

/// Shows the container the whole of the host's cgroup2 hierarchy, of which it
/// owns a part: the programs count levels from the real root. Its own root is as
/// closed as a machine's.
const HIERARCHY: &str = "\
[Unit]
Description=The whole cgroup2 hierarchy
DefaultDependencies=no
Before=egress-arm.service egress-agent.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'umount --lazy /sys/fs/cgroup/*/payload; mount --options remount,bind,rw /sys/fs/cgroup; chmod 0555 /sys/fs/cgroup/*/payload'

[Install]
WantedBy=sysinit.target
";

/// Runs the work, then ends the container.
const WORK: &str = "\
[Unit]
Description=The work that this container was started for
After=multi-user.target

[Service]
ExecStart=/bin/sh -c '/bin/sh /share/work </dev/null; echo $? >/status'
StandardOutput=append:/stdout
StandardError=inherit
ExecStopPost=/bin/systemctl poweroff --force
";

/// A root file system that is mounted as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(image: &Path, place: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(place).map_err(unwritable(place))?;
        let mut mount = Command::new("mount");
        shell::run(mount.args(["--options", "loop"]).arg(image).arg(place))?;
        Ok(Self(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(failure) = shell::run(Command::new("umount").arg(&self.0)) {
            eprintln!("vm: {failure}");
        }
    }
}

/// Boots twice with one root file system, as a machine does.
pub fn test(ground: &Ground, limit: Duration) -> Result<Vec<Cell>, Failure> {
    if !shell::is_root() {
        return Err(Failure::new("containers need root"));
    }
    let packages = package::packages()?;
    let image = ground.cache.join("container.img");
    let mut copy = Command::new("cp");
    copy.arg("--sparse=always").arg(&ground.root).arg(&image);
    shell::run(&mut copy)?;
    let root = Mounted::mount(&image, &ground.cache.join("container"))?;
    furnish(&root.0)?;
    // What it makes of cgroups lies in one that goes with the test, and has one name
    // in both boots.
    let cgroup = Cgroup::new().map_err(|error| Failure::new(format!("no cgroup: {error}")))?;
    let mut cells = Vec::new();
    for boot in package::BOOTS {
        let share = package::share(&ground.cache, boot, &packages)?;
        let (ending, said) = run(&root.0, &cgroup, &share, limit)?;
        let mut tally = Tally::default();
        for line in said.lines() {
            println!("{line}");
            tally.line(line);
        }
        let got_through = matches!(ending, Ending::Exited(_));
        cells.push(Cell {
            suite: format!("package-{boot}"),
            release: "this one's, in a container".into(),
            ending,
            tally,
        });
        if !got_through {
            break;
        }
    }
    drop(root);
    fs::remove_file(&image).map_err(unwritable(&image))?;
    Ok(cells)
}

/// Adds the work to the root, and takes away what it would wait for.
fn furnish(root: &Path) -> Result<(), Failure> {
    let units = root.join("etc/systemd/system");
    let write = |name: &str, text: &str| {
        let path = units.join(name);
        fs::write(&path, text).map_err(unwritable(&path))
    };
    write("hierarchy.service", HIERARCHY)?;
    write("work.service", WORK)?;
    let link = |target: &str, place: PathBuf| {
        if let Some(directory) = place.parent() {
            fs::create_dir_all(directory).map_err(unwritable(directory))?;
        }
        std::os::unix::fs::symlink(target, &place).map_err(unwritable(&place))
    };
    link(
        "../work.service",
        units.join("multi-user.target.wants/work.service"),
    )?;
    link(
        "../hierarchy.service",
        units.join("sysinit.target.wants/hierarchy.service"),
    )?;
    for unit in MASKED {
        link("/dev/null", units.join(unit))?;
    }
    Ok(())
}

fn run(
    root: &Path,
    cgroup: &Cgroup,
    share: &Share,
    limit: Duration,
) -> Result<(Ending, String), Failure> {
    let [stdout, status] = ["stdout", "status"].map(|name| root.join(name));
    for file in [&stdout, &status] {
        fs::write(file, "").map_err(unwritable(file))?;
    }
    let mut nspawn = Command::new("/bin/sh");
    nspawn
        .args([
            "-c",
            "echo $$ >\"$0/cgroup.procs\" && exec systemd-nspawn \"$@\"",
        ])
        .arg(cgroup.path())
        .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
        .args(["--private-network", "--capability=all"])
        .arg(format!("--system-call-filter={CALLS}"))
        .arg(format!("--bind={}:/share", share.directory().display()))
        .arg("--directory")
        .arg(root)
        // Without a cgroup namespace of its own, and with cgroup2 alone.
        .env("SYSTEMD_NSPAWN_USE_CGNS", "0")
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let line = shell::line(&nspawn);
    eprintln!("+ {line}");
    let mut container = nspawn
        .spawn()
        .map_err(|error| Failure::new(format!("`{line}` cannot be started: {error}")))?;
    let in_time = machine::wait(&mut container, limit, || {});
    // A container that was late is left alone by its supervisor.
    for part in ["payload", "supervisor"] {
        remove_all(&cgroup.path().join(part));
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(unwritable(path));
    let said = read(&stdout)?;
    let ending = match read(&status)?.trim().parse() {
        _ if !in_time => Ending::TimeLimit,
        Ok(status) => Ending::Exited(status),
        Err(_) => Ending::Died {
            console: said.lines().last().unwrap_or_default().to_owned(),
        },
    };
    Ok((ending, said))
}
