//! What is inside the machine: the root file system, the initrd that finds it,
//! and the share that carries the work in.

use super::kernel::unwritable;
use crate::debian::Archive;
use crate::{Failure, setup, shell};
use egress_tests::debian;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release of the root file system. It is the builder's own, so that what
/// was linked here finds its C library there.
const SUITE: &str = "bookworm";

/// What is installed beside the essential packages: an init, what the tests
/// start (`ip`, `crun`), and what somebody who looks around would miss.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,kmod,nftables,procps,libgcc-s1,\
                        python3,bpftool,crun,curl,openssl,runc";

/// Finds the three disks and hands over to systemd. The overlay belongs to
/// this program and not to the root image, which is made once.
const INIT: &str = "\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t devtmpfs dev /dev
while read module; do
    /bin/busybox insmod /modules/$module || /bin/busybox echo \"vm: $module is not inserted\"
done < /order
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mkdir -p /new/usr/lib/modules /new/share
/bin/busybox mount -t ext4 -o ro /dev/vdb /new/usr/lib/modules
/bin/busybox mount -t ext4 /dev/vdc /new/share
/bin/busybox cp -a /overlay/. /new/
/bin/busybox mount -o move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
";

/// Starts the work when the system is up.
const UNIT: &str = "\
[Unit]
Description=The work that this machine was started for
After=multi-user.target

[Service]
ExecStart=/bin/sh /share/start
";

/// Runs the work with its streams on the ports, then ends the machine.
const START: &str = "\
/bin/sh /share/work </dev/null >/dev/vport0p1 2>/dev/vport0p2
echo $? >/dev/vport0p3
exec poweroff --force
";

/// Units that would wait for what is not there, or do work that nobody needs.
pub const MASKED: [&str; 10] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty.target",
    "getty@.service",
    "serial-getty@.service",
    "systemd-networkd.socket",
    "systemd-firstboot.service",
];

/// Makes the root disk, unless that was done before.
pub fn prepare_root(cache: &Path) -> Result<PathBuf, Failure> {
    let (image, made_by) = (cache.join("root.img"), cache.join("root.recipe"));
    let recipe = format!("{SUITE} {PACKAGES} {}", debian::ROOT);
    if image.is_file() && fs::read_to_string(&made_by).is_ok_and(|before| before == recipe) {
        return Ok(image);
    }
    eprintln!("vm: making the root file system, which takes about a minute");
    let building = cache.join("root.building");
    remove_as_root(&building)?;
    let mut bootstrap = shell::as_root("mmdebstrap")?;
    bootstrap
        .args(["--quiet", "--mode=root", "--variant=minbase"])
        .arg(format!("--include={PACKAGES}"))
        .args(["--architectures=amd64", "--format=directory"])
        .arg("--aptopt=Acquire::Languages \"none\"")
        .args(
            ["doc", "man", "locale"].map(|it| format!("--dpkgopt=path-exclude=/usr/share/{it}/*")),
        )
        .arg(SUITE)
        .arg(&building)
        .arg(Archive::Releases.mirror());
    shell::run(&mut bootstrap)?;
    add_root_of_containers(&building)?;
    let unfinished = cache.join("root.img.building");
    let mut disk = shell::as_root("/sbin/mke2fs")?;
    disk.args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&building)
        .arg(&unfinished)
        // Room for what the work writes; unused blocks take none here.
        .arg("1G")
        .stdout(Stdio::null());
    shell::run(&mut disk)?;
    remove_as_root(&building)?;
    fs::rename(&unfinished, &image).map_err(unwritable(&image))?;
    fs::write(&made_by, recipe).map_err(unwritable(&made_by))?;
    Ok(image)
}

/// Gives the machine what its containers have as their root, or the reason why
/// there is none, at the same place as here.
fn add_root_of_containers(building: &Path) -> Result<(), Failure> {
    setup::debian_root::provide()?;
    for place in [debian::ROOT, debian::EXCUSE] {
        if Path::new(place).exists() {
            let mut copy = shell::as_root("cp")?;
            // It makes the directories above from those that it finds from here.
            copy.current_dir("/").args(["--archive", "--parents"]);
            shell::run(copy.arg(place.trim_start_matches('/')).arg(building))?;
        }
    }
    Ok(())
}

fn remove_as_root(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        let mut remove = shell::as_root("rm")?;
        shell::run(remove.args(["--recursive", "--one-file-system"]).arg(path))?;
    }
    Ok(())
}

/// Everything of the initrd that this program decides: what was made from
/// another text is made again.
pub fn initrd_recipe() -> String {
    format!("{INIT}{UNIT}{}", MASKED.join("\n"))
}

/// Makes an initrd that inserts these modules in this order.
pub fn make_initrd(modules: &[PathBuf], tree: &Path, image: &Path) -> Result<(), Failure> {
    let units = tree.join("overlay/etc/systemd/system");
    let wants = units.join("multi-user.target.wants");
    for directory in [
        &wants,
        &tree.join("bin"),
        &tree.join("dev"),
        &tree.join("modules"),
        &tree.join("new"),
    ] {
        fs::create_dir_all(directory).map_err(unwritable(directory))?;
    }
    let busybox = shell::find("busybox").ok_or_else(|| Failure::new("busybox is not installed"))?;
    fs::copy(busybox, tree.join("bin/busybox")).map_err(unwritable(tree))?;
    let mut order = String::new();
    for module in modules {
        order += &insert(module, &tree.join("modules"))?;
        order.push('\n');
    }
    let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(unwritable(&path));
    write(tree.join("order"), &order)?;
    write(tree.join("init"), INIT)?;
    executable(&tree.join("init"))?;
    write(units.join("vm-work.service"), UNIT)?;
    let link = |target: &str, path: PathBuf| {
        std::os::unix::fs::symlink(target, &path).map_err(unwritable(&path))
    };
    link("../vm-work.service", wants.join("vm-work.service"))?;
    for unit in MASKED {
        link("/dev/null", units.join(unit))?;
    }
    archive(tree, image)
}

/// Copies a module, decompressed; returns its name.
fn insert(module: &Path, directory: &Path) -> Result<String, Failure> {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    let plain = name.strip_suffix(".xz").unwrap_or(&name).to_owned();
    let target = directory.join(&plain);
    if plain == name {
        fs::copy(module, &target).map_err(unwritable(&target))?;
    } else {
        let file = fs::File::create(&target).map_err(unwritable(&target))?;
        let mut decompress = Command::new("xz");
        decompress.args(["--decompress", "--stdout"]).arg(module);
        shell::run(decompress.stdout(file))?;
    }
    Ok(plain)
}

fn archive(tree: &Path, image: &Path) -> Result<(), Failure> {
    let output = fs::File::create(image).map_err(unwritable(image))?;
    let mut find = Command::new("find")
        .arg(".")
        .current_dir(tree)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("`find` cannot be started: {error}")))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--quiet", "--format=newc", "--owner=+0:+0"])
        .current_dir(tree)
        .stdout(output);
    if let Some(names) = find.stdout.take() {
        cpio.stdin(names);
    }
    let made = shell::run(&mut cpio);
    match find.wait() {
        Ok(status) if status.success() => made,
        other => Err(Failure::new(format!("`find` failed: {other:?}"))),
    }
}

/// Makes a disk with the content of a directory and `spare` MiB of room.
pub fn make_disk(content: &Path, image: &Path, spare: u64) -> Result<(), Failure> {
    // Inodes and block maps take their share.
    let size = used(content).map_err(unwritable(content))? * 5 / 4 / (1 << 20) + spare;
    let mut disk = Command::new("/sbin/mke2fs");
    disk.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal"])
        .args(["-E", "root_owner=0:0", "-d"])
        .arg(content)
        .arg(image)
        .arg(format!("{size}M"))
        // It tells that it makes the file that it was told to make.
        .stdout(Stdio::null());
    shell::run(&mut disk)
}

fn used(directory: &Path) -> std::io::Result<u64> {
    /// A file takes whole blocks.
    const BLOCK: u64 = 4096;
    let mut total = BLOCK;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        total += match entry.file_type()? {
            kind if kind.is_dir() => used(&entry.path())?,
            _ => entry.metadata()?.len().next_multiple_of(BLOCK),
        };
    }
    Ok(total)
}

/// A directory that becomes a machine's share, with the work as a shell script.
#[derive(Debug)]
pub struct Share {
    directory: tempfile::TempDir,
}

impl Share {
    /// A share with nothing but the work.
    pub fn new(cache: &Path, work: &str) -> Result<Self, Failure> {
        let directory = tempfile::tempdir_in(cache).map_err(unwritable(cache))?;
        for (name, text) in [("start", START), ("work", work)] {
            let path = directory.path().join(name);
            fs::write(&path, text).map_err(unwritable(&path))?;
        }
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Adds a program, as `/share/PLACE`.
    pub fn add(&self, program: &Path, place: &str) -> Result<(), Failure> {
        let target = self.directory.path().join(place);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(unwritable(parent))?;
        }
        fs::copy(program, &target).map_err(unwritable(program))?;
        executable(&target)
    }

    /// Makes the disk.
    pub fn make_disk(&self, image: &Path) -> Result<(), Failure> {
        make_disk(self.directory.path(), image, 64)
    }
}

fn executable(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(unwritable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initrd_changes_with_what_is_in_it() {
        let recipe = initrd_recipe();
        for part in [INIT, UNIT, MASKED[0], MASKED[9]] {
            assert!(recipe.contains(part), "{part}");
        }
    }

    #[test]
    fn a_disk_has_room_for_what_is_put_in() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let share = Share::new(directory.path(), "exit 3\n").expect("a share");
        let program = directory.path().join("program");
        fs::write(&program, vec![1; 3 << 20]).expect("writable");
        share.add(&program, "bin/program").expect("added");
        let content = used(share.directory.path()).expect("readable");
        assert!(content > 3 << 20, "{content}");
        let work = fs::read_to_string(share.directory.path().join("work"));
        assert_eq!(work.expect("the work"), "exit 3\n");
    }
}
