//! `cargo xtask setup`: installs what is missing, says what and why, and does
//! nothing when nothing is missing.

pub mod debian_root;
mod programs;

use crate::debian::Archive;
use crate::toolchain::{Incomplete, LINKER, Machine, Missing, Toolchain};
use crate::{Failure, shell};
use programs::{LINKER_PACKAGES, PROGRAMS, UNPACKED, UNPACKED_PLACE};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The release of [`LINKER`] that the kernel programs are tested with.
const LINKER_VERSION: &str = "0.13.0";
/// LLVM that it is built with; `rustc-web` writes bitcode of the same one.
const LLVM: &str = "22";

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    /// Say what is missing, and install nothing; fails if something is.
    #[arg(long)]
    check: bool,
}

/// What has to be installed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Debian packages, each with its reason.
    packages: BTreeMap<&'static str, &'static str>,
    /// Debian packages that are unpacked and not installed, each with its reason.
    unpacked: BTreeMap<&'static str, &'static str>,
    /// Whether the root file system of containers has to be made.
    debian_root: bool,
    /// Whether the linker has to be built.
    linker: bool,
}

impl Plan {
    fn of(toolchain: Result<Toolchain, Incomplete>, has: impl Fn(&str) -> bool) -> Self {
        let mut plan = Self {
            packages: lacking(PROGRAMS, &has),
            unpacked: lacking(UNPACKED, &has),
            debian_root: !has(egress_tests::debian::ROOT),
            linker: false,
        };
        for missing in toolchain.err().map(|it| it.debian).unwrap_or_default() {
            plan.provide(&missing);
        }
        plan
    }

    fn provide(&mut self, missing: &Missing) {
        match missing {
            Missing::DebianCompiler => {
                self.packages
                    .insert("rustc-web", "compiles the kernel programs");
            }
            Missing::DebianCore => {
                let reason = "is `core` for the kernel programs";
                self.packages.insert("libstd-rust-web-dev-bpf", reason);
            }
            Missing::Linker | Missing::LinkerBroken(..) => {
                self.linker = true;
                self.packages.extend(LINKER_PACKAGES);
            }
            // Only the other toolchain's, which is never installed by us.
            Missing::Nightly | Missing::NightlySources => {}
        }
    }

    fn is_empty(&self) -> bool {
        let Self {
            packages,
            unpacked,
            debian_root,
            linker,
        } = self;
        packages.is_empty() && unpacked.is_empty() && !debian_root && !linker
    }

    fn print(&self) {
        eprintln!("These are missing and will be installed:");
        for (package, reason) in self.packages.iter().chain(&self.unpacked) {
            eprintln!("  {package:26} {reason}");
        }
        if self.debian_root {
            let root = egress_tests::debian::ROOT;
            eprintln!("  {root:26} {}", debian_root::REASON);
        }
        if self.linker {
            eprintln!("  {LINKER:26} makes BPF objects of the kernel programs; built by cargo");
        }
    }
}

/// The packages of those programs that are not there, each with its reason.
fn lacking(
    programs: &[(&str, &'static str, &'static str)],
    has: impl Fn(&str) -> bool,
) -> BTreeMap<&'static str, &'static str> {
    let missing = programs.iter().filter(|(program, ..)| !has(program));
    missing
        .map(|(_, package, reason)| (*package, *reason))
        .collect()
}

/// Installs what is missing.
pub fn run(options: &Options) -> Result<(), Failure> {
    let plan = Plan::of(Toolchain::find(&Machine::here()), |name| {
        program_is_there(name)
    });
    if plan.is_empty() {
        eprintln!("setup: nothing is missing");
        return Ok(());
    }
    plan.print();
    if options.check {
        return Err(Failure::new(
            "something is missing; `cargo xtask setup` installs it",
        ));
    }
    install(&plan)?;
    Toolchain::find(&Machine::here())
        .map(|toolchain| eprintln!("setup: done; kernel toolchain is {toolchain}"))
        .map_err(|incomplete| Failure::new(format!("installed everything, and still {incomplete}")))
}

/// Installs what is missing, with no choice: the first step of other tasks.
pub fn run_first() -> Result<(), Failure> {
    run(&Options { check: false })
}

fn install(plan: &Plan) -> Result<(), Failure> {
    if !plan.packages.is_empty() || !plan.unpacked.is_empty() {
        require_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default())?;
        apt_get(&["update"])?;
    }
    if !plan.packages.is_empty() {
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(plan.packages.keys());
        apt_get(&arguments).map_err(|failure| {
            let advice =
                "rustc-web and llvm-22 come from bookworm-security: is it in apt's sources?";
            Failure::new(format!("{failure}\n{advice}"))
        })?;
    }
    for package in plan.unpacked.keys() {
        unpack(package)?;
    }
    if plan.debian_root {
        debian_root::provide()?;
    }
    if plan.linker {
        let mut cargo = shell::cargo();
        cargo
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
            .args([
                "install",
                LINKER,
                "--version",
                LINKER_VERSION,
                "--locked",
                "--force",
            ])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{LLVM}"),
            ]);
        shell::run(&mut cargo)?;
    }
    Ok(())
}

/// Fetches a package and lays out its files below [`UNPACKED_PLACE`].
fn unpack(package: &str) -> Result<(), Failure> {
    let place = format!("{UNPACKED_PLACE}/{package}");
    // A name of its own until all of it is there: a half is taken for the whole.
    let half = format!("{place}.new");
    let fetch = format!(
        "set -e; rm -rf {place} {half}; mkdir -p {half}; cd {half}; \
         apt-get --option APT::Sandbox::User=root download {package}; dpkg-deb --extract {package}_*.deb .; rm {package}_*.deb; \
         mv {half} {place}"
    );
    shell::run(shell::as_root("sh")?.args(["-c", &fetch]))
}

/// Installs the packages of those programs that are missing: what a task needs
/// that most people never run, `(program, package, reason)`.
pub fn provide(programs: &[(&str, &'static str, &'static str)]) -> Result<(), Failure> {
    let plan = Plan {
        packages: lacking(programs, program_is_there),
        ..Plan::default()
    };
    if plan.is_empty() {
        return Ok(());
    }
    plan.print();
    require_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default())?;
    let packages: Vec<&str> = plan.packages.keys().copied().collect();
    apt_get(&["update"])?;
    let mut arguments = INSTALL.to_vec();
    arguments.extend(&packages);
    apt_get(&arguments).or_else(|failure| {
        println!("setup: {failure}; trying again with backports");
        install_from_backports(&packages)
    })
}

/// Nothing that somebody installed is removed for a task of ours.
const INSTALL: [&str; 4] = ["install", "--yes", "--no-remove", "--no-install-recommends"];

/// Installs with backports as a source for this once: a machine that has some
/// parts of QEMU from there cannot have the others from the release.
fn install_from_backports(packages: &[&str]) -> Result<(), Failure> {
    const RELEASE: &str = "bookworm-backports";
    let unwritable = |error| Failure::new(format!("no temporary file: {error}"));
    let sources = tempfile::Builder::new()
        .suffix(".list")
        .tempfile()
        .map_err(unwritable)?;
    let own = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let line = Archive::Releases.source(RELEASE);
    fs::write(sources.path(), format!("{own}\n{line}")).map_err(unwritable)?;
    let option = format!("Dir::Etc::sourcelist={}", sources.path().display());
    apt_get(&["--option", &option, "update"])?;
    let mut arguments = vec!["--option", option.as_str()];
    arguments.extend(INSTALL);
    arguments.extend(["--target-release", RELEASE]);
    arguments.extend(packages);
    apt_get(&arguments)
}

fn apt_get(arguments: &[&str]) -> Result<(), Failure> {
    let mut command = shell::as_root("apt-get")?;
    shell::run(
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn program_is_there(name: &str) -> bool {
    if name.starts_with('/') {
        Path::new(name).exists()
    } else {
        shell::find(name).is_some()
    }
}

fn require_debian(os_release: &str) -> Result<(), Failure> {
    let says = |key: &str, value: &str| {
        os_release.lines().any(|line| {
            let content = line
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('='));
            content.is_some_and(|content| content.trim_matches('"') == value)
        })
    };
    if says("ID", "debian") && says("VERSION_ID", "12") {
        return Ok(());
    }
    Err(Failure::new(
        "these are packages of Debian 12, and this is another system: install what they contain \
         yourself, or a rustup nightly with rust-src and bpf-linker for the kernel programs",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A machine in a directory, with the parts of toolchains that are asked for.
    struct Made(tempfile::TempDir);

    impl Made {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory can be made"))
        }

        fn with(self, path: &str, content: &str) -> Self {
            let file = self.0.path().join(path);
            fs::create_dir_all(file.parent().expect("below the directory")).expect("writable");
            fs::write(&file, content).expect("writable");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("own file");
            self
        }

        fn debian(self) -> Self {
            self.with("usr/bin/rustc", "")
                .with("usr/lib/rustlib/bpfel-unknown-none/lib/libcore-1.rlib", "")
        }

        fn linker(self, script: &str) -> Self {
            self.with("bin/bpf-linker", &format!("#!/bin/sh\n{script}\n"))
        }

        fn find(&self) -> Result<Toolchain, Incomplete> {
            let root = self.0.path();
            Toolchain::find(&Machine {
                root: root.to_owned(),
                programs: vec![root.join("bin")],
                rustup_toolchains: Some(root.join("toolchains")),
            })
        }
    }

    #[test]
    fn a_complete_machine_needs_nothing() {
        let made = Made::new().debian().linker("exit 0");
        assert!(Plan::of(made.find(), |_| true).is_empty());
    }

    #[test]
    fn a_nightly_with_sources_is_as_good() {
        let nightly = "toolchains/nightly-2026-11-01-x86_64-unknown-linux-gnu";
        let made = Made::new()
            .with(&format!("{nightly}/bin/rustc"), "")
            .linker("exit 0");
        let incomplete = made.find().expect_err("without sources there is no core");
        assert_eq!(incomplete.nightly, [Missing::NightlySources]);
        let made = made.with(
            &format!("{nightly}/lib/rustlib/src/rust/library/core/x"),
            "",
        );
        let toolchain = made.find().expect("a complete toolchain");
        assert!(
            toolchain.to_string().starts_with("rustup nightly: "),
            "{toolchain}"
        );
        assert!(Plan::of(Ok(toolchain), |_| true).is_empty());
    }

    #[test]
    fn debian_packages_come_before_a_nightly() {
        let nightly = "toolchains/nightly-x86_64-unknown-linux-gnu";
        let made = Made::new()
            .debian()
            .linker("exit 0")
            .with(&format!("{nightly}/bin/rustc"), "")
            .with(
                &format!("{nightly}/lib/rustlib/src/rust/library/core/x"),
                "",
            );
        let toolchain = made.find().expect("a complete toolchain");
        assert!(
            toolchain.to_string().starts_with("Debian packages: "),
            "{toolchain}"
        );
    }

    #[test]
    fn an_empty_machine_needs_both_packages_and_linker() {
        let plan = Plan::of(Made::new().find(), |name| name != "curl");
        let packages: Vec<&str> = plan.packages.keys().copied().collect();
        assert!(plan.linker);
        assert_eq!(
            packages,
            [
                "curl",
                "libpolly-22-dev",
                "libstd-rust-web-dev-bpf",
                "libxml2-dev",
                "libzstd-dev",
                "llvm-22-dev",
                "rustc-web",
                "zlib1g-dev",
            ]
        );
    }

    #[test]
    fn the_message_names_every_missing_part_and_the_way_out() {
        let made = Made::new().linker("echo no libLLVM.so.22 >&2; exit 127");
        let message = made.find().expect_err("nothing is complete").to_string();
        for part in [
            "rustc-web",
            "libstd-rust-web-dev-bpf",
            "nightly toolchain",
            "rust-src",
            "no libLLVM.so.22",
            "cargo xtask setup",
        ] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }

    #[test]
    fn other_systems_are_told_so() {
        assert!(require_debian("ID=debian\nVERSION_ID=\"12\"\n").is_ok());
        assert!(require_debian("ID=debian\nVERSION_ID=\"11\"\n").is_err());
        assert!(require_debian("ID=ubuntu\nVERSION_ID=\"24.04\"\n").is_err());
        assert!(require_debian("").is_err());
    }

    #[test]
    fn what_installs_the_kernel_toolchain_is_built_without_it() {
        // egress-agent's build script needs the toolchain.
        let output = shell::cargo()
            .args([
                "tree",
                "--offline",
                "--package",
                "xtask",
                "--edges",
                "normal,build",
            ])
            .output()
            .expect("cargo starts");
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(tree.contains("egress-tests v"), "{output:?}");
        assert!(!tree.contains("egress-agent v"), "{tree}");
    }
}
