//! Debian's kernels: fetched with a private apt, unpacked, and made into what
//! QEMU boots.

use super::guest;
use crate::debian::Archive;
use crate::{Failure, shell};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the root disk, the module disk, the share and the ports need before
/// systemd can load modules by itself.
const EARLY_MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_console", "ext4"];

/// The release that has no security archive: it is mended where it is.
const UNSTABLE: &str = "sid";

/// A kernel that the product is tested on, by the Debian release that keeps it
/// up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernel {
    /// The oldest that is supported.
    #[value(name = "6.1")]
    V6_1,
    /// The long-term kernel in between.
    #[value(name = "6.12")]
    V6_12,
    /// Whatever unstable has today.
    #[value(name = "newest", alias = "sid")]
    Newest,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kernel {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Newest];

    fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Newest => UNSTABLE,
        }
    }
}

/// A kernel that can be booted.
#[derive(Debug)]
pub struct Bootable {
    /// What `uname -r` says there.
    pub release: String,
    /// The compressed kernel.
    pub image: PathBuf,
    /// The file system that finds the real one.
    pub initrd: PathBuf,
    /// A disk with the modules.
    pub modules: PathBuf,
}

impl Bootable {
    /// Fetches and prepares it, unless that was done before.
    pub fn prepare(kernel: Kernel, cache: &Path) -> Result<Self, Failure> {
        let directory = cache.join(kernel.name());
        let recipe = guest::initrd_recipe();
        if fs::read_to_string(directory.join("recipe")).is_ok_and(|made_by| made_by == recipe) {
            return Self::in_directory(&directory);
        }
        eprintln!("vm: fetching the kernel of Debian {}", kernel.suite());
        let building = tempfile::tempdir_in(cache).map_err(unwritable(cache))?;
        let (work, made) = (building.path().join("work"), building.path().join("made"));
        fs::create_dir_all(&made).map_err(unwritable(&made))?;
        let unpacked = fetch(kernel.suite(), &work)?;
        make(&unpacked, &work, &made)?;
        fs::write(made.join("recipe"), recipe).map_err(unwritable(&made))?;
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(unwritable(&directory))?;
        }
        fs::rename(&made, &directory).map_err(unwritable(&directory))?;
        Self::in_directory(&directory)
    }

    fn in_directory(directory: &Path) -> Result<Self, Failure> {
        let release = directory.join("release");
        let release = fs::read_to_string(&release).map_err(|error| {
            Failure::new(format!("{} cannot be read: {error}", release.display()))
        })?;
        Ok(Self {
            release,
            image: directory.join("vmlinuz"),
            initrd: directory.join("initrd.img"),
            modules: directory.join("modules.img"),
        })
    }
}

/// Downloads and unpacks the kernel packages of a suite.
///
/// The machine's own apt is not involved: another suite in its sources would
/// change what everything else on it is installed from.
fn fetch(suite: &str, work: &Path) -> Result<PathBuf, Failure> {
    let packages = work.join("packages");
    let unpacked = work.join("unpacked");
    for directory in [
        &packages,
        &unpacked,
        &work.join("state/lists/partial"),
        &work.join("cache/archives/partial"),
    ] {
        fs::create_dir_all(directory).map_err(unwritable(directory))?;
    }
    let write = |name: &str, text: String| {
        let path = work.join(name);
        fs::write(&path, text).map_err(unwritable(&path))
    };
    write("status", String::new())?;
    write("sources.list", sources(suite))?;
    write("apt.conf", configuration(work, suite))?;
    let apt = |program: &str| {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", work.join("apt.conf"))
            .current_dir(&packages);
        command
    };
    shell::run(apt("apt-get").args(["--quiet", "--quiet", "update"]))?;
    let mut depends = apt("apt-cache");
    depends
        .args(["depends", "--recurse", "--no-recommends", "--no-suggests"])
        .arg("linux-image-cloud-amd64");
    let names = shell::output(&mut depends)?;
    let names = kernel_packages(&names);
    if names.is_empty() {
        let words = format!("Debian {suite} has no package `linux-image-cloud-amd64`");
        return Err(Failure::new(words));
    }
    shell::run(
        apt("apt-get")
            .args(["--quiet", "--quiet", "download"])
            .args(&names),
    )?;
    let archives = fs::read_dir(&packages).map_err(unwritable(&packages))?;
    for archive in archives.flatten() {
        shell::run(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(archive.path())
                .arg(&unpacked),
        )?;
    }
    Ok(unpacked)
}

fn sources(suite: &str) -> String {
    let releases = Archive::Releases.source(suite);
    if suite == UNSTABLE {
        return releases;
    }
    releases + &Archive::Security.source(&format!("{suite}-security"))
}

fn configuration(work: &Path, suite: &str) -> String {
    let work = work.display();
    // Unstable's release file is at times older than it says it may be. Its
    // signature is checked all the same.
    let dates = if suite == UNSTABLE {
        "Acquire::Check-Valid-Until \"false\";\n"
    } else {
        ""
    };
    format!(
        "Dir::Etc::sourcelist \"{work}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::State \"{work}/state\";\n\
         Dir::State::status \"{work}/status\";\n\
         Dir::Cache \"{work}/cache\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         {dates}"
    )
}

/// The packages that hold files of a kernel, among everything that its meta
/// package depends on. Newer releases keep the kernel, its modules and their
/// list of what is built in in packages of their own. The unsigned twin of an
/// image has the same files.
fn kernel_packages(depends: &str) -> Vec<&str> {
    const PARTS: [&str; 4] = [
        "linux-image-",
        "linux-binary-",
        "linux-modules-",
        "linux-base-",
    ];
    depends
        .lines()
        .filter(|line| !line.ends_with("-unsigned"))
        .filter(|line| {
            PARTS
                .iter()
                .filter_map(|part| line.strip_prefix(part))
                .any(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        })
        .collect()
}

/// Makes the files that QEMU takes.
fn make(unpacked: &Path, work: &Path, made: &Path) -> Result<(), Failure> {
    let (release, modules) = find_modules(unpacked)?;
    let tree = work.join("tree/lib/modules");
    fs::create_dir_all(&tree).map_err(unwritable(&tree))?;
    fs::rename(&modules, tree.join(&release)).map_err(unwritable(&tree))?;
    let tree = work.join("tree");
    shell::run(
        Command::new("/sbin/depmod")
            .arg("--basedir")
            .arg(&tree)
            .arg(&release),
    )?;
    let image = [
        unpacked.join(format!("boot/vmlinuz-{release}")),
        tree.join(format!("lib/modules/{release}/vmlinuz")),
    ];
    let image = image.iter().find(|path| path.is_file()).ok_or_else(|| {
        Failure::new(format!(
            "the packages of {release} have no kernel where it is expected"
        ))
    })?;
    fs::copy(image, made.join("vmlinuz")).map_err(unwritable(made))?;
    let early = early_modules(&tree, &release)?;
    guest::make_initrd(&early, &work.join("initrd"), &made.join("initrd.img"))?;
    guest::make_disk(&tree.join("lib/modules"), &made.join("modules.img"), 16)?;
    fs::write(made.join("release"), &release).map_err(unwritable(made))
}

fn find_modules(unpacked: &Path) -> Result<(String, PathBuf), Failure> {
    ["lib/modules", "usr/lib/modules"]
        .iter()
        .filter_map(|place| fs::read_dir(unpacked.join(place)).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .next()
        .ok_or_else(|| Failure::new("the kernel packages contain no modules"))
}

/// The files of [`EARLY_MODULES`] and what they depend on, in an order in which
/// they can be inserted. What is built in has no file.
fn early_modules(tree: &Path, release: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for module in EARLY_MODULES {
        let mut show = Command::new("/sbin/modprobe");
        show.arg("--dirname")
            .arg(tree)
            .args(["--set-version", release, "--show-depends", module]);
        for line in shell::output(&mut show)?.lines() {
            if let Some(file) = line.strip_prefix("insmod ") {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
    }
    Ok(files)
}

/// How a directory below `target` failed that should be ours to write to.
pub fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::new(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_with_files_of_a_kernel_are_fetched() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-base-cloud-amd64\n\
                       linux-base-cloud-amd64\nlinux-image-7.2.13+deb14-cloud-amd64\n\
                       linux-base\nlinux-image-7.2.13+deb14-cloud-amd64-unsigned\ninitramfs-tools\nlinux-base-7.2.13+deb14-cloud-amd64\n\
                       linux-binary-7.2.13+deb14-cloud-amd64\n  Depends: linux-modules-7\n\
                       linux-modules-7.2.13+deb14-cloud-amd64\n";
        assert_eq!(
            kernel_packages(depends),
            [
                "linux-image-7.2.13+deb14-cloud-amd64",
                "linux-base-7.2.13+deb14-cloud-amd64",
                "linux-binary-7.2.13+deb14-cloud-amd64",
                "linux-modules-7.2.13+deb14-cloud-amd64",
            ]
        );
    }

    #[test]
    fn signatures_are_checked_for_every_release_and_dates_for_stable_ones() {
        for kernel in Kernel::ALL {
            let configuration = configuration(Path::new("/x"), kernel.suite());
            assert!(!configuration.contains("AllowUnauthenticated"));
            assert!(!configuration.contains("AllowInsecure"));
            assert_eq!(
                configuration.contains("Check-Valid-Until"),
                kernel == Kernel::Newest
            );
        }
    }
}
